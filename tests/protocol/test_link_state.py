from pathlib import Path

import msgspec
import pytest

from gardener.errors import LocalError, RemoteError
from gardener.protocol import messages as m
from gardener.protocol import reports as r
from gardener.protocol.link_state import TABLE, End, LinkState, State, message_table, table
from gardener.protocol.sight import Look, Sight

CARD = m.Card(1, "oak", "0.1.0", 0, 4, 8, 16, "model", "float32", "none", 0)
NONCE = bytes(range(16))
HELLO, WELCOME = m.Hello(m.PROTOCOL, CARD, NONCE), m.Welcome(m.PROTOCOL, CARD, NONCE)
LOOK, LOOKED = Look(m.PROTOCOL), m.Looked(m.PROTOCOL, CARD, Sight(1))
BYE, PING, CLOSE = m.Bye("enough"), m.Ping(1), m.Close(1)
UP, DOWN = End.UPSTREAM, End.DOWNSTREAM

SAMPLES: dict[type[msgspec.Struct], m.Message] = {
    m.Hello: HELLO, m.Welcome: WELCOME, m.Survey: m.Survey(NONCE, ()), m.Open: m.Open(1, 1, 1),
    m.Close: CLOSE, m.Segment: m.Segment(1, 1, (), (), (), (), None, ()),
    m.Advance: m.Advance(1, (), 1), m.Verdict: m.Verdict(1, 1, (), (), ()), m.Ping: PING,
    m.Pong: m.Pong(1), r.Lost: r.Lost(1, 1, -1, 0, "why"), m.Bye: BYE,
    r.Failed: r.Failed(1, 1, 1, "why"), r.Waiting: r.Waiting(1, 2, "why"),
    r.Busy: r.Busy(2, 1, 1, 17, 40_000_000),
    Look: LOOK, m.Looked: LOOKED,
}  # fmt: skip

GREETING: list[tuple[End, m.Message]] = [(UP, HELLO), (DOWN, WELCOME), (UP, PING)]
LOOKING: list[tuple[End, m.Message]] = [(UP, LOOK), (DOWN, LOOKED)]
"""What leads from one state to the next."""


def talk(session: LinkState, speaker: End, message: m.Message) -> None:
    (session.sent if session.end is speaker else session.received)(message)


def at(end: End, state: State) -> LinkState:
    session = LinkState(end)
    for speaker, message in LOOKING if state in (State.LOOKING, State.LOOKED) else GREETING:
        if session.state is not state and state is not State.CLOSED:
            talk(session, speaker, message)
    if state is State.CLOSED:
        session.received(BYE)
    assert session.state is state
    return session


@pytest.mark.parametrize("end", End)
def test_a_link_opens_works_and_closes(end: End) -> None:
    session = at(end, State.OPEN)
    for message in (m.Survey(NONCE, ()), m.Open(1, 1, 9), CLOSE):
        talk(session, UP, message)
    talk(session, DOWN, r.Lost(3, 1, -1, 0, "silent"))
    talk(session, DOWN, BYE)
    assert session.state is State.CLOSED


@pytest.mark.parametrize("end", End)
@pytest.mark.parametrize("speaker", End)
@pytest.mark.parametrize("state", State)
def test_what_the_table_does_not_have_is_refused(end: End, speaker: End, state: State) -> None:
    for kind, message in SAMPLES.items():
        session = at(end, state)
        after = TABLE[state][speaker].get(kind)
        if after is not None:
            talk(session, speaker, message)
            assert session.state is after
            continue
        blamed = LocalError if speaker is end else RemoteError
        with pytest.raises(blamed, match=f"{speaker} end said {kind.__name__} while {state}"):
            talk(session, speaker, message)
        assert session.state is state


def test_a_breach_says_what_was_expected() -> None:
    with pytest.raises(RemoteError) as caught:
        LinkState(DOWN).received(CLOSE)
    assert str(caught.value) == (
        "the upstream end said Close while greeting, where it may say Hello or Look or Bye"
    )
    with pytest.raises(RemoteError, match="said Ping while closed, where it may say nothing"):
        at(DOWN, State.CLOSED).received(PING)


def test_work_does_not_flow_upstream() -> None:
    with pytest.raises(RemoteError, match="the downstream end said Segment while open"):
        at(UP, State.OPEN).received(SAMPLES[m.Segment])


@pytest.mark.parametrize("end", End)
def test_another_protocol_is_refused(end: End) -> None:
    session = at(end, State.GREETED if end is UP else State.GREETING)
    greeting = m.Welcome if end is UP else m.Hello
    with pytest.raises(RemoteError) as caught:
        session.received(greeting(m.PROTOCOL + 1, CARD, NONCE))
    assert str(caught.value) == (
        f"we speak protocol {m.PROTOCOL} but the peer speaks {m.PROTOCOL + 1}: "
        "install the same version of gardener on both machines"
    )
    session.sent(BYE)  # to say so is still allowed


def test_a_welcome_must_answer_our_hello() -> None:
    with pytest.raises(RemoteError, match="nonce"):
        at(UP, State.GREETED).received(m.Welcome(m.PROTOCOL, CARD, bytes(16)))
    with pytest.raises(LocalError, match="nonce"):
        at(DOWN, State.GREETED).sent(m.Welcome(m.PROTOCOL, CARD, bytes(16)))


def test_every_message_may_be_said_somewhere() -> None:
    said = {kind for ends in TABLE.values() for moves in ends.values() for kind in moves}
    assert said == set(m.MESSAGES)


DOCS = Path(__file__).parents[2] / "docs" / "protocol.md"


@pytest.mark.parametrize(("name", "generate"), [("link state", table), ("messages", message_table)])
def test_the_tables_in_the_docs_are_those_of_the_code(name: str, generate: object) -> None:
    text = DOCS.read_text(encoding="utf-8")
    block = text.partition(f"<!-- {name}: generated -->\n")[2].partition(f"\n<!-- /{name} -->")[0]
    assert callable(generate)
    assert block == generate(), "paste the output of `python -m gardener.protocol.link_state`"


def test_the_docs_name_every_field_of_a_card_in_its_order() -> None:
    table = DOCS.read_text(encoding="utf-8").partition("| field | meaning |\n|---|---|\n")[2]
    rows = table.partition("\n\n")[0].splitlines()
    named = [name for row in rows for name in row.split("|")[1].strip().split(", ")]
    assert tuple(named) == m.fields(m.Card)
