"""Numbers in few cells: durations, amounts and small bars."""

from collections.abc import Sequence

BARS = " ▁▂▃▄▅▆▇█"


def duration(seconds: float) -> str:
    """A duration, as in `0.03 ms`, `4.1 ms`, `12 ms`, `1.4 s`, `3:07`."""
    for limit, scale, form in ((0.000995, 1e3, ".2f"), (0.00995, 1e3, ".1f"), (0.9995, 1e3, ".0f")):
        if seconds < limit:
            return f"{scale * seconds:{form}} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def round_trip(seconds: float) -> str:
    """The round trip of a Ping, which is measured in whole milliseconds."""
    return duration(seconds) if seconds >= 0.001 else "<1 ms"


def amount(count: float) -> str:
    """An amount with its unit prefix, as in `812 `, `13.4 k`, `2.1 M`, `7.0 G`."""
    for least, size, prefix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if count >= least:
            return f"{count / size:.1f} {prefix}"
    return f"{count:.0f} "


def percent(probability: float) -> str:
    """A probability, as in `41%`; `<1%` stands for anything that rounds to zero."""
    return f"{100 * probability:.0f}%" if probability >= 0.005 else "<1%"


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as small bars; the highest of them is full."""
    shown = values[-width:] if width > 0 else ()
    top = max(shown, default=0.0)
    return "".join(BARS[max(1, round(8 * value / top))] if top > 0 else BARS[1] for value in shown)


def gauge(share: float) -> str:
    """One cell that is filled from below in proportion to `share`, from 0 to 1."""
    return BARS[max(0, min(8, round(8 * share)))]
