"""What became of the ring, in one sentence: which stage, what it was doing, when it was last heard,
what is kept, what to do next. Pure functions of what the neighbours of a lost stage report.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gardener.decoding.flights import Flight
from gardener.decoding.speculation import Speculation
from gardener.protocol.messages import Card
from gardener.protocol.reports import Failed, Lost
from gardener.runtime.wording import printable

NETWORK = "see to the network between them"
STAGES_ARE_UP = "the stages are up"
STAGES_PRINTED = "see what the stages printed"
"""What to do about a loss, where no stage has to be started again."""


def _name(stage: int) -> str:
    return f"stage {stage}" if stage else "the holder"


@dataclass(frozen=True, slots=True)
class LossReport:
    """What a neighbour says of a stage that it has lost.

    before  the neighbour stands before the lost stage, not after it
    still   seconds that the holder stood still, if it is the holder that says so, and lost its
            neighbour because of that
    at      when the holder heard of it, in seconds of `runtime.clock`
    """

    lost: Lost
    before: bool
    still: float = 0.0
    at: float = 0.0

    def by(self, stages: int) -> int:
        """The neighbour, in a ring of this many stages and the holder, stage 0."""
        return (self.lost.stage + (-1 if self.before else 1)) % (stages + 1)


def complete(reports: Sequence[LossReport], stages: int) -> bool:
    """Whether there is no more to learn: both neighbours of a stage have reported its loss, or two
    neighbours that of each other."""
    told: dict[int, set[bool]] = {}
    for report in reports:
        told.setdefault(report.lost.stage, set()).add(report.before)
    return any(len(sides) == 2 for sides in told.values()) or _apart(reports, stages) is not None


def ring_broke(
    reports: Sequence[LossReport],
    stages: int,
    speculation: Speculation | None,
    advise: Callable[[int], str],
    patience: float = 0.0,
    waits: bool = False,
    called: Callable[[int], str] = _name,
    own: bool = True,
) -> str:
    """The sentence for a ring that broke. `advise` says what to do about a stage, `called` which
    one it is.

    patience  seconds for which those who ask wait for it
    waits     they still do; otherwise they have waited, and this request ends
    own       it is told to who asked `speculation`, and says how much there is of the answer
    """
    written = _written(speculation) if own else []
    what, advice = _loss(reports, stages, speculation, advise, called)
    if not waits:
        waited = [f"the ring was not whole again within {patience:g} s"] if patience else []
        return "; ".join((what, *written, *waited, _repeat(advice)))
    return "; ".join((what, *written, f"{advice}: up to {patience:g} s are waited"))


def fruitless(times: int, speculation: Speculation) -> str:
    """The sentence for a request that may be what breaks the ring."""
    return "; ".join(
        (
            f"the ring broke {times} times without another token of this answer, which may be why",
            *_written(speculation),
            STAGES_PRINTED,
        )
    )


def mended(seconds: float, going_on: int) -> str:
    """The sentence for a ring that stands again after so long, with so many requests that it took
    up again."""
    whom = {0: "", 1: ": the request goes on"}.get(going_on, f": {going_on} requests go on")
    return f"the ring stands again after {seconds:.1f} s{whom}"


def _repeat(advice: str) -> str:
    joint = ": " if advice == STAGES_ARE_UP else ", then "
    return f"{advice}{joint}repeat the request"


def _loss(
    reports: Sequence[LossReport],
    stages: int,
    speculation: Speculation | None,
    advise: Callable[[int], str],
    called: Callable[[int], str],
) -> tuple[str, str]:
    """What was lost, and what to do about it."""
    still = _stood_still(reports)
    reports = [report for report in reports if not report.still] or reports
    lost = sorted({report.lost.stage for report in reports} - {0})
    pair = _apart(reports, stages)
    if still:
        what = f"this process stood still for {still:.0f} s, so the stages next to it gave it up"
        advice = STAGES_ARE_UP
    elif pair is not None:
        what = (
            f"{_name(pair[0])} and {_name(pair[1])} lost each other: {_accounts(reports, stages)}"
        )
        advice = NETWORK
    elif not lost:
        what = f"stage {stages} lost the holder: {_it(reports[0].lost.why)}"
        advice = NETWORK
    else:
        told = [f"{called(each)} {_obituary(each, reports, speculation)}" for each in lost]
        what = "; ".join(told)
        advice = advise(lost[0]) if len(lost) == 1 else "start them again"
    return what, advice


def stage_failed(report: Failed, speculation: Speculation) -> str:
    """The sentence for a segment that a stage could not compute."""
    flight = next((f for f in speculation.flights if f.seq == report.seq), None)
    segment = _segment(flight) if flight else f"segment {report.seq}"
    return "; ".join(
        (
            f"stage {report.stage} could not compute {segment}: {_it(report.why)}",
            *_written(speculation),
            f"stage {report.stage} is still up: see what it printed, then repeat the request",
        )
    )


def not_numbers(layer: int, cards: Sequence[Card], emitted: int) -> str:
    """The sentence for a text whose next row is broken, by this layer: see `messages.Broken`."""
    card = next((card for card in cards if layer < card.end), cards[-1])
    if layer < 0:
        where = "the embedding of a token holds none"
    elif layer < card.layers:
        where = f"layer {layer} is the first that computes none"
    else:
        where = "the logits are none"
    what = f"stage {card.stage} computes what is no number, in {card.dtype}: {where}"
    return "; ".join((what, _written_tokens(emitted), _other_numbers(card, layer)))


def _other_numbers(card: Card, layer: int) -> str:
    if card.dtype == "float16":
        return (
            "float16 holds nothing beyond 65504: start the stages with --dtype bfloat16 or float32"
        )
    if layer < 0:
        return "take the model's files from their source again"
    way_out = "take the model's files from their source again, or another --device"
    return way_out if card.quant == "none" else f"{way_out}, or no --quant"


def stalled(
    seconds: float, speculation: Speculation, doing: str = "", advice: str = STAGES_PRINTED
) -> str:
    """The sentence for verdicts that do not come, though every link is alive. `doing`: what stages
    say that they compute."""
    oldest = speculation.flights.oldest
    under_way = f"{_segment(oldest)} is under way" if oldest else "nothing is under way"
    return "; ".join(
        (
            f"no verdict came and no stage got further for {seconds:g} s, though every stage is "
            f"there: {under_way}, and {doing or 'no stage says that it computes'}",
            *_written(speculation),
            _repeat(advice),
        )
    )


def _stood_still(reports: Sequence[LossReport]) -> float:
    """Seconds that the holder did, if that explains all that is reported; else 0."""
    explained = all(report.still or not report.lost.stage for report in reports)
    return max(report.still for report in reports) if explained else 0.0


def _apart(reports: Sequence[LossReport], stages: int) -> tuple[int, int] | None:
    """Two neighbours that live and blame each other: the connection between them broke."""
    blamed = {(report.by(stages), report.lost.stage) for report in reports}
    return next(((a, b) for a, b in sorted(blamed) if a != b and (b, a) in blamed), None)


def _accounts(reports: Sequence[LossReport], stages: int) -> str:
    return ", ".join(
        f"{_name(r.by(stages))} says of {_name(r.lost.stage)} that {_it(r.lost.why)}"
        for r in reports
    )


def _obituary(stage: int, reports: Sequence[LossReport], speculation: Speculation | None) -> str:
    mine = [report for report in reports if report.lost.stage == stage]
    silent = min(report.lost.silent for report in mine) / 1e6
    # A neighbour that heard why it left knows more than one that saw the connection break.
    why = max((report.lost.why for report in mine), key=lambda why: why != "the connection broke")
    doing = _occupation(mine, speculation)
    return f"was lost while {doing}, last heard {silent:.1f} s before: {_it(why)}"


def _occupation(reports: Sequence[LossReport], speculation: Speculation | None) -> str:
    """What a stage was doing, derived from what went in and what came out of it."""
    if speculation is None or speculation.finished:
        return "the ring was idle"

    def newest(before: bool) -> list[int]:
        told = [r.lost for r in reports if r.before == before]
        return [lost.seq if lost.request == speculation.request else -1 for lost in told]

    passed, given = max(newest(False), default=-1), max(newest(True), default=None)
    ahead = [flight for flight in speculation.flights if flight.seq > passed]
    if not ahead:
        return "it waited for work"
    if given is None:
        return f"it computed, or waited for, {_segment(ahead[0])}"
    verb = "waited for" if ahead[0].seq > given else "computed"
    return f"it {verb} {_segment(ahead[0])}"


def _segment(flight: Flight) -> str:
    rows = "1 row" if flight.size == 1 else f"{flight.size} rows"
    prompt = " of the prompt" if flight.size > flight.tree_rows else ""
    return f"segment {flight.seq} ({rows}{prompt})"


def _written(speculation: Speculation | None) -> list[str]:
    if speculation is None or speculation.finished:
        return []
    return [_written_tokens(speculation.counts.emitted)]


def _written_tokens(tokens: int) -> str:
    if not tokens:
        return "no token was written yet"
    return "1 token was written" if tokens == 1 else f"{tokens} tokens were written"


def _it(why: str) -> str:
    return printable(why).rstrip(". ") or "nothing is known of why"
