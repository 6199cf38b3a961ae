"""A chat with a source that says what a test wants, typed into a prompt without a terminal."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from gardener.cli import program
from gardener.cli.chat.chat import LEAVE, Chat
from gardener.cli.chat.dialogue import ChatMessage, Dialogue
from gardener.cli.chat.history import history
from gardener.cli.chat.knobs import Knobs
from gardener.cli.chat.paint import Painter, Style
from gardener.cli.chat.pipe import Lines
from gardener.cli.chat.screen import Screen, Slashes
from gardener.cli.chat.source import Part, TurnFigures, nothing
from gardener.errors import PeerLost
from gardener.holder.prompter import TooLong


class Parrot:
    """Answers with what it was asked, word by word. A word `lost` breaks it, `wait` makes it wait
    for Ctrl-C, and `refuse` lets nothing come."""

    model, context = "parrot", 512

    def __init__(self) -> None:
        self.trouble, self.changed = "", nothing
        self.asked: list[list[dict[str, str]]] = []
        self.knobs = Knobs()
        self.waits = asyncio.Event()

    async def answer(
        self, messages: Sequence[ChatMessage], knobs: Knobs, figures: TurnFigures
    ) -> AsyncGenerator[Part]:
        self.asked.append([each.plain() for each in messages])
        self.knobs = knobs
        words = messages[-1].content.split()
        if "refuse" in words:
            raise TooLong("600 tokens", 512)
        figures.prompt, figures.policy = len(messages), "gardener"
        for word in words:
            if word == "lost":
                raise PeerLost("stage 2 was lost")
            if word == "wait":
                self.waits.set()
                await asyncio.Event().wait()
            figures.tokens += 1
            yield Part(f"{word} ")
        figures.finish = "stop"


class Played:
    """A chat that was typed: `said` to the user, `written` by the model."""

    def __init__(self, *, system: str | None = None) -> None:
        self.said: list[str] = []
        self.written: list[str] = []
        self.source = Parrot()
        self.dialogue = Dialogue(system)
        self.chat: Chat

    def type(self, keys: str) -> None:
        """These keys, and what comes of them until the end of the input."""

        async def main() -> None:
            with create_pipe_input() as given:
                screen = Screen(
                    InMemoryHistory(), lambda: self.chat.status, given=given, output=DummyOutput()
                )
                self._begin(screen)
                given.send_text(keys)
                await asyncio.wait_for(self.chat.run(), 30)

        asyncio.run(main())

    def send(self, *lines: str) -> None:
        """The same for lines of a pipe."""

        async def main() -> None:
            left = [f"{line}\n" for line in lines]
            self._begin(Lines(lambda: left.pop(0) if left else ""))
            await asyncio.wait_for(self.chat.run(), 30)

        asyncio.run(main())

    def _begin(self, given: Screen | Lines) -> None:
        @asynccontextmanager
        async def page() -> AsyncIterator[Painter]:
            yield Painter(self.written.append, lambda: 80, Style(False, False, False))

        self.source = Parrot()
        self.chat = Chat(
            self.source, self.dialogue, Knobs(policy="gardener"), given, page, self.said.append
        )

    @property
    def told(self) -> str:
        return "\n".join(self.said)

    @property
    def turns(self) -> list[str]:
        return [each.content for each in self.chat.dialogue.turns]


def test_two_turns_are_one_dialogue() -> None:
    played = Played(system="Be brief.")
    played.type("one\rtwo\r/quit\r")
    assert played.source.asked[1] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "one "},
        {"role": "user", "content": "two"},
    ]
    assert played.chat.status == "parrot · gardener · 5/512 tokens"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("one\x1b\rtwo\r", "one\ntwo"),
        ("\x1b[200~one\r\ntwo\n/quit\x1b[201~ three\r", "one\ntwo\n/quit three"),
        ("//etc\r", "/etc"),
        ("dropped\x03kept\r", "kept"),
    ],
)
def test_what_is_one_message(keys: str, message: str) -> None:
    played = Played()
    played.type(f"{keys}\x04")
    assert [each["content"] for each in played.source.asked[0]] == [message]


def test_the_last_message_is_asked_again_as_it_was_or_changed() -> None:
    played = Played()
    played.type("//one\r/retry\r/edit\r more\r\x04")
    assert [asked[-1]["content"] for asked in played.source.asked] == ["/one", "/one", "/one more"]
    assert played.turns == ["/one more", "/one more "]
    assert "the same settings give the same answer" in played.told


def test_an_edit_that_is_given_up_changes_nothing() -> None:
    played = Played()
    played.type("one\r/edit\r\x03\x03two\r\x04")
    assert played.turns == ["one", "one ", "two", "two "]


def test_an_edit_ends_with_its_draft() -> None:
    """Ctrl-C throws the draft away: what is typed then is another message."""
    played = Played()
    played.type("one\r/edit\r\x03two\r\x04")
    assert played.turns == ["one", "one ", "two", "two "]


def test_the_line_at_the_bottom_says_what_is_changed_and_what_is_wrong() -> None:
    played = Played()
    played.type("one\r\x04")
    assert played.chat.status.startswith("parrot")
    played.chat.edit()
    assert played.chat.status.startswith("changing the last message · parrot")
    played.source.trouble = "the ring is lost"
    assert " · the ring is lost · parrot" in played.chat.status


def test_what_brings_nothing_leaves_what_was_there() -> None:
    """A message that is changed stands in the input again."""
    played = Played()
    played.type("one\r/edit\r refuse\r\x7f\x7f\x7f\x7f\x7f\x7ftwo\r\x04")
    assert [asked[-1]["content"] for asked in played.source.asked] == [
        "one",
        "one refuse",
        "one two",
    ]
    assert played.turns == ["one two", "one two "]
    played = Played()
    played.dialogue.ask("refuse")
    played.dialogue.answer("so")
    played.send("/retry")
    assert played.turns == ["refuse", "so"]
    assert played.chat.failed


def test_a_second_interrupt_at_an_empty_prompt_leaves() -> None:
    played = Played()
    played.type("\x03one\r\x03\x03never\r")
    assert played.said == [LEAVE, LEAVE]
    assert played.turns == ["one", "one "]


def test_an_interrupt_stops_the_answer_and_keeps_it() -> None:
    played = Played()

    async def main() -> None:
        left = ["so far wait never\n", "and\n"]
        lines = Lines(lambda: left.pop(0) if left else "")
        lines.edits = True  # or Ctrl-C would end it all
        played._begin(lines)
        running = asyncio.create_task(played.chat.run())
        await asyncio.wait_for(played.source.waits.wait(), 30)
        assert program._takers[-1]()
        await asyncio.wait_for(running, 30)

    asyncio.run(main())
    assert played.turns == ["so far wait never", "so far ", "and", "and "]
    assert [each.stopped for each in played.dialogue.turns] == [False, True, False, False]
    assert played.said == ["stopped; /retry asks again"]
    assert [each.finish for each in played.chat.answers] == ["stopped", "stop"]
    assert not program._takers


def test_an_interrupt_between_two_prompts_ends_nothing_but_a_second_one_does() -> None:
    played = Played()
    played.send()
    assert not played.chat._interrupted(), "nobody types: it ends at once"
    played.type("one\r\x04")
    assert played.chat._interrupted()
    assert not played.chat._interrupted()


def test_a_broken_answer_is_kept_and_can_be_retried() -> None:
    played = Played()
    played.send("a lost b", "/retry")
    assert played.turns == ["a lost b", "a "]
    assert (
        played.said
        == ["error: stage 2 was lost (/retry opens the ring again and asks once more)"] * 2
    )
    assert len(played.source.asked[1]) == 1
    assert played.chat.failed


def test_a_question_without_an_answer_is_left_out() -> None:
    played = Played()
    played.send("refuse", "one")
    assert played.turns == ["one", "one "]
    assert "600 tokens" in played.said[0]
    assert "/new" in played.said[0]
    assert played.said[1] == "the message before got no answer, and is left out"


def test_settings_reach_the_source_and_bad_ones_do_not() -> None:
    played = Played()
    played.send("/set temperature 0.7", "/set temperature hot", "/set", "one", "/set seed")
    assert played.source.knobs["temperature"] == 0.7
    assert "it is a number" in played.told
    assert "temperature         0.7" in played.told
    assert "/set seed needs a value" in played.told
    played.send("/set temperature 9")
    assert "next to random" in played.told


def test_a_dialogue_is_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    played = Played()
    played.type(f"one\r/system Be brief.\r/save {path}\r/new\r/load {path}\rtwo\r\x04")
    assert [each["content"] for each in json.loads(path.read_text())] == [
        "Be brief.",
        "one",
        "one ",
    ]
    assert played.turns == ["one", "one ", "two", "two "]
    assert "3 messages are in" in played.told
    assert "assistant: one" in played.told


@pytest.mark.parametrize(("answer", "kept"), [("n", True), ("", True), ("y", False)])
def test_it_asks_before_a_file_is_written_over(tmp_path: Path, answer: str, kept: bool) -> None:
    path = tmp_path / "chat.json"
    path.write_text("mine")
    played = Played()
    played.type(f"one\r/save {path}\r{answer}\r\x04")
    assert (path.read_text() == "mine") is kept
    assert ("was left as it is" in played.told) is kept


def test_a_file_that_is_none_leaves_the_dialogue_as_it_was(tmp_path: Path) -> None:
    played = Played()
    played.send("one", f"/load {tmp_path}/none.json", "/load", "/save")
    assert played.turns == ["one", "one "]
    assert "none.json cannot be read: no such file" in played.told
    assert played.told.count("name a file") == 2


@pytest.mark.parametrize(("answer", "turns"), [("n", "mine"), ("y", "theirs")])
def test_an_unsaved_dialogue_is_not_forgotten_unasked(
    tmp_path: Path, answer: str, turns: str
) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps([{"role": "user", "content": "theirs"}]))
    played = Played(system="Be brief.")
    played.type(f"mine\r/load {path}\r{answer}\r\x04")
    assert played.turns[0] == turns
    assert played.chat.dialogue.system == "Be brief."
    assert ("the file has no system message: the one from before stays" in played.told) is (
        answer == "y"
    )
    if answer == "y":
        assert played.chat.used == "?/512 tokens"


def test_commands_that_cannot_be_done_say_why() -> None:
    played = Played()
    played.send("/retry", "/edit", "/hlep", "/stats now", "/system", "/stats", "/help")
    assert played.told.count("nothing was asked yet") == 1
    assert "did you mean /help?" in played.told
    assert "/stats takes nothing, not 'now'" in played.told
    assert "system message: as the chat template has it" in played.told
    assert "nothing was answered yet" in played.told
    assert "/save FILE" in played.told


def test_a_pipe_gives_a_message_a_line_and_cannot_edit() -> None:
    played = Played()
    played.send("", "one", "  ", "two", "/edit", "three")
    assert played.turns[::2] == ["one", "two", "three"]
    assert "/edit needs a terminal" in played.told


def completed(text: str) -> list[str]:
    found = Slashes().get_completions(Document(text), CompleteEvent())
    return [each.text for each in found]


def test_commands_settings_and_policies_are_completed() -> None:
    assert completed("/s") == ["/system", "/save", "/stats", "/set"]
    assert completed("/set te") == ["temperature"]
    assert completed("/set policy gar") == ["gardener"]
    assert completed("what /s") == completed("//s") == completed("/save x") == []


def test_the_history_is_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    said: list[str] = []
    history(said.append).store_string("one\ntwo")
    path = tmp_path / "home" / "chat-history"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert list(history(said.append).load_history_strings()) == ["one\ntwo"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert said == []
    path.unlink()
    path.mkdir()
    history(said.append).store_string("one")
    assert "what is typed is not kept" in said[0]
