"""What the tables of an evaluation say, on wide and narrow terminals."""

import io
from typing import Any

import pytest
from rich.console import Console
from test_tally import run

from gardener.evaluation.tables import exactness_lines, tables
from gardener.evaluation.tally import MeasuredRun, summary
from gardener.evaluation.timeline import Breakdown, Shares

POLICIES = ("plain", "serial", "chunked", "pipedec", "flowspec", "gardener")
RING: dict[str, Any] = {
    "drafters": "ngram + eagle (int8)",
    "profile": "gpu",
    "policies": {"plain": "Plain(rows=1)", "gardener": "Gardener(rows=None)"},
    "facts": {"the holder's own time": "charged as measured"},
}
BREAKDOWN = Breakdown(
    1.0, (Shares(0, 0, 0.25, 0.75), Shares(0.5, 0.25, 0, 0.25), Shares(1.0, 0, 0, 0))
)


def runs(*policies: str, data: str = "a", **changes: Any) -> list[MeasuredRun]:
    """Three prompts. Plain writes one token a second, others go at 1, 2 and 9 times its speed; the
    third repeats itself."""
    return [
        run(
            data=data,
            line=line,
            policy=name,
            decode=decode,
            breakdown=BREAKDOWN,
            period=again,
            **changes,
        )
        for name in policies
        for line, decode, again in ((1, 10.0, None), (2, 5.0, None), (3, 10 / 9, 2))
        for decode in ((10.0,) if name == "plain" else (decode,))
    ]


def shown(
    found: list[MeasuredRun], policies: tuple[str, ...], width: int, **ring: Any
) -> list[str]:
    figures = {"local 2": summary(found, policies)}
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    console.print(tables({"local 2": RING | ring}, figures, policies, width))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def below(lines: list[str], title: str) -> list[str]:
    """The lines from one on that begins so, up to an empty one."""
    at = next(number for number, line in enumerate(lines) if line.startswith(title))
    rest = lines[at:]
    return rest[: rest.index("")] if "" in rest else rest


def row(lines: list[str], name: str) -> list[str]:
    return next(line.removeprefix(name).split() for line in lines if line.startswith(name))


def test_the_head_says_what_was_measured_and_how() -> None:
    head = below(shown(runs(*POLICIES), POLICIES, 150), "local 2")
    assert head == [
        "local 2",
        "policies: plain, serial, chunked, pipedec, flowspec, gardener",
        "drafters: ngram + eagle (int8); profile: gpu",
        "the holder's own time: charged as measured",
        "decoding: all tokens but the first, in the time after the first one under plain "
        "(1.00 s on average)",
        "repeating: 1 of 3 (answers whose last third or more is one piece of up to 32 tokens, "
        "3 times or more on end)",
    ]


def test_the_head_says_what_else_there_is_to_know() -> None:
    found = [*runs("serial", "pipedec"), *(run(line=4, policy=p, tokens=1) for p in POLICIES[1:4])]
    head = below(shown(found, ("serial", "pipedec"), 150, profile=None, facts={}), "local 2")
    assert head[2:5] == [
        "drafters: ngram + eagle (int8)",
        "decoding: all tokens but the first, in the time after the first one of the quickest "
        "policy there (1.00 s on average; serial: 4)",
        "no decoding: 1 of 4 prompts, left out of its figures",
    ]


@pytest.mark.parametrize("width", [150, 80])
def test_means_and_medians_of_speeds_by_data_set(width: int) -> None:
    found = runs("plain", "serial") + runs("plain", "serial", data="b", first_token=2.0)
    table = below(shown(found, ("plain", "serial"), width), "tokens per second")
    groups = [line for line in table if line.endswith(")")]
    assert groups == ["a (3)", "b (3)", "overall (6)", "repeating (2)", "not repeating (4)"]
    of_a = table[table.index("a (3)") :]
    last = ["1.82", "0.00", "50%"] if width == 150 else ["50%"]
    speeds = ["4.0", "2.0", "2.7", "1.8", "1.00", "s", "1.00"]  # 1, 11/6 and 11 * 9/19 of it all
    assert row(of_a, "  serial") == [*speeds, *last]
    again = table[table.index("repeating (2)") :]
    assert row(again, "  serial")[:2] == ["9.0", "9.0"]
    assert row(again[3:], "  serial")[:2] == ["1.5", "1.5"]


@pytest.mark.parametrize("width", [150, 80])
def test_ratios_of_one_policy_against_all_others(width: int) -> None:
    lines = shown(runs(*POLICIES), POLICIES, width)
    table = below(lines, "gardener against the others")
    alike = ["1.00/1.00"] * 4
    decoding, whole = ["4.00/2.00", *alike], ["2.68/1.83", *alike]
    if width == 150:
        assert row(table, "a (3)") == [*decoding, *whole]
        assert row(table, "repeating (1)")[:1] == ["9.00/9.00"]
    else:
        assert [line.split()[2:] for line in table if line.startswith("a (3)")] == [decoding, whole]


def test_each_policy_against_those_before_it() -> None:
    policies = ("plain", "serial", "pipedec")
    table = below(shown(runs(*policies), policies, 150), "each policy against those before it")
    assert table[0].endswith("of all 3 prompts")
    assert row(table, "serial") == ["4.00/2.00", "2.68/1.83"]
    assert row(table, "pipedec") == ["4.00/2.00", "1.00/1.00", "2.68/1.83", "1.00/1.00"]


def test_with_few_policies_there_are_fewer_tables() -> None:
    narrow = below(shown(runs("plain", "serial"), ("plain", "serial"), 80), "serial against")
    assert row(narrow, "a (3)") == ["4.00/2.00", "2.68/1.83"]  # side by side
    lines = shown(runs("plain", "serial"), ("plain", "serial"), 150)
    assert [line for line in lines if "against" in line] == [
        "serial against the others: mean/median of ratios by prompt (2: twice as fast)"
    ]
    assert not [line for line in shown(runs("plain"), ("plain",), 150) if "against" in line]


@pytest.mark.parametrize("width", [150, 80])
def test_where_time_goes(width: int) -> None:
    table = below(shown(runs("plain"), ("plain",), width), "where the time")
    stages = ["50%", "100%"] if width == 150 else []
    sums = ["75%", "12%", "0%", "12%", "0%"]
    assert row(table, "plain") == ["1000.0", "ms", "25%", *stages, *sums]


@pytest.mark.parametrize("width", [150, 80])
@pytest.mark.parametrize("name", ["summaries", "what-people-asked-in-their-very-own-words"])
def test_no_figure_is_cut_off(width: int, name: str) -> None:
    """Not even in the longest row of a usual run, or beside a file with a long name."""
    found = [
        run(data=data, line=line, policy=name, first_token=100.0, decode=1e-3, breakdown=BREAKDOWN)
        for data in ("humaneval", name)
        for name in POLICIES
        for line in range(1, 81)
    ]
    lines = shown(found, POLICIES, width)
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "…" in line]
    assert row(below(lines, "gardener against"), "humaneval (80)")[0] == "1.00/1.00"


def test_how_exact_rings_are_is_said_once_if_it_is_the_same_for_all() -> None:
    one, two = {"exactness": "the ring is exact: yes"}, {"exactness": "near ties may differ: a"}
    assert exactness_lines({}) == exactness_lines({"local 2": {"exactness": ""}}) == []
    assert exactness_lines({"local 2": one, "local 3": one}) == ["the ring is exact: yes"]
    assert exactness_lines({"local 2": one, "local 3": two}) == [
        "local 2: the ring is exact: yes",
        "local 3: near ties may differ: a",
    ]
