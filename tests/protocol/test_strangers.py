"""Who begins how."""

import pytest

from gardener.protocol.messages import Bye
from gardener.protocol.strangers import OTHERWISE, WITH, WITHOUT, recognised

HELLO = bytes((0, 0, 0, 90))
TLS = b"\x16\x03\x01\x02"


@pytest.mark.parametrize("secured", [True, False])
@pytest.mark.parametrize("word", [b"GET / HT", b"POST /v1", b"OPTIONS ", b"PRI * HTTP/2.0"])
def test_a_client_of_http_is_answered_so(word: bytes, secured: bool) -> None:
    found = recognised(word, secured=secured, accepted=True)
    assert found is not None
    head, _, text = found.answer.partition(b"\r\n\r\n")
    assert f"content-length: {len(text)}".encode() in head
    assert b"gardener serve" in text


@pytest.mark.parametrize(
    ("head", "secured", "accepted", "said", "bye"),
    [
        (HELLO, True, True, "does not speak TLS, it was started without --keys", Bye(WITH)),
        (HELLO, True, False, "does not speak TLS, it was started without --keys", OTHERWISE),
        (TLS, False, True, "speaks TLS, it was started with --keys", Bye(WITHOUT)),
        (b"\x15\x03\x03\x00", False, False, "answers in TLS, and is no stage", OTHERWISE),
        (b"HTTP/1.1", False, False, "answers in HTTP, so it is no stage", OTHERWISE),
        (b"HTTP/1.1", True, False, "answers in HTTP, so it is no stage", OTHERWISE),
        (
            b"SSH-2.0",
            True,
            False,
            "does not speak TLS (it begins with 53 53 48 2d)",
            OTHERWISE,
        ),
    ],
)
def test_each_has_its_sentence(
    head: bytes, secured: bool, accepted: bool, said: str, bye: Bye
) -> None:
    found = recognised(head, secured=secured, accepted=accepted)
    assert found is not None
    assert found.said.startswith(said)
    assert found.bye == bye


@pytest.mark.parametrize("head", [HELLO, b"SSH-2.0", b"", b"\xff\xff\xff\xff", b"\x16\x04"])
@pytest.mark.parametrize("accepted", [True, False])
def test_who_is_not_recognised_is_judged_by_what_it_says(head: bytes, accepted: bool) -> None:
    assert recognised(head, secured=False, accepted=accepted) is None
