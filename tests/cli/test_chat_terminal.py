"""A whole chat, typed into a terminal, with a real ring of two stages of the default model."""

import json
from pathlib import Path

from chatting import ChatTerminal

READY = r"/8192 tokens[^\n]*\s*$"
"""How the line at the bottom ends, when a message can be typed."""


def test_a_chat_of_two_turns_with_a_ring(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    system = {"GARDENER_SYSTEM": "Be brief."}
    with ChatTerminal("--local", "2", "--max-new-tokens", "12", env=system) as chat:
        at = chat.until(READY)
        chat.type("Name three colours.\r")
        at = chat.until(r"ended after 12 tokens: /set max_tokens allows more", at)
        chat.until(READY, at)
        assert "\x1b[32m" in chat.said, "guesses are tinted"
        chat.type("/set max-tokens 4000\r/set ignore_eos on\r")
        at = chat.until(r"ignore_eos on, max_tokens 4000", at)
        at = chat.until(READY, at)
        chat.type("Tell me more.\r")
        at = chat.until(r"reading the prompt|(\w+ ){3}", chat.until(r"> Tell me more\.\n", at))
        at = chat.until(r"\w+ \w+", at)
        chat.type("\x03")
        at = chat.until(r"stopped; /retry asks again", at)
        at = chat.until(READY, at)
        chat.type(f"/save {path}\r")
        at = chat.until(r"5 messages are in", at)
        first = json.loads(path.read_text())
        chat.type("/set max_tokens 8\r/retry\r")
        at = chat.until(r"ended after 8 tokens", at)
        at = chat.until(READY, at)
        chat.type(f"/stats\r/save {path}\ry\r")
        at = chat.until(r"5 messages are in", at)
        chat.type("\x04")
        assert chat.status() == 0
    assert [each["role"] for each in first] == ["system", "user", "assistant", "user", "assistant"]
    again = json.loads(path.read_text())
    assert again[:4] == first[:4]
    assert first[4]["content"].startswith(again[4]["content"].rstrip("�"))
    told = chat.text
    assert "ended by length" in told
    assert "this chat    3 answers" in told
    prompt, cached = chat.figures(r"its prompt   (\d+) tokens, (\d+) of them cached")
    assert 0 < cached < prompt, "the dialogue before the last message was not computed again"
    accepted, missed = chat.figures(r"its guesses  (\d+) accepted, \d+ drafted, (\d+) missed")
    assert accepted + missed == 8
