"""What the commands print, and a reader that does not read."""

import os
import time

import pytest

from gardener.cli.output import Writer


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
