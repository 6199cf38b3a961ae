"""Which requests had the ring to themselves."""

from gardener.runtime.trace import Record, What
from gardener.watch.sharing import Sharing


def records(*turns: tuple[int, What]) -> list[Record]:
    return [
        Record(float(at), what, request, 0, 1, 0.0, ()) for at, (request, what) in enumerate(turns)
    ]


def test_one_after_the_other_is_alone() -> None:
    sharing = Sharing()
    sharing.read(records((1, "sent"), (1, "emitted")), [1])
    sharing.read(records((1, "sent"), (2, "sent"), (1, "judged"), (2, "emitted")), [2])
    assert sharing.alone(1)
    assert sharing.alone(2), "a verdict on a segment of the first came late"


def test_turns_by_turns_are_shared_for_good() -> None:
    sharing = Sharing()
    sharing.read(records((1, "sent"), (2, "sent"), (1, "sent")), [1])
    sharing.read(records((2, "emitted"), (2, "emitted"), (3, "sent")), [3])
    assert [sharing.alone(each) for each in (1, 2, 3)] == [False, False, True]


def test_those_that_run_together_share() -> None:
    sharing = Sharing()
    sharing.read(records((1, "sent"), (2, "sent")), [1, 2])
    sharing.keep([2])
    sharing.read(records((2, "emitted")), [2])
    assert not sharing.alone(2)
    assert sharing.alone(1), "it is forgotten"
