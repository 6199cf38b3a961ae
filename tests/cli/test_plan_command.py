"""`gardener plan`: of simulated rings, of a real one, and of a file alone."""

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from commands import Said, gardener
from minted import made
from planned import THREE, foretold

from gardener.cli.plan_file import silent
from gardener.cli.plan_report import figure, report
from gardener.cluster.file import read_cluster
from gardener.cluster.plan.machines import Drift
from gardener.cluster.plan.plan import BEST, NOW, Plan, Rates, Trials
from gardener.net.address import Address
from gardener.net.keys import Keys, read_keys
from gardener.net.listen import Listener, refuse_all
from gardener.protocol.messages import Card
from gardener.protocol.sight import Sight
from gardener.runtime.clock import wall_clock

PROFILE = """
base = "gpu"
slow = { 2 = 4.0 }
"""

FILE = """
model = "MODEL"
insecure = true
[holder]
host = "127.0.0.1"
port = 7990
[stage.1]
host = "127.0.0.1"
port = 7991
layers = "0-0"
[stage.2]
host = "127.0.0.1"
port = 7992
layers = "1-5"
"""
"""Ports at which nobody listens."""

SPARE = """
[spare.1]
host = "127.0.0.1"
port = {}
"""

FEW = ("--max-new-tokens", "16", "--prompts", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of six layers."""
    folder: Path = tmp_path_factory.mktemp("planned") / "model"
    tiny.make("llama", folder, num_hidden_layers=6)
    tiny.name_words(folder)
    return folder


def facts(told: Said) -> dict[str, Any]:
    """What was found, as JSON."""
    assert told.status == 0, told.err
    found: dict[str, Any] = json.loads(told.out)
    return found


def test_a_slow_machine_of_a_simulated_ring_gets_less_and_is_named(
    model: Path, tmp_path: Path
) -> None:
    """And all of it is the same each time."""
    slow = tmp_path / "slow.toml"
    slow.write_text(PROFILE)
    ring = ("--simulate", "3", "--profile", slow, "--model", model, "--raw", *FEW)
    options = (*ring, "--acceptance", "0.8", "--json")
    found = facts(gardener("plan", *options))
    assert found["layers"][1] == "3"  # 0-1, 2-3 and 4-5, as it is
    assert found["slowing"] == ["stage 2"]
    assert found["without"][0]["part"] == "stage 2"
    assert found["twice_as_fast"][0]["part"] == "stage 2"
    assert found["foretold"]["now"]["guessing"] > 1.5 * found["foretold"]["now"]["plain"]
    assert (found["measured"], found["run"]) == (True, None)
    assert "right at 80% of all places" in found["assumed"][0]
    assert found == facts(gardener("plan", *options))


def test_a_real_ring_is_asked_and_stands_beside_what_was_foretold(model: Path) -> None:
    told = gardener("plan", "--local", "2", "--model", model, "--raw", "--run", *FEW, "--json")
    found = facts(told)
    assert set(found["foretold_to_run"]) == {"now", "seen", "best"}
    assert all(rate > 0 for rate in found["run"].values())
    assert len(found["drift"]["levels"]) == 2
    assert "on what the model writes" in found["assumed"][0]


def test_it_is_told_to_people(model: Path) -> None:
    told = gardener("plan", "--simulate", "2", "--profile", "gpu", "--model", model, "--raw", *FEW)
    assert told.status == 0, told.err
    for line in (
        "tokens/s of decoding",
        "stage 1 > stage 2",
        "the drafter",
        "balanced as they are",
        "as each stage has timed itself when it started",
    ):
        assert line in told.out


def test_what_is_told_of_layers_that_bring_little_and_of_busy_machines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drift = Drift((1.0, 2.36, 1.0), 0.0)
    trials = Trials.of(THREE, drift)
    rates = foretold(trials) | {NOW: Rates(0.123, 20.04), BEST: Rates(0.123, 20.4)}
    report(Plan(trials, rates, "gardener", (), Rates(10.0, 20.0), drift))
    told = capsys.readouterr().out
    assert "other layers would bring nothing that can be told (+2 %): leave them" in told
    assert "[stage.1]" not in told
    assert "WARNING: stage 2 took far other times than it had measured" in told
    assert re.search(r"as it is +0\.12 +20\n", told)


@pytest.mark.parametrize(
    ("value", "told"), [(5617.8, "5620"), (73.04, "73"), (0.22567, "0.226"), (12345.6, "12300")]
)
def test_figures_have_three_digits_and_no_exponent(value: float, told: str) -> None:
    assert figure(value) == told


def test_stages_are_looked_at_as_the_doctor_does_and_a_spare_counts_as_its_stage(
    tmp_path: Path,
) -> None:
    """Whoever has keys is not bothered by a stranger: it says so to its own people."""
    folder = made(tmp_path / "keys", stages=2)
    complaints: list[str] = []

    async def listens(stage: int, keys: Keys) -> Listener:
        shown = Card(stage, "oak", "0.1", 0, 0, 0, 0, "", "", "", 0)
        return await refuse_all(
            Address("127.0.0.1", 0),
            *(shown, lambda _: "no", lambda: Sight(wall_clock()), keys),
            distrusted=lambda error: complaints.append(str(error)),
        )

    async def scenario() -> None:
        keys = [read_keys(folder, name, time.time()) for name in ("stage-1", "spare-1")]
        one, spare = await listens(1, keys[0]), await listens(2, keys[1])
        try:
            ports = [each.address.port for each in (one, spare)]
            file = tmp_path / "cluster.toml"
            text = FILE.replace("insecure = true", 'keys = "keys"').replace("MODEL", "m")
            text = text.replace("7991", str(ports[0]))
            for spares, expected in (("", [2]), (SPARE.format(ports[1]), [])):
                file.write_text(text + spares)
                found = await silent(read_cluster(file), folder)
                assert [each.number for each in found] == expected
        finally:
            await one.close()
            await spare.close()
        assert complaints == []

    asyncio.run(scenario())


def test_of_a_ring_that_does_not_run_the_file_tells_what_it_can(
    model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(FILE.replace("MODEL", str(model)))
    told = gardener("plan", "--cluster", file)
    assert told.status == 0, told.err
    assert "stage 1 at 127.0.0.1:7991 and stage 2 at 127.0.0.1:7992 do not answer" in told.out
    assert "gardener-node --stage 2" in told.out
    found = facts(gardener("plan", "--cluster", file, "--json"))
    assert [each["layers"] for each in found["stages"]] == ["0", "1-5"]
    assert (found["measured"], found["silent"]) == (False, [1, 2])


def test_a_ring_that_was_simulated_does_what_was_foretold(model: Path) -> None:
    """The plan knows of it what its cards say, as of any ring."""
    ring = ("--simulate", "3", "--profile", "jetson-7b", "--model", model, "--raw", *FEW)
    off = facts(gardener("plan", *ring, "--run", "--json"))["foretold_to_run"]
    for trial in ("now", "seen"):
        assert off[trial] == {
            "plain": pytest.approx(1, abs=0.03),
            "guessing": pytest.approx(1, abs=0.1),
        }


def test_plain_decoding_alone_makes_no_plan() -> None:
    told = gardener("plan", "--simulate", "2", "--policy", "plain")
    assert told.status == 2
    assert "--policy plain is always reckoned" in told.err


def test_answers_of_one_token_tell_nothing(model: Path) -> None:
    told = gardener(
        *("plan", "--simulate", "2", "--model", model, "--raw", "--prompts", "1"),
        *("--max-new-tokens", "1"),
    )
    assert told.status == 1
    assert "give a larger --max-new-tokens" in told.err
