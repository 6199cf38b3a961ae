"""`--record` and `gardener replay`, in real terminals."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import statuses
import tiny
from processes import DEADLINE
from terminals import SCREEN_OFF, Pty

from gardener.cli.output import finish
from gardener.cli.replay import replay
from gardener.cli.view.lines import frame, styled
from gardener.cli.view.picture import as_svg, as_text
from gardener.cli.view.player import Player
from gardener.errors import UserError
from gardener.watch.record import Recorder, header
from gardener.watch.recording import read

GARDENER = "from gardener.cli.start import gardener; gardener()"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of a ring."""
    path = tmp_path_factory.mktemp("recorded") / "run.jsonl.gz"
    recorder = Recorder(path, header("a model", (90, 20)), pytest.fail)
    for number, status in enumerate(statuses.run(300)):
        recorder.add(number / 5, status)
    recorder.close()
    return path


def printed(*options: str) -> str:
    """What `gardener replay` prints where there is no terminal."""
    done = subprocess.run(
        [sys.executable, "-c", GARDENER, "replay", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    return done.stdout


# --- a real run ----------------------------------------------------------------------------------


def test_a_recorded_run_ends_with_the_picture_that_was_seen(tmp_path: Path) -> None:
    """A real ring of two stages, in a terminal; somebody looks at the help meanwhile."""
    tiny.make("llama", tmp_path / "model")
    tiny.name_words(tmp_path / "model")
    path = tmp_path / "run.jsonl.gz"
    asked = ("generate", "Word", "--raw", "--local", "2", "--model", str(tmp_path / "model"))
    with Pty(*asked, "--max-new-tokens", "40", "--record", str(path), columns=91, lines=27) as run:
        run.until("starting 2 stages")
        run.hit("h")
        run.until("hold the picture")
        run.hit("xh")
        assert run.status() == 0, run.drawn
        assert run.keys_as_found()
        last = run.frames()[-1]
    assert "● done (length)" in last
    assert "40 tokens" in last
    assert "h help" in "".join(run.frames()[:-1])
    assert "h help" not in last
    assert printed(str(path), "--last") == last
    assert printed(str(path), "--size", "91x27") == last
    assert read(path).header.size == (91, 27)
    assert read(path).header.model == "model"  # without its folder


# --- the player ----------------------------------------------------------------------------------


def test_keys_play_hold_and_end(file: Path) -> None:
    with Pty("replay", str(file), "--speed", "0.1") as player:
        at = player.until("▶ 0.[0-9] s of 59.8 s.*0.1×")
        assert not player.keys_as_found()
        player.hit("\x1b[A\x1b[A")
        at = player.until("▶ 20.. s of", at)
        player.hit("\x1b[C")
        at = player.until("‖ 20.. s of", at)
        player.hit(" +")
        at = player.until("▶ 20.. s of 59.8 s.*0.2×", at)
        player.hit("h")
        at = player.until("one picture back, forth", at)
        player.hit("q")
        assert player.status() == 0
        assert player.keys_as_found()
        assert player.drawn.endswith(f"{SCREEN_OFF}\x1b[?25h")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP], ids=lambda n: n.name
)
def test_the_terminal_is_as_it_was_whatever_ends_the_command(
    number: signal.Signals, file: Path
) -> None:
    with Pty("replay", str(file)) as player:
        player.until("▶ ")
        assert not player.keys_as_found()
        player.signal(number)
        assert player.status() == 128 + number
        assert player.keys_as_found()
        assert player.drawn.endswith(f"{SCREEN_OFF}\x1b[?25hinterrupted\r\n")


def test_steps_stay_inside_the_recording(file: Path) -> None:
    player = Player(read(file), 1.0)
    keys = player.live.keys
    keys["left"]()
    assert player.take(0.0) == 0
    keys["up"]()
    keys["right"]()
    assert player.take(5.0) == 51  # it is held
    keys["left"]()
    assert player.take(5.0) == 50
    for _ in range(20):
        keys["up"]()
    assert player.take(6.0) == 299
    keys["right"]()
    assert player.take(6.0) == 299
    keys[" "]()  # once more from the beginning
    assert (player.take(6.0), player.take(7.0)) == (0, 5)
    keys["+"]()
    assert player.take(8.0) == 15
    for _ in range(20):
        keys["-"]()
    assert player.take(18.0) == 20  # a tenth


# --- pictures ------------------------------------------------------------------------------------


def test_a_picture_is_of_the_size_of_the_recording_unless_another_is_given(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(**options: Any) -> list[str]:
        replay(file, **options)
        finish()
        return capsys.readouterr().out.splitlines()

    lines = shown()
    assert len(lines) == 20
    assert max(map(len, lines)) > 80
    assert lines[0].startswith(" gardener  ● answering")
    assert len(shown(size="40x10", at=3)) == 10
    assert "starting" in shown(at=0)[0]


def test_an_svg_needs_nothing_from_elsewhere(file: Path, tmp_path: Path) -> None:
    replay(file, svg=tmp_path / "x.svg", size="80x24")
    text = (tmp_path / "x.svg").read_text()
    assert text.count("://") == text.count('xmlns="http://www.w3.org/2000/svg"') == 1
    assert "url(http" not in text
    assert "font-face" not in text
    assert "a&#160;model" in text
    assert "\x1b" not in text


def test_a_picture_is_no_markup() -> None:
    picture = frame([[styled("</text><script>alert(1)</script>")]], 60, 2)
    svg = as_svg(picture, 60, 2, "<script>")
    assert "<script" not in svg
    assert as_text(picture, 60, 2) == " </text><script>alert(1)</script>\n\n"


@pytest.mark.parametrize("size", ["80", "80x", "0x24", "80x1001", "1e3x24", "-1x24"])
def test_a_size_that_is_none(size: str, file: Path) -> None:
    with pytest.raises(UserError, match=f"--size '{size}' is no size"):
        replay(file, size=size)


def test_what_breaks_off_is_played_and_told(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(file.read_bytes()[:-30])
    replay(path, last=True)
    finish()
    said = capsys.readouterr()
    assert "gardener  ● answering" in said.out
    assert said.err.count("\n") == 1
    assert "breaks off" in said.err
