"""What the commands print, and a reader that does not read."""

import os
import select
import time

import pytest

from gardener.cli import output
from gardener.cli.output import MOST_LINES, Writer


def test_text_comes_out_in_order() -> None:
    reader, end = os.pipe()
    writer = Writer()
    with open(end, "w") as stream:
        for word in ("a ", "rose ", "is"):
            writer.put(stream, word)
        assert writer.wait(10)
    with open(reader) as read:
        assert read.read() == "a rose is"


def test_a_reader_that_stands_still_holds_nobody_up() -> None:
    reader, end = os.pipe()
    writer = Writer()
    text = "x" * 2**20  # more than any pipe takes
    with open(end, "w") as stream:
        began = time.monotonic()
        writer.put(stream, text)
        writer.put(stream, "the end")
        assert not writer.wait(0.05)
        assert time.monotonic() - began < 5
        got = b""
        while not got.endswith(b"the end"):
            got += os.read(reader, 2**20)
        assert writer.wait(10)
    os.close(reader)
    assert got.decode() == text + "the end"


def test_a_reader_that_has_left_is_told_at_the_next_word() -> None:
    reader, end = os.pipe()
    os.close(reader)
    writer = Writer()
    stream = open(end, "w")  # noqa: SIM115 - closing it fails, which is the point
    writer.put(stream, "lost")
    assert writer.wait(10)
    with pytest.raises(BrokenPipeError):
        writer.put(stream, "more")
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_log_that_nobody_reads_holds_nobody_up_and_does_not_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, end = os.pipe()
    monkeypatch.setattr(output, "_logger", Writer())
    line, count = "x" * 999, MOST_LINES + 2000
    with open(end, "w") as stream, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        for _ in range(count):
            output.log(line)
        held = output._logger.left
        in_pipe = 2**16 // len(line) + 1  # what the writer may still put there
        assert MOST_LINES - in_pipe <= held <= MOST_LINES
        got = b""
        while output._logger.left:
            if select.select([reader], [], [], 0.05)[0]:  # it counts a line after it is written
                got += os.read(reader, 2**20)
    with open(reader, "rb") as rest:
        got += rest.read()
    lines = got.decode().splitlines()
    assert set(lines) == {line}
    assert MOST_LINES <= len(lines) < count
