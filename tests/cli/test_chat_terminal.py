"""A whole chat, typed into a terminal, with a real ring of two stages of the default model."""

import json
from pathlib import Path

from chatting import ChatPty

READY = r"/8192 tokens[^\n]*\s*$"
"""How the line at the bottom ends, when a message can be typed."""


def test_a_chat_of_two_turns_with_a_ring(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    options = ("--local", "2", "--max-new-tokens", "12", "--system", "Be brief.")
    with ChatPty(*options) as chat:
        at = chat.shows(READY)
        chat.hit("Name three colours.\r")
        at = chat.shows(r"ended after 12 tokens: /set max_tokens allows more", at)
        chat.shows(READY, at)
        assert "\x1b[32m" in chat.drawn, "guesses are tinted"
        chat.hit("/set max-tokens 4000\r/set ignore_eos on\r")
        at = chat.shows(r"ignore_eos on, max_tokens 4000", at)
        at = chat.shows(READY, at)
        chat.hit("Tell me more.\r")
        at = chat.shows(r"reading the prompt|(\w+ ){3}", chat.shows(r"> Tell me more\.\n", at))
        at = chat.shows(r"\w+ \w+", at)
        chat.hit("\x03")
        at = chat.shows(r"stopped; /retry asks again", at)
        at = chat.shows(READY, at)
        chat.hit(f"/save {path}\r")
        at = chat.shows(r"5 messages are in", at)
        first = json.loads(path.read_text())
        chat.hit("/set max_tokens 8\r/retry\r")
        at = chat.shows(r"ended after 8 tokens", at)
        at = chat.shows(READY, at)
        chat.hit(f"/stats\r/save {path}\ry\r")
        at = chat.shows(r"5 messages are in", at)
        chat.hit("\x04")
        assert chat.status() == 0
    assert [each["role"] for each in first] == ["system", "user", "assistant", "user", "assistant"]
    again = json.loads(path.read_text())
    assert again[:4] == first[:4]
    texts = [each[4]["content"].rstrip("�") for each in (first, again)]  # whichever ended sooner
    assert max(texts, key=len).startswith(min(texts, key=len))
    told = chat.text
    assert "ended: length" in told
    assert "this chat    3 answers" in told
    prompt, cached = chat.figures(r"its prompt   (\d+) tokens, (\d+) of them cached")
    assert 0 < cached < prompt, "the dialogue before the last message was not computed again"
    accepted, missed = chat.figures(r"its guesses  (\d+) accepted, \d+ drafted, (\d+) missed")
    assert accepted + missed == 8
