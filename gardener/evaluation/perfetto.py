"""The timelines of answers as a trace file for Perfetto (ui.perfetto.dev) or chrome://tracing.

Each policy is a process, its drafter and its stages are threads, and its segments are asynchronous
spans from sending to verdict. See `timeline` for what is measured and what is derived.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from gardener.evaluation.timeline import Timeline, forward_passes

ABOUT = (
    "durations of passes and drafting are measured; the moments at which passes began are derived, "
    "with the time on links shared among these; rows are those that were sent"
)


def trace_file(timelines: Mapping[str, Timeline]) -> str:
    """The text of the file, with one answer of each policy. All answers begin at 0."""
    events: list[dict[str, Any]] = []
    for number, (policy, timeline) in enumerate(timelines.items(), 1):
        events += ({**event, "pid": number} for event in _events(policy, timeline))
    return json.dumps(
        {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"about": ABOUT}}
    )


def start(timeline: Timeline) -> float:
    """The moment of the first event."""
    moments = [segment.sent for segment in timeline.segments] + [
        begin for begin, _, _ in timeline.drafts
    ]
    return min([*moments, *(at for at, _ in timeline.emitted)], default=0.0)


def _events(policy: str, timeline: Timeline) -> Iterator[dict[str, Any]]:
    zero = start(timeline)

    def span(begin: float, end: float) -> dict[str, float]:
        """Rounded to nanoseconds, so that no two passes overlap because of rounding."""
        first, last = round((begin - zero) * 1e9), round((end - zero) * 1e9)
        return {"ts": first / 1e3, "dur": (last - first) / 1e3}

    yield {"ph": "M", "name": "process_name", "args": {"name": policy}}
    for thread in range(timeline.stages + 1):
        name = f"stage {thread}" if thread else "drafter"
        yield {"ph": "M", "name": "thread_name", "tid": thread, "args": {"name": name}}
    for begin, end, nodes in timeline.drafts:
        args = {"nodes": nodes}
        yield {"ph": "X", "name": "draft", "tid": 0, **span(begin, end), "args": args}
    for stage in range(timeline.stages):
        for work in forward_passes(timeline, stage):
            seqs = [segment.seq for segment in work.segments]
            rows = sum(segment.rows for segment in work.segments)
            name = f"{'segment' if len(seqs) == 1 else 'segments'} {', '.join(map(str, seqs))}"
            held: dict[str, object] = {"segments": seqs, "rows": rows}
            place = {"tid": stage + 1, **span(work.begin, work.end)}
            yield {"ph": "X", "name": name, **place, "args": held}
    for segment in timeline.segments:
        shared = {"cat": "segment", "id": segment.seq, "tid": 0, "name": f"{segment.rows} rows"}
        yield {"ph": "b", **shared, "ts": span(segment.sent, segment.sent)["ts"]}
        yield {"ph": "e", **shared, "ts": span(segment.judged, segment.judged)["ts"]}
    for at, tokens in timeline.emitted:
        shown = {"name": f"{tokens} tokens", "tid": 0, "s": "p"}
        yield {"ph": "i", **shown, "ts": span(at, at)["ts"]}
