"""The metrics of a ring agree with what its sessions counted, and only grow."""

from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise

from loopback import holding, limits, ring, run, slow, until, write
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gardener.decoding.limits import Counts
from gardener.decoding.policy import Bounds, make
from gardener.errors import PeerLost
from gardener.holder.totals import Totals
from gardener.metrics.exposition import exposition
from gardener.metrics.ring import SPECULATION, RingCollector
from gardener.protocol.messages import Timing

Read = Mapping[tuple[str, tuple[str, ...]], float]


def read(registry: CollectorRegistry) -> dict[tuple[str, tuple[str, ...]], float]:
    """Sample name and label values -> value."""
    text = exposition(registry)[0].decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counters(values: Read) -> dict[tuple[str, tuple[str, ...]], float]:
    return {key: value for key, value in values.items() if key[0].endswith("_total")}


def test_counters_are_the_sums_of_what_the_sessions_counted() -> None:
    async def scenario() -> None:
        registry = CollectorRegistry()
        collector = RingCollector(registry, "m")
        async with ring(2) as made, holding(made) as holder:
            collector.watch(holder)
            sums = Counts()
            for tokens in (9, 24):
                await write(holder, tokens)
                assert holder.session is not None
                sums.add(holder.session.speculation.counts)
            assert sums.emitted == 33
            values = read(registry)
            for name, (field, _) in SPECULATION.items():
                assert values[f"{name}_total", ("m",)] == getattr(sums, field), name
            accepted = "gardener_spec_decode_num_accepted_tokens_total"
            positions = "gardener_spec_decode_num_accepted_tokens_per_pos_total"
            by_position = [v for (name, _), v in values.items() if name == positions]
            assert sum(by_position) == values[accepted, ("m",)] > 0
            assert by_position == sorted(by_position, reverse=True)
            assert values["gardener_ring_up", ()] == 1
            for stage in ("1", "2"):
                assert values["gardener_peer_up", (f"oak{stage}", stage)] == 1
                assert values["gardener_stage_compute_seconds_total", (stage,)] > 0
            assert {key[1] for key in values if key[0] == "gardener_hop_latency_seconds"} == {
                ("0-1",),
                ("1-2",),
                ("2-0",),
            }
            assert 0 <= values["gardener_bubble_share", ()] < 1

    run(scenario)


def test_bubbles_are_what_the_busiest_stage_leaves_of_the_time_in_which_requests_run() -> None:
    totals = Totals()
    assert totals.bubbles(1.0) is None
    totals.runs_from(10.0)
    totals.runs_from(10.5)  # a second one, beside it
    totals.judged((Timing(0, 300_000, 1), Timing(0, 500_000, 1)), False, 0)
    totals.rests_from(12.0)
    assert totals.bubbles(99.0) == 0.75  # 0.5 of 2 seconds
    totals.judged((Timing(0, 3_000_000, 1), Timing(0, 0)), False, 0)  # it came after the end
    assert totals.bubbles(99.0) == 0.0


def test_requests_that_run_and_wait_are_counted_while_they_do() -> None:
    async def scenario() -> None:
        registry = CollectorRegistry()
        collector = RingCollector(registry, "m")
        assert read(registry)["gardener_ring_up", ()] == 0
        async with ring(1) as made, holding(made, max_requests=1) as holder:
            collector.watch(holder)
            made.seats[1].stage.trouble = slow(0.005)
            policy = make("gardener", Bounds())
            sessions = [holder.open((1, 2, 3), policy, limits(30)) for _ in range(3)]
            assert sessions[0].waited is not None
            assert sessions[1].waited is None
            await anext(sessions[0])
            before = read(registry)
            assert before["gardener_num_requests_running", ("m",)] == 1
            assert before["gardener_num_requests_waiting", ("m",)] == 2
            assert before["gardener_rows_total", ("m",)] > 0, "that of a request that runs"
            for session in sessions:
                session.close()
            after = read(registry)
            assert after["gardener_num_requests_running", ("m",)] == 0
            assert after["gardener_num_requests_waiting", ("m",)] == 0
            await until(made.quiet)
            assert all(after[key] >= value for key, value in counters(before).items())

    run(scenario)


def test_counters_go_on_over_a_ring_that_breaks_and_is_opened_again() -> None:
    async def scenario() -> None:
        registry = CollectorRegistry()
        collector = RingCollector(registry, "m")
        async with ring(2) as made:
            async with holding(made) as holder:
                collector.watch(holder)
                await write(holder)
                whole = counters(read(registry))
                made.seats[1].stage.trouble = slow(0.01)

                async def kill(text: list[int]) -> None:
                    if len(text) > 3 and 2 in made.seats:
                        await made.kill(2)

                try:
                    await write(holder, 60, each=kill)
                except PeerLost:
                    pass
                else:
                    raise AssertionError("the ring did not break")
                broken = read(registry)
                assert broken["gardener_ring_up", ()] == 0
                assert broken["gardener_peer_up", ("oak1", "1")] == 1
                assert broken["gardener_peer_up", ("oak2", "2")] == 0
            made.start(2)
            async with holding(made) as holder:
                collector.watch(holder)
                again = read(registry)
                assert again["gardener_ring_up", ()] == 1
                assert again["gardener_peer_up", ("oak2", "2")] == 1
                await write(holder)
                last = counters(read(registry))
        steps = [whole, counters(broken), counters(again), last]
        for before, after in pairwise(steps):
            assert before.keys() <= after.keys()
            assert all(after[key] >= value for key, value in before.items())
        assert last["gardener_verdicts_total", ()] > steps[1]["gardener_verdicts_total", ()]
        compute = ("gardener_stage_compute_seconds_total", ("1",))
        assert last[compute] > steps[1][compute] > whole[compute]

    run(scenario)


def test_verdicts_that_come_together_tell_of_one_pass_once() -> None:
    totals = Totals()
    first, second = Timing(5, 1000, 3), Timing(7, 2000, 3)
    totals.judged((first, second), True, 2)
    totals.judged((Timing(1, 1000, 3), Timing(7, 500, 2)), False, 0)  # stage 2 took two passes
    totals.judged((first, second), False, 1)  # the same times, but it came by itself
    assert totals.compute == [0.002, 0.0045]
    assert totals.wait == [0.000011, 0.000021]
    assert (totals.verdicts, dict(totals.runs)) == (3, {2: 1, 0: 1, 1: 1})


def test_rings_of_different_lengths_are_added_up() -> None:
    one, other = Totals(), Totals()
    one.judged((Timing(0, 10, 1),), False, 1)
    other.judged((Timing(0, 1, 1), Timing(0, 2, 1)), False, 1)
    other.runs_from(3.0)
    one.add(other, 5.0)
    assert one.compute == [11e-6, 2e-6]
    assert (one.busy(9.0), other.busy(9.0)) == (2.0, 6.0)
    other.rests_from(10.0)
    assert other.busy(20.0) == 7.0


def test_every_number_of_a_request_is_added_up() -> None:
    names = [each.name for each in fields(Counts) if each.name != "named"]
    one = Counts(named={0: 1, 2: 5})
    for number, name in enumerate(names, 1):
        setattr(one, name, number)
    two = Counts(named={2: 1})
    two.add(one)
    two.add(one)
    assert [getattr(two, name) for name in names] == [2 * getattr(one, name) for name in names]
    assert two.named == {0: 2, 2: 11}


def test_a_registry_is_read_in_the_format_that_is_asked_for() -> None:
    registry = CollectorRegistry()
    RingCollector(registry, "m")
    plain, kind = exposition(registry)
    assert kind.startswith("text/plain")
    assert b"# TYPE gardener_rows_total counter" in plain
    opened, kind = exposition(registry, "application/openmetrics-text;version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert opened.endswith(b"# EOF\n")
