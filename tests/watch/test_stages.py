"""How busy stages are, whoever asks."""

from gardener.runtime.trace import Record
from gardener.watch.stages import StageMeter


def verdict(at: float, request: int, *items: int) -> Record:
    """`items`: for each stage microseconds waited and computed."""
    return Record(at, "judged", request, 0, 1, 0.1, items)


def test_all_requests_count() -> None:
    meter = StageMeter()
    assert meter.times(0.0, works=True).busy == ()
    meter.read([Record(0.0, "sent", 1, 0, 1, 0.0, ())])
    meter.read(verdict(at, 1, 0, 200_000, 10_000, 100_000) for at in (1.0, 2.0))
    meter.read(verdict(at, 2, 0, 400_000, 30_000, 100_000) for at in (2.1, 2.5))
    times = meter.times(4.0, works=True)
    assert [round(each, 6) for each in times.busy] == [round(1.0 / 3, 6), 0.1]
    assert [round(each, 6) for each in times.compute] == [0.3, 0.1]
    assert [round(each, 6) for each in times.wait] == [0.0, 0.02]


def test_a_pass_for_two_requests_counts_once() -> None:
    meter = StageMeter()
    meter.read([Record(0.0, "sent", 1, 0, 1, 0.0, ())])
    meter.read([verdict(1.0, 1, 0, 300_000), verdict(1.001, 2, 0, 300_000)])
    assert meter.times(1.001, works=True).busy == (0.3 / 1.001,)
    meter.read([verdict(2.0, 1, 0, 300_000)])
    assert meter.times(2.0, works=True).busy == (0.3,)


def test_nothing_that_runs_keeps_no_stage_busy() -> None:
    meter = StageMeter()
    meter.read([Record(0.0, "sent", 1, 0, 1, 0.0, ()), verdict(0.5, 1, 0, 400_000)])
    assert meter.times(0.5, works=True).busy == (0.8,)
    idle = meter.times(0.6, works=False)
    assert (idle.busy, idle.compute) == ((0.0,), (0.4,))
    assert meter.times(9.0, works=True).busy == (0.0,)


def test_work_is_measured_from_its_beginning() -> None:
    """After a pause that is longer than what is looked at."""
    meter = StageMeter()
    meter.read([Record(0.0, "sent", 1, 0, 1, 0.0, ()), verdict(0.5, 1, 0, 400_000)])
    meter.read([Record(100.0, "sent", 2, 0, 1, 0.0, ()), verdict(100.5, 2, 0, 250_000)])
    assert meter.times(100.5, works=True).busy == (0.5,)
