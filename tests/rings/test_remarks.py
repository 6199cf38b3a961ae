"""What the holder says about a ring that stands, and about one of its own that starts."""

import msgspec
import pytest
from loopback import card

from gardener.rings.remarks import Start, tell_choice, tell_steep_costs
from gardener.rings.settings import RingSettings

FLAT = msgspec.structs.replace(card(1, 2), costs=((1, 1000), (8, 1500)))
STEEP = msgspec.structs.replace(card(2, 2), costs=((1, 1000), (8, 7000)))


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ((), ["stage 2: 8 rows take 7.0 times as long as 1, so that guesses hardly pay"]),
        (("plain", "gardener"), ["stage 2: 8 rows"]),
        (("plain",), []),
    ],
)
def test_a_stage_where_guesses_hardly_pay_is_named(
    policies: tuple[str, ...], said: list[str]
) -> None:
    lines: list[str] = []
    tell_steep_costs((FLAT, STEEP), policies, lines.append)
    assert [line[: len(start)] for line, start in zip(lines, said, strict=True)] == said


def test_a_local_ring_that_chose_its_kind_says_which() -> None:
    lines: list[str] = []
    cards = [msgspec.structs.replace(FLAT, quant="int4", head_quant="int8")]
    for settings in (
        RingSettings(local=1, quant="int4"),
        RingSettings(peer="127.0.0.1:1", listen="127.0.0.1:2", quant="auto"),
    ):
        tell_choice(settings, cards, lines.append)
    assert lines == []
    tell_choice(RingSettings(local=1, quant="auto"), cards, lines.append)
    assert lines == ["--quant auto: the stages compute in float32 int4, head int8"]


def test_a_local_ring_says_at_once_what_it_does_and_then_how_far_it_is() -> None:
    said: list[str] = []
    heard: list[str] = []
    start = Start(2, said.append, heard.append)
    start.begin("oak")
    assert said == ["starting 2 stages of oak here, which takes some seconds"]
    lines = [
        "stage 2: layers 2-3 of 4 on cpu in float32, 12 MB, loaded in 1.2 s",
        "stage 2: listening at 127.0.0.1:7002",
        "a line without a stage",
        "stage 1: layers 0-1 of 4 on cpu in float32, 12 MB, loaded in 0.2 s",
    ]
    for line in lines:
        start.heard(line)
    start.end()
    assert heard == lines
    assert [line.partition(" (")[0] for line in said[1:]] == [
        "stage 2 of 2 has loaded its layers",
        "stage 1 of 2 has loaded its layers",
        "the ring stands",
    ]
