"""Which policies the commands run where the user names none, and what they say of it."""

import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from gardener.cli import generate, measuring, options, program, verify
from gardener.cli.main import app
from gardener.decoding.policy import MAIN, POLICIES
from gardener.errors import UserError
from gardener.rings.settings import RingSettings

BASELINES = ("plain", "serial", "chunked", "pipedec", "flowspec")
WHY = "policy alternating, because the stages and the drafter share the cores of one machine"

SHARED = ("--simulate", "2", "--profile", "loopback")
APART = ("--simulate", "2", "--profile", "gpu")


def rings(monkeypatch: pytest.MonkeyPatch, *command: str) -> list[RingSettings]:
    """The rings that this command would open; it ends at the first one."""
    opened: list[RingSettings] = []

    def refused(settings: RingSettings, *others: Any) -> None:
        opened.append(settings)
        raise UserError("no ring today")

    for module in (generate, measuring, verify):
        monkeypatch.setattr(module, "open_ring", refused)
    monkeypatch.setattr(sys, "argv", ["gardener", *command])
    with pytest.raises(SystemExit):
        program.program(app)
    return opened


def test_the_command_line_knows_all_policies() -> None:
    assert list(get_args(options.PolicyName)) == list(POLICIES)


@pytest.mark.parametrize(
    ("given", "policies"),
    [
        (SHARED, ("alternating",)),
        (APART, ("gardener",)),
        ((*SHARED, "--window", "3"), ("gardener",)),
        ((*SHARED, "--policy", "gardener"), ("gardener",)),
        ((*APART, "--policy", "alternating"), ("alternating",)),
        ((*SHARED, "--compare", "plain,gardener"), ("alternating", "plain", "gardener")),
    ],
)
def test_generate_runs_what_suits_the_ring_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: tuple[str, ...],
    policies: tuple[str, ...],
) -> None:
    (settings,) = rings(monkeypatch, "generate", "hello", *given)
    assert settings.policies == policies
    said = capsys.readouterr().err
    assert said.count(WHY) == (policies[0] == "alternating" and "--policy" not in given)


@pytest.mark.parametrize(
    ("given", "policies"),
    [
        (SHARED, (*BASELINES, "alternating")),
        (APART, MAIN),
        ((*SHARED, "--window", "3"), MAIN),
        ((*SHARED, "--policies", "plain,gardener"), ("plain", "gardener")),
        (("--simulate", "2", "--profile", "gpu,loopback"), (*MAIN, "alternating")),
    ],
)
def test_eval_compares_the_baselines_with_what_generate_would_run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    given: tuple[str, ...],
    policies: tuple[str, ...],
) -> None:
    where = ("--out", str(tmp_path / "out"), "--json")
    settings = rings(monkeypatch, "eval", *given, *where)[0]
    assert settings.policies == policies
    said = capsys.readouterr().err
    assert said.count(f"simulated 2 loopback: {WHY}") == ("alternating" in policies)


@pytest.mark.parametrize("ring", [SHARED, APART])
def test_verify_tries_every_policy_that_there_is(
    monkeypatch: pytest.MonkeyPatch, ring: tuple[str, ...]
) -> None:
    (settings,) = rings(monkeypatch, "verify", *ring)
    assert settings.policies == tuple(POLICIES)
    (settings,) = rings(monkeypatch, "verify", *ring, "--policies", "alternating")
    assert settings.policies == ("alternating",)
