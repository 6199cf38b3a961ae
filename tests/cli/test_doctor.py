"""`gardener doctor` as a command: what it prints, and how it ends."""

import json
from pathlib import Path

import pytest
from commands import Said, gardener
from examined import card, cluster, ring, sight, stage, view
from processes import free_ports

from gardener.cli.doctor_report import conclusion, now, where_from
from gardener.cluster.doctor.finding import Finding, Severity, Subject
from gardener.cluster.doctor.seen import Seen
from gardener.net.look import Unseen, Why

FILE = """
name = "home"
model = "no-such-model"
[holder]
host = "127.0.0.1"
port = {}
[stage.1]
host = "127.0.0.1"
port = {}
[stage.2]
host = "127.0.0.1"
port = {}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the file of a ring of which nobody is there."""
    (tmp_path / "cluster.toml").write_text(FILE.format(*free_ports(3)))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def look(folder: Path, *words: str) -> Said:
    return gardener("doctor", "--cluster", folder / "cluster.toml", *words)


def test_what_it_prints_of_a_ring_that_is_not_there(folder: Path) -> None:
    said = look(folder)
    assert said.status == 1
    assert "all of it is on this machine" in said.out
    lines = [line for line in said.out.splitlines() if line]
    starts = [line for line in lines if "gardener-node --stage" in line]
    assert starts == [
        f"   here: gardener-node --stage {n} --cluster {folder / 'cluster.toml'}" for n in (1, 2)
    ]
    assert lines[-1] == "2 things are wrong: mend them from the top, and look again"
    assert "the holder's model was not compared: no-such-model is not on this machine yet" in lines


def test_the_same_for_programs(folder: Path) -> None:
    said = look(folder, "--json")
    assert said.status == 1
    record = json.loads(said.out)
    assert record["well"] is False
    assert [each["number"] for each in record["seen"]] == [1, 2, None]
    assert record["seen"][0]["unseen"]["why"] == "nothing listens there"
    assert [each["subject"] for each in record["findings"]] == ["reach", "reach"]


def test_a_ring_that_nobody_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("GARDENER_CLUSTER", raising=False)
    said = gardener("doctor")
    assert said.status == 2
    assert "there is no cluster.toml here or in" in said.err
    assert "--peer HOST:PORT of stage 1" in said.err


def test_a_file_and_addresses_exclude_each_other(folder: Path) -> None:
    said = look(folder, "--peer", "127.0.0.1:7001")
    assert said.status == 2
    assert "--cluster and --peer exclude each other" in said.err


def test_a_file_that_is_left_aside_is_not_recommended_beside_addresses(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the two exclude each other."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("GARDENER_CLUSTER", raising=False)
    said = gardener("doctor", "--peer", f"127.0.0.1:{free_ports(1)[0]}")
    assert "cluster.toml in this folder is left aside: --peer says where the stages are" in said.err
    assert "takes all else from it" not in said.err


# --- sentences -----------------------------------------------------------------------------------


def test_which_machine_it_is() -> None:
    seen = ring(stage(1), stage(2), stage(3), of=cluster(), holder="away")
    assert "no address of it is this machine's, so it is seen from outside" in where_from(seen)
    seen = ring(stage(1), stage(2), stage(3), of=cluster())
    assert where_from(seen).endswith("this is the machine of the holder")


def found(severity: Severity) -> Finding:
    return Finding(Subject.REACH, severity, "there", "it is so")


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        ([], "all is well: the ring is ready"),
        ([Severity.WARNING, Severity.UNSEEN], "the ring is ready; see above"),
        ([Severity.WAIT], "nothing is wrong, but the ring is not ready yet"),
        (
            [Severity.WRONG, Severity.WAIT],
            "1 thing is wrong: mend them from the top, and look again",
        ),
    ],
)
def test_how_it_concludes(findings: list[Severity], words: str) -> None:
    assert conclusion([found(each) for each in findings]) == words


def test_what_each_does_now() -> None:
    loading = view(card(1, 0, 0, layers=0), sight(1, 3, does="is loading its weights, 34 %"))
    assert now(stage(1, seen=loading)) == "is loading its weights, 34 %"
    assert now(stage(1, requests=2)) == "at work on 2 requests"
    assert now(stage(1, upstream=sight(1, 3).downstream)) == "ready"
    assert now(stage(2, downstream=None)) == "dials 10.0.0.4:7000"
    assert now(stage(2, seen=Unseen(Why.TIMEOUT))) == "nothing comes back"
    seen: Seen = ring(stage(1), of=None)
    assert seen.holder is not None
    assert now(seen.holder) == "nobody asks"
