import pytest

from gardener.protocol.greeting import Greeting
from gardener.protocol.messages import PROTOCOL, Card, Hello

MINE = Card(1, "oak", "0.1.0", 0, 4, 8, 16, "model", "float32", "none", 0)
THEIRS = Card(2, "elm", "0.1.0", 4, 8, 8, 16, "model", "float32", "none", 0)


def test_a_hello_shows_our_card_and_a_nonce_of_its_own() -> None:
    greeting = Greeting(MINE, lambda _: None, 5.0)
    assert greeting.peer is None
    one, other = greeting.hello(), greeting.hello()
    assert (one.protocol, one.card) == (PROTOCOL, MINE)
    assert one.nonce != other.nonce


def test_a_welcome_carries_the_nonce_of_the_hello() -> None:
    hello = Hello(PROTOCOL, THEIRS, bytes(range(16)))
    welcome = Greeting(MINE, lambda _: None, 5.0).welcome(hello)
    assert (welcome.protocol, welcome.card, welcome.nonce) == (PROTOCOL, MINE, hello.nonce)


@pytest.mark.parametrize("why", [None, "stage 2 is early"])
def test_the_owner_decides_by_the_card(why: str | None) -> None:
    shown: list[Card] = []

    def admit(card: Card) -> str | None:
        shown.append(card)
        return why

    greeting = Greeting(MINE, admit, 5.0)
    assert greeting.refusal(Hello(PROTOCOL, THEIRS, bytes(16))) == why
    assert (greeting.peer, shown) == (THEIRS, [THEIRS])


def test_it_has_a_deadline_and_a_sentence_for_it() -> None:
    greeting = Greeting(MINE, lambda _: None, 0.25)
    assert greeting.due(10.0) == 10.25
    assert greeting.overdue(private=True) == "the greeting was not finished within 0.25 s"
