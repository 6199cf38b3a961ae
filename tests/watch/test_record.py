"""Recordings: what is written is what is read, and strangers' files are refused in one sentence."""

import gzip
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import msgspec
import pytest
import statuses

from gardener.errors import UserError
from gardener.watch import record, recording
from gardener.watch.record import Recorder, header
from gardener.watch.recording import Recording, read
from gardener.watch.status import ColouredText, HolderStatus

NAMES = ("run.jsonl", "run.jsonl.gz")
DEADLINE = 20.0


def recorded(path: Path, count: int = 130) -> list[HolderStatus]:
    """Statuses, five a second, written to a file."""
    said: list[str] = []
    recorder = Recorder(path, header("a model", (80, 24)), said.append)
    shown = list(statuses.run(count))
    for number, each in enumerate(shown):
        recorder.add(1000 + number / 5, each)
    recorder.close()
    recorder.close()
    assert said == []
    return shown


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_is_what_was_written(name: str, tmp_path: Path) -> None:
    shown = recorded(tmp_path / name)
    recording = read(tmp_path / name)
    assert (recording.header.model, recording.header.size) == ("a model", (80, 24))
    assert recording.note == ""
    assert recording.times == [round(number / 5, 3) for number in range(len(shown))]
    assert [recording.status(number) for number in range(len(shown))] == shown
    anywhere = random.Random(1).choices(range(len(shown)), k=60)
    assert [recording.status(number) for number in anywhere] == [shown[n] for n in anywhere]
    assert [recording.index(at) for at in (-1.0, 0.0, 0.3, 2.0, 99.0)] == [0, 0, 1, 10, 129]


def test_a_text_is_written_once(tmp_path: Path) -> None:
    """Save where it is written anew so that one can begin there."""
    path = tmp_path / "run.jsonl"
    recorder = Recorder(path, header("", None), pytest.fail)
    words = ["word "] * 40
    for number in range(record.WHOLE_EVERY):
        text = (ColouredText("".join(words) * (number + 1), True),)
        recorder.add(number, HolderStatus("answering", text=text))
    recorder.close()
    assert path.read_text().count("word ") == len(words) * record.WHOLE_EVERY
    assert read(path).status(record.WHOLE_EVERY - 1).text == text


def test_what_does_not_change_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    recorder = Recorder(path, header("", None), pytest.fail)
    for number in range(3):
        recorder.add(number, HolderStatus("answering", elapsed=float(number), said=("a line",)))
    recorder.close()
    assert path.read_text().count("a line") == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_killed_leaves_what_it_had_seen(name: str, tmp_path: Path) -> None:
    """Nobody closes the recorder."""
    path = tmp_path / name
    recorder = Recorder(path, header("", None), pytest.fail)
    shown = list(statuses.run(4 * record.PUT_OUT_EVERY))
    for number, each in enumerate(shown):
        recorder.add(number, each)
    recording = until(lambda: read(path), lambda found: len(found.times) == len(shown))
    assert recording.status(len(shown) - 1) == shown[-1]
    assert bool(recording.note) == name.endswith(".gz")  # it has no end
    recorder.close()


def until(look: Callable[[], Recording], wanted: Callable[[Recording], bool]) -> Recording:
    """What is there once it is as wanted."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            if wanted(found := look()):
                return found
        except UserError:  # nothing yet
            pass
        time.sleep(0.01)
    raise AssertionError("it never came")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("left", [0.4, 0.99])
def test_what_breaks_off_is_played_up_to_there(name: str, left: float, tmp_path: Path) -> None:
    shown = recorded(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * left)])
    recording = read(tmp_path / name)
    assert "breaks off" in recording.note
    assert 0 < len(recording.times) <= len(shown)
    last = len(recording.times) - 1
    assert recording.status(last) == shown[last]


HEADER = msgspec.json.encode(header("m", None)) + b"\n"
FIRST = b'{"at":0,"whole":true}\n'


def line(changed: str, at: str = "0") -> bytes:
    return HEADER + f'{{"at":{at},"whole":true,"changed":{changed}}}\n'.encode()


STRANGE = {
    "nothing": (b"", "no recording"),
    "garbage": (bytes(random.Random(2).randbytes(5000)), "no recording"),
    "a packed thing": (gzip.compress(b"\0" * 9000), "no recording"),
    "packed garbage": (b"\x1f\x8b" + random.Random(3).randbytes(900), "no recording"),
    "other JSON": (b'{"model": "x"}\n', "no recording"),
    "a deep thing": (b"[" * 100_000 + b"\n", "no recording"),
    "a header alone": (HEADER, "nothing was recorded"),
    "another format": (HEADER.replace(b'recording":1', b'recording":2'), "has format 2"),
    "a huge terminal": (HEADER.replace(b"null", b"[100000,2]") + FIRST, "columns and lines"),
    "a long line": (HEADER + b"[" + b" " * record.MOST_LINE + b"]\n", "a line has more than"),
    "garbage later": (HEADER + FIRST + b"\x1b[2J what\n", "line 3 is no status"),
    "a change of nothing": (HEADER + b'{"at":0}\n', "not whole"),
    "time backwards": (HEADER + b'{"at":9,"whole":true}\n{"at":1}\n', "time goes backwards"),
    "a number as text": (line('{"elapsed":"\\u001b[2J"}'), "line 2 is no status"),
    "a wrong state": (line('{"others":[{"number":1,"state":"flying"}]}'), "line 2 is no status"),
    "no number": (line('{"elapsed":1e999}'), "line 2 is no status"),
    "a huge number": (line('{"elapsed":1e300}'), "a number is too large"),
    "a huge count": (line('{"request":' + "9" * 300 + "}"), "a number is too large"),
    "a huge time": (line("{}", at="1e200"), "a number is too large"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_file_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    data, why = STRANGE[name]
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UserError, match=why) as error:
        read(tmp_path / "x")
    assert str(error.value).isprintable()


def test_a_text_does_not_grow_without_bounds(tmp_path: Path) -> None:
    more = b'{"at":0,"kept":99999999,"added":[["%s",true]]}\n' % (b"a" * 500_000)
    (tmp_path / "x").write_bytes(HEADER + FIRST + more * 3)
    with pytest.raises(UserError, match="line 5 is no status"):
        read(tmp_path / "x")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "x")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_written_over(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch()
    shown = recorded(path, count=7)
    with pytest.raises(UserError, match="is there already"):
        Recorder(path, header("", None), pytest.fail)
    assert len(read(path).times) == len(shown)


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_ends_where_it_is_too_long_to_be_played(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, most = tmp_path / name, 20_000
    recorded(path)
    monkeypatch.setattr(recording, "MOST", most)
    found = read(path)
    assert "what comes first is played" in found.note
    monkeypatch.setattr(record, "MOST", most)
    said: list[str] = []
    path.unlink()
    recorder = Recorder(path, header("a model", (80, 24)), said.append)
    for number, each in enumerate(statuses.run(90)):
        recorder.add(1000 + number / 5, each)
    recorder.close()
    assert said == [f"the recording {path} ends early: it would have more than 20000 bytes"]
    again = read(path)
    assert again.note == ""
    assert again.times in (found.times, found.times[:-1])  # its first line is not counted there


def test_a_disk_that_hangs_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = Event()

    def hang(encoder: record.Encoder, at: float, status: HolderStatus) -> bytes:
        go_on.wait(DEADLINE)
        return b""

    monkeypatch.setattr(record.Encoder, "line", hang)
    said: list[str] = []
    recorder = Recorder(tmp_path / "run.jsonl", header("", None), said.append)
    for number in range(3 * record.WAITING):
        recorder.add(number, HolderStatus())
    assert len(said) == 1
    assert "leaves some out" in said[0]
    assert recorder._queue.qsize() <= record.WAITING
    monkeypatch.setattr(record, "CLOSING", 0.01)
    recorder.close()
    assert "the disk does not take it" in said[1]
    go_on.set()


def test_a_pipe_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="nobody reads it"):
        Recorder(tmp_path / "pipe", header("", None), pytest.fail)


def test_a_place_that_cannot_be_written_is_told_before_anything_begins(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "a" / "b", Path("/dev/full")):
        with pytest.raises(UserError, match="name another file"):
            Recorder(path, header("", None), pytest.fail)


def test_what_can_no_longer_be_written_is_told_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    said: list[str] = []
    recorder = Recorder(pipe, header("", None), said.append)
    assert os.read(reader, 20)
    os.close(reader)
    end = time.monotonic() + DEADLINE
    while not said and time.monotonic() < end:
        recorder.add(0, HolderStatus())
        time.sleep(0.001)
    recorder.add(0, HolderStatus())
    recorder.close()
    assert len(said) == 1
    assert f"the recording {pipe} ends early: broken pipe" in said[0]
