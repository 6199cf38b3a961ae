"""Lines of a log: one each, harmless, with the id of the request."""

import json
import logging
import sys
from datetime import datetime

import pytest

from gardener.errors import UserError
from gardener.runtime.logs import AboutRequest, TextFormatter, json_formatter, noted, request_id


def record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    """As a logger makes it while `request_id` is what it is."""
    try:
        raise ValueError("bad\x1b\nline")
    except ValueError:
        fault = sys.exc_info() if level >= logging.ERROR else None
    made = logging.LogRecord("gardener.serve", level, "", 0, message, None, fault)
    made.__dict__.update(extra)
    AboutRequest().filter(made)
    return made


def test_text_names_the_request_and_cannot_steer_a_terminal() -> None:
    token = request_id.set("req-1")
    try:
        line = TextFormatter().format(record("GET /\x1b[2J\nfoo", tokens=3))
    finally:
        request_id.reset(token)
    assert line == "GET /?[2J?foo [req-1]"
    assert TextFormatter().format(record("fine")) == "fine"


def test_an_error_in_text_says_so_and_brings_its_traceback() -> None:
    first, *rest = TextFormatter().format(record("it broke", logging.ERROR)).splitlines()
    assert first == "error: it broke"
    assert rest[0].startswith("Traceback")
    assert "\x1b" not in "".join(rest)


def test_json_is_one_object_a_line_with_all_that_is_known() -> None:
    formatter = json_formatter({"stage": 2})
    token = request_id.set("req-2")
    try:
        line = formatter.format(record("a\nb \x1b ü", logging.ERROR, tokens=3, seconds=0.5))
    finally:
        request_id.reset(token)
    assert "\n" not in line
    assert line.isascii()
    said = json.loads(line)
    assert datetime.fromisoformat(said.pop("timestamp")).tzinfo is not None
    assert "bad" in said.pop("exc_info")
    assert said == {
        "level": "ERROR",
        "message": "a\nb \x1b ü",
        "stage": 2,
        "request_id": "req-2",
        "tokens": 3,
        "seconds": 0.5,
    }


def test_a_note_is_a_record_and_an_error_one_of_that_level() -> None:
    formatter = json_formatter({})
    said = json.loads(formatter.format(noted("stage 1: ready")))
    assert (said["level"], said["message"]) == ("INFO", "stage 1: ready")
    said = json.loads(formatter.format(noted("error: stage 2 was lost")))
    assert (said["level"], said["message"]) == ("ERROR", "stage 2 was lost")


def test_a_missing_package_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pythonjsonlogger.json", None)
    with pytest.raises(UserError, match=r"pip install 'gardener-node\[metrics\]'"):
        json_formatter({})
