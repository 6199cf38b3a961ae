"""The live view: frames fit their terminal whatever they show, and the terminal is left clean."""

import asyncio
import contextlib
import io
import math
import random
import re
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TextIO, cast

import pytest
from fakes import Alone, FakeRing, target
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.segment import Segments
from rich.style import Style
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from benchmarks.streaming import llama
from gardener.cli.view import holder_frame, node_frame
from gardener.cli.view.holder_watch import HolderWatch
from gardener.cli.view.kept_output import KeptOutput
from gardener.cli.view.lanes import lanes
from gardener.cli.view.lines import Line, cut, frame, heading, sides, styled
from gardener.cli.view.live import Live, possible
from gardener.cli.view.node_status import LinkStatus, NodeStatus, WorkStatus
from gardener.cli.view.overlay import box, tag
from gardener.cli.view.server_watch import ServerWatch
from gardener.cli.view.text import clean, messages, tail
from gardener.cli.view.tree import draw
from gardener.cli.view.units import amount, duration, sparkline
from gardener.decoding.costs import Costs
from gardener.decoding.events import (
    Command,
    Emit,
    Judged,
    Send,
)
from gardener.decoding.flights import Flight
from gardener.decoding.limits import Counts, Limits
from gardener.decoding.payoff import Payoff
from gardener.decoding.policy import Bounds, make
from gardener.decoding.speculation import Speculation
from gardener.decoding.tree import Guess, Tree
from gardener.holder.holder import Holder
from gardener.holder.lives import Lives
from gardener.protocol.messages import Card, Segment
from gardener.runtime.trace import Record, Trace, What
from gardener.runtime.wording import harmless
from gardener.watch.answer import Speed, Transcript, TreeChanges, token_text
from gardener.watch.moving import PaceMeter, estimate
from gardener.watch.rates import RateHistory
from gardener.watch.snapshot import WatchedRequest
from gardener.watch.status import (
    AnswerFigures,
    ColouredText,
    HolderStatus,
    KVMemory,
    MovingSegment,
    RequestLine,
    ShownNode,
    StageStatus,
)

SIZES = [(80, 24), (160, 50), (300, 100), (122, 30), (40, 10), (20, 60), (7, 3), (2, 2), (1, 1)]

NASTY = "\x1b[2J\x9b31m[bold red]\u202eevil\x00\r\n\t[/] 漢字 👩‍🌾"


def alphabet() -> Tokenizer:
    """One token for each byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZER = alphabet()


def tokens(text: str) -> tuple[int, ...]:
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found = [TOKENIZER.token_to_id(c) for part, _ in level.pre_tokenize_str(text) for c in part]
    return tuple(token for token in found if token is not None)


def screen(frame: RenderableType, width: int, height: int) -> list[str]:
    """The lines as they reach a terminal of this size, without colours."""
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, color_system=None, force_terminal=True)
    console.print(frame, end="")
    return out.getvalue().split("\n")


def plain(lines: Sequence[Line]) -> list[str]:
    return ["".join(segment.text for segment in line) for line in lines]


def bushy(count: int) -> tuple[ShownNode, ...]:
    """A tree in which every node has up to three children."""
    twigs = [ShownNode(0, -1, " root", 1.0, "ring")]
    for node in range(1, count):
        parent = (node - 1) // 3
        part = (0.6, 0.3, 0.05)[(node - 1) % 3]
        text = (" word", "\n", "漢", NASTY)[node % 4]
        twigs.append(ShownNode(node, parent, text, twigs[parent].probability * part, "waiting"))
    return tuple(twigs)


HOLDERS = {
    "nothing": HolderStatus(),
    "starting": HolderStatus(
        "starting 3 stages here",
        elapsed=1.5,
        stages=tuple(StageStatus(stage, said="loading " * 30) for stage in (1, 2, 3)),
        said=("waiting for the next stage at 10.0.0.1:7000: connection refused " * 4,) * 80,
    ),
    "no lanes": HolderStatus("answering", policy="plain"),
    "busy": HolderStatus(
        "answering",
        elapsed=4000.0,
        policy="gardener",
        stages=tuple(
            StageStatus(k, f"{k}-{k + 9}", "host", 0.0041, 0.0002, 0.7) for k in (1, 2, 3)
        ),
        segments=(
            MovingSegment(11, 0, 1, 9, 4, 3, 1.0),
            MovingSegment(12, 0, 0, 16, 0, 3, 0.4),
            MovingSegment(13, 0, 0, 0, 0, 2, 0.5),
            MovingSegment(14, 4096, 0, 0, 0, 1, 0.0),
        ),
        round_trips=(0.0, 0.0213),
        tree=bushy(48),
        pruned=(" of the same", NASTY),
        text=(
            ColouredText("Once upon a time " * 80, True),
            ColouredText("\n\n漢字漢字 " * 60, False),
        ),
        figures=AnswerFigures(
            Counts(412, 275, 900, 90, accepted=300, missed=112, drafted=398),
            nodes=48,
            rate=51.9,
            mean=43.2,
            rates=tuple(map(float, range(60))),
            first_token=0.07,
        ),
        exact="near ties may differ",
        said=("a warning",),
    ),
    "several": HolderStatus(
        "answering",
        request=3,
        running=31,
        policy="gardener",
        stages=(StageStatus(1, "0-9", "host", 0.0041, 0.0002, 0.7), StageStatus(2, "10-19")),
        segments=(
            MovingSegment(0, 9, 0, 0, 0, 1, 0.0, request=5),
            MovingSegment(7, 0, 1, 2, 0, 1, 0.4, request=3),
            MovingSegment(12, 0, 1, 1, 1, 1, 0.6, request=4),
            MovingSegment(6, 0, 0, 3, 0, 2, 0.5, request=3),
        ),
        tree=bushy(9),
        text=(ColouredText("Once upon a time " * 80, True),),
        others=(
            RequestLine(4, "writing", "alternating", 3071, 1204, 34.06, 31.0, 61.5),
            RequestLine(5, "reading", "plain", 48, elapsed=0.8),
            *(RequestLine(k, "writing", "gardener", 48, 12, 3.0, 4.0, 7.0) for k in range(6, 34)),
            *(RequestLine(0, "waiting"),) * 3,
        ),
    ),
    "one waits": HolderStatus(
        "answering", request=1, running=1, policy="plain", others=(RequestLine(0, "waiting"),)
    ),
    "idle": HolderStatus(
        "idle",
        address="http://127.0.0.1:8000",
        stages=(StageStatus(1, "0-9", "host"),),
        said=("listening on http://127.0.0.1:8000", "the ring stands (2.0 s)"),
    ),
    "crowded": HolderStatus(
        policy="gardener",
        stages=tuple(StageStatus(k, said="") for k in range(1, 41)),
        segments=tuple(MovingSegment(k, 0, k == 0, 15, 0, 1 + k % 2, 0.9) for k in range(64)),
    ),
    "hostile": HolderStatus(
        NASTY,
        trouble=True,
        policy="gardener",
        stages=(
            StageStatus(1, NASTY, NASTY, 1e6, 1e-9, 1.0),
            StageStatus(2, said=NASTY),
            StageStatus(10**12),
        ),
        segments=(MovingSegment(10**12, 10**9, 1, 1, 1, 1, 0.5),),
        tree=(ShownNode(0, -1, NASTY, 0.0, "judged"),),
        text=(ColouredText(NASTY * 50, False),),
        address=NASTY,
        others=(
            RequestLine(10**12, "writing", NASTY, 10**12, 10**12, 1e15, 1e15, 1e15),
            RequestLine(-1, "reading", "漢字" * 90),
        ),
        said=(NASTY,),
    ),
}

NODES = {
    "loading": NodeStatus(2, listening="127.0.0.1:7001", peer="127.0.0.1:7002"),
    "alone": NodeStatus(2, "waiting for both neighbours", "layers 10-19 of 30", work=WorkStatus()),
    "serving": NodeStatus(
        2,
        "serving",
        "layers 10-19 of 30, 156 MB, float32 on cpu, at host",
        uptime=93784.0,
        upstream=LinkStatus("stage 1 at 10.0.0.1:51234", "host-a", 0.1, 0.0003, 12_345_678, 800),
        downstream=LinkStatus("stage 3 at [fe80::1]:7000", "host-b", 3.9, None, 0, 10**13),
        work=WorkStatus(
            3, 2, 151.7, tuple(map(float, range(60))), 0.0123, 5.6, 0.4, 10**7, 10**8, 999
        ),
        said=("stage 2: connected from stage 1",) * 100,
    ),
    "hostile": NodeStatus(
        10**12,
        NASTY,
        NASTY,
        upstream=LinkStatus(NASTY, NASTY, 1e9, 1e9, 2**70, 2**70),
        downstream=LinkStatus(NASTY * 20),
        work=WorkStatus(waiting=10**6),
        said=(NASTY,) * 3,
    ),
}


# --- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", HOLDERS)
def test_a_holder_fits_every_terminal(name: str, size: tuple[int, int]) -> None:
    check(screen(holder_frame.draw(HOLDERS[name], *size), *size), *size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NODES)
def test_a_node_fits_every_terminal(name: str, size: tuple[int, int]) -> None:
    check(screen(node_frame.draw(NODES[name], *size), *size), *size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", HOLDERS)
def test_what_lies_over_a_picture_fits_every_terminal(name: str, size: tuple[int, int]) -> None:
    picture = holder_frame.draw(HOLDERS[name], *size)
    for text in (holder_frame.HELP, node_frame.HELP, [[styled("漢字" * 90)]] * 200, []):
        check(screen(box(picture, text, *size), *size), *size)
    check(screen(tag(picture, [styled(" paused, p goes on ", "reverse")], size[0]), *size), *size)


def check(lines: Sequence[str], width: int, height: int) -> None:
    assert len(lines) == height
    assert {cell_len(line) for line in lines} == {width - 1}  # the last column stays empty
    assert all(harmless(line) == line for line in lines)
    assert not any("\u202e" in line for line in lines)


def test_what_a_holder_shows_at_80_columns() -> None:
    lines = screen(holder_frame.draw(HOLDERS["busy"], 80, 24), 80, 24)
    text = "\n".join(lines)
    assert "● answering" in lines[0]
    assert "policy gardener" in lines[0]
    assert "links <1 ms / 21 ms  1:06:40" in lines[0]
    assert "51.9 tokens/s" in lines[1]
    assert "300 accepted, 112 missed" in lines[2]
    assert "900 rows sent, 10% wasted   4 in flight, 4126 rows" in lines[2]
    assert "14 ▒▒▒" in lines[5]
    assert "13 ∅" in lines[6]
    assert lines[7].endswith("■■■■■■■■■■─11 ◆■■■■■■■■■□□□□")
    assert "── text near ties may differ ──" in text
    assert "● root" in text
    assert "48 nodes, 398 grown, 51 pruned" in text
    assert "a warning" in lines[-1]


def test_requests_besides_the_oldest_have_a_line_each() -> None:
    lines = screen(holder_frame.draw(HOLDERS["several"], 80, 24), 80, 24)
    assert "● answering  #3 " in lines[0]
    at = next(n for n, line in enumerate(lines) if "── requests 30 more run, 3 wait ──" in line)
    text = "34.1 tokens/s  mean 31.0  1204 tokens  prompt 3071  61.5 s"
    assert lines[at + 1].split() == ["#4", "writing", *text.split()]  # no room for the policy
    assert lines[at + 2].split() == ["#5", "reading", "prompt", "48", "800", "ms"]
    assert lines[at + 4].strip() == "and 27 more"
    assert lines[at + 5].strip() == ""
    wide = screen(holder_frame.draw(HOLDERS["several"], 190, 90), 190, 90)
    assert any("#4  writing alternating   34.1 tokens/s" in line for line in wide)
    assert any("#33 writing" in line for line in wide)
    assert not any(re.search("and [0-9]+ more", line) for line in wide)


def test_those_that_wait_are_counted() -> None:
    lines = screen(holder_frame.draw(HOLDERS["one waits"], 80, 24), 80, 24)
    assert any(line.startswith(" ── requests 1 waits ────") for line in lines)
    assert "requests" not in "\n".join(screen(holder_frame.draw(HOLDERS["busy"], 80, 24), 80, 24))


def test_segments_of_other_requests_are_dim_and_say_whose_they_are() -> None:
    status = HOLDERS["several"]
    text = "\n".join(screen(holder_frame.draw(status, 80, 24), 80, 24))
    assert re.search("#5 ▒{9}─+7 ◆■■─+#4 ◆■□─", text)
    assert re.search("─6 ■■■─", text)
    dim = [str(each.style) for each in lanes(status, 78, 9, False)[1] if "▒" in each.text]
    own = [str(each.style) for each in lanes(status, 78, 9, False)[1] if each.text == "■■"]
    assert (dim, own) == (["dim"], ["cyan"])
    assert "dim: other requests" in text
    assert "dim: other" not in "\n".join(screen(holder_frame.draw(HOLDERS["busy"], 80, 24), 80, 24))


def test_an_idle_server_says_where_it_is() -> None:
    lines = screen(holder_frame.draw(HOLDERS["idle"], 80, 24), 80, 24)
    assert lines[0].startswith(" gardener  http://127.0.0.1:8000  ● idle ")
    assert lines[0].rstrip().endswith(" 0.00 ms")
    assert "── messages ──" in "\n".join(lines)


def test_from_120_columns_on_tree_and_text_stand_side_by_side() -> None:
    lines = screen(holder_frame.draw(HOLDERS["busy"], 160, 50), 160, 50)
    assert any("── tree" in line and " │ ── text" in line for line in lines)


def test_a_peer_cannot_write_markup() -> None:
    status = HolderStatus(policy="plain", stages=(StageStatus(1, name="[red]x[/red]"),))
    assert "[red]x[/red]" in "\n".join(screen(holder_frame.draw(status, 160, 24), 160, 24))


def test_no_color_leaves_no_colours() -> None:
    out = io.StringIO()
    console = Console(
        file=out, width=80, height=24, force_terminal=True, _environ={"NO_COLOR": "1"}
    )
    console.print(holder_frame.draw(HOLDERS["busy"], 80, 24), end="")
    assert "\x1b[3" not in out.getvalue()
    assert "◆" in out.getvalue()  # kinds can still be told apart


# --- the parts -----------------------------------------------------------------------------------


def test_clean_replaces_what_steers_a_terminal() -> None:
    assert clean("a\x1b[31mb\x9b\u202e\n") == "a�[31mb���"
    assert clean("漢字 é") == "漢字 é"


def test_lines_are_cut_and_filled_by_cells() -> None:
    wide, narrow = styled("漢字"), styled("abc")
    assert plain([cut([wide, narrow], 6)]) == ["漢字a…"]
    assert plain([cut([wide], 4)]) == ["漢字"]
    assert plain([cut([wide], 3)]) == ["漢…"]
    assert cut([narrow], 0) == []
    assert plain([sides([styled("ab")], [styled("cd")], 6)]) == ["ab  cd"]
    assert plain([sides([styled("ab")], [styled("cd")], 4)]) == ["ab  "]
    assert screen(frame([[wide], [narrow], [narrow]], 5, 2), 5, 2) == [" 漢 ", " abc"]


def test_a_heading_leaves_out_what_does_not_fit() -> None:
    legend = [styled("legend")]
    assert plain([heading("ring", 30, "details", legend)]) == ["── ring details ──── legend ──"]
    assert plain([heading("ring", 20, "details", legend)]) == ["── ring details ────"]
    assert plain([heading("ring", 12, "details", legend)]) == ["── ring ────"]
    assert plain([heading("ring", 5, "details", legend)]) == ["── r…"]


def test_figures_are_short() -> None:
    assert [duration(s) for s in (0.00003, 0.0041, 0.0123, 1.44, 187, 3725)] == [
        "0.03 ms",
        "4.1 ms",
        "12 ms",
        "1.4 s",
        "3:07",
        "1:02:05",
    ]
    assert [amount(n) for n in (0, 812, 13_400, 2.1e6, 7e9)] == [
        "0 ",
        "812 ",
        "13.4 k",
        "2.1 M",
        "7.0 G",
    ]
    assert sparkline((0.0, 4.0, 8.0), 5) == "▁▄█"
    assert sparkline((0.0, 0.0), 5) == "▁▁"
    assert sparkline((), 5) == ""


def test_the_tree_is_drawn_with_its_branches() -> None:
    twigs = (
        ShownNode(1, 0, " range", 1.0, "ring"),
        ShownNode(2, 1, " is", 0.6, "ring"),
        ShownNode(3, 1, " in", 0.2, "ring"),
        ShownNode(4, 1, " of", 0.1, "waiting"),
        ShownNode(5, 2, " a", 0.5, "judged"),
        ShownNode(6, 5, "\n", 0.4, "waiting"),
        ShownNode(7, 2, " the", 0.08, "ring"),
    )
    assert plain(draw(twigs, 60, 9)) == [
        "● range ─┬─ is ─┬─ a ─── ↵  40%",
        "         │      └─ the  8%",
        "         ├─ in  20%",
        "         └─ of  10%",
    ]
    assert plain(draw(twigs, 60, 2)) == ["● range ─┬─ is ─── a ─── ↵  40%", "         └─ in  20%"]
    assert plain(draw(twigs, 24, 1)) == ["● range ─── is  60%"]
    assert plain(draw(twigs[:1], 60, 3)) == ["● range"]
    assert draw((), 60, 3) == []
    styles = {segment.text: str(segment.style) for line in draw(twigs, 60, 9) for segment in line}
    assert (styles["a"], styles["is"], styles["of"]) == ("green", "cyan", "none")


def test_tokens_stay_visible() -> None:
    assert [token_text(t) for t in (" a", "  ", "", "\n\n", "\t", "\x07")] == [
        "a",
        "␣",
        "␣",
        "↵↵",
        "⇥",
        "�",
    ]


def test_the_text_shows_its_end_and_what_was_guessed() -> None:
    pieces = (
        ColouredText("one two ", False),
        ColouredText("three\n", True),
        ColouredText("\nfour\x1b[2J", False),
    )
    lines = tail(pieces, 8, 10)
    assert [line.rstrip() for line in plain(lines)] == ["one two", "three", "", "four�[2J"]
    styles = [{segment.style for segment in line if segment.text} for line in lines]
    assert styles == [{None}, {Style(color="green")}, set(), {None}]
    assert plain(tail(pieces, 8, 1)) == ["four�[2J"]
    assert tail(pieces, 0, 5) == []
    assert len(tail((ColouredText("word " * 20_000, True),), 80, 5)) == 5


def test_every_paragraph_of_a_guess_is_in_its_colour() -> None:
    lines = tail((ColouredText("a\nb\nc", True), ColouredText("d\ne", False)), 8, 10)
    shown = [[(segment.text, segment.style) for segment in line] for line in lines]
    green = Style(color="green")
    assert [[(text, style == green) for text, style in line] for line in shown] == [
        [("a", True)],
        [("b", True)],
        [("c", True), ("d", False)],
        [("e", False)],
    ]


def test_messages_are_wrapped_and_the_newest_is_brightest() -> None:
    lines = messages(("one", "two words\x1b", "three words here"), 10, 9, newest="bold")
    assert [(line[0].text.rstrip(), str(line[0].style)) for line in lines] == [
        ("one", "dim"),
        ("two words�", "dim"),
        ("three", "bold"),
        ("words here", "bold"),
    ]
    assert plain(messages(("one", "two words here"), 9, 1)) == ["here"]
    assert messages((), 9, 9) == messages(("a",), 0, 9) == messages(("a",), 9, 0) == []


def test_where_a_segment_is_about() -> None:
    stages = (0.010, 0.020, 0.010)  # and 4 hops of 5 ms
    assert estimate(0.0, 0.060, stages) == (1, 0.0)
    stage, progress = estimate(0.020, 0.060, stages)
    assert (stage, round(progress, 6)) == (2, 0.2)
    assert estimate(0.054, 0.060, stages)[0] == 3
    assert estimate(9.0, 0.060, stages) == (3, 1.0)
    assert estimate(9.0, 0.0, ()) == (1, 0.0)


def test_the_pace_is_that_of_the_latest_segments() -> None:
    meter = PaceMeter()
    assert meter.pace().flight == 0.0
    meter.read(record("sent", at=0.2))
    meter.read(verdict(1.0, 0.8, 0, 400_000))  # the prefill
    meter.read(record("emitted", at=1.0))
    assert meter.pace().flight == 0.8  # nothing else is known yet
    meter.read(verdict(2.0, 0.04, 10_000, 20_000))
    meter.read(record("emitted", at=2.0))
    meter.read(verdict(3.0, 0.02, 0, 10_000))
    pace = meter.pace()
    assert [round(x, 6) for x in (pace.flight, *pace.spent)] == [0.03, 0.02]


def test_a_curve_sums_by_bucket() -> None:
    curve = RateHistory(0.5, bars=4)
    for at, count in ((10.1, 1.0), (10.2, 1.0), (11.1, 3.0), (11.6, 5.0)):
        curve.add(at, count)
    assert curve.bars(11.7) == (4.0, 0.0, 6.0)
    assert curve.bars(12.2) == (4.0, 0.0, 6.0, 10.0)
    assert curve.lately(11.7, 1.0) == 8.0
    assert curve.bars(99.0) == ()
    assert curve.total == 10.0


# --- from the trace ------------------------------------------------------------------------------


def record(what: What, at: float = 0.0, seq: int = 0, items: tuple[int, ...] = ()) -> Record:
    return Record(at, what, 1, seq, len(items), 0.0, items)


def verdict(at: float, seconds: float, wait: int, compute: int) -> Record:
    """Of a ring of one stage; the times there are in microseconds."""
    return Record(at, "judged", 1, 0, 1, seconds, (wait, compute))


def test_the_transcript_knows_guesses_from_misses() -> None:
    transcript = Transcript(TOKENIZER)
    transcript.read(record("emitted", items=tokens("abc")))
    transcript.read(record("missed"))
    transcript.read(record("emitted", items=tokens("é")[:1]))  # half a character
    assert transcript.pieces() == (ColouredText("ab", True), ColouredText("c", False))
    transcript.read(record("emitted", items=(*tokens("é")[1:], *tokens("d"))))
    assert transcript.pieces() == (
        ColouredText("ab", True),
        ColouredText("c", False),
        ColouredText("éd", True),
    )


def test_a_transcript_begins_with_the_space_after_the_prompt() -> None:
    tokenizer = llama()
    word = (int(tokenizer.token_to_id("▁Baum") or 0),)
    for prompt, text in ((word[:0], "Baum"), (word, " Baum")):
        transcript = Transcript(tokenizer, prompt)
        transcript.read(record("emitted", items=word))
        assert transcript.pieces() == (ColouredText(text, True),)


def test_a_long_transcript_forgets_its_beginning() -> None:
    transcript = Transcript(TOKENIZER)
    for _ in range(40):
        transcript.read(record("emitted", items=tokens("abcdefghi\n" * 100)))
        transcript.read(record("missed"))
    text = "".join(piece.text for piece in transcript.pieces())
    assert 8_000 <= len(text) <= 16_000
    assert text.endswith("abcdefghi\n")


def test_speed_counts_from_the_first_token() -> None:
    speed = Speed()
    assert (speed.lately(1.0), speed.mean(1.0), speed.wait) == (0.0, 0.0, None)
    speed.read(record("sent", at=1.0))
    speed.read(record("emitted", at=1.5, items=(1,)))
    speed.read(record("emitted", at=2.5, items=(1, 2, 3, 4)))
    assert speed.wait == 0.5
    assert speed.mean(3.5) == 2.0
    assert speed.lately(3.5) == 2.0


def test_changes_tell_what_was_pruned_from_what_came_true() -> None:
    tree = Tree(0, 10)
    a, b = tree.graft(0, 1, -0.1), tree.graft(0, 2, -1.0)
    tree.graft(a.id, 3, -0.2)
    below = tree.graft(b.id, 4, -1.2)
    changes = TreeChanges(lambda token: f" t{token}")
    nodes, pruned = changes.take(request(tree, sent={0, a.id}, flying=(0,)))
    assert [node.text for node in nodes] == [" t10", " t1", " t3", " t2", " t4"]
    assert [node.state for node in nodes] == ["ring", "judged", *["waiting"] * 3]
    assert pruned == ()
    tree.advance(1)
    changes.read(record("emitted", items=(1,)))
    nodes, pruned = changes.take(request(tree, sent={a.id}))
    assert below.id not in tree
    assert pruned == ("t2 t4",)
    assert changes.take(request(tree, sent={a.id}))[1] == ()


def request(tree: Tree, sent: set[int], flying: tuple[int, ...] = ()) -> WatchedRequest:
    """A request with this tree, whose nodes `flying` are in one segment under way."""
    flights = (Flight(0, flying, prompt=0, left=0.0, tick=0.0, due=0.0),)
    return WatchedRequest(1, "gardener", None, "", Counts(), tree, sent, flights)


class TracedRing(FakeRing):
    """Leaves the trace that a holder leaves."""

    trace: Trace

    def carry_out(self, command: Command) -> list[Command]:
        match command:
            case Emit(items):
                self.trace.add("emitted", 1, rows=len(items), items=items)
            case Send(Segment() as sent):
                self.trace.add("sent", sent.request, sent.seq, len(sent.ids), items=sent.ids)
            case _:
                pass
        return super().carry_out(command)

    def judge(self) -> None:
        verdict = self.verdicts.popleft()
        times = (100, 2000) * 3
        self.trace.add("judged", 1, verdict.seq, len(verdict.ids), 0.01, items=times)
        missed = self.speculation.counts.missed
        self.run(self.round.handle(Judged(verdict), self.now))
        if self.speculation.counts.missed > missed:
            self.trace.add("missed", 1, verdict.seq, 1)


@dataclass
class Watched:
    """A session, as far as a watcher looks at it."""

    speculation: Speculation

    @property
    def number(self) -> int:
        return self.speculation.request

    @property
    def request(self) -> int:
        return self.speculation.request

    @property
    def lives(self) -> Lives:
        return Lives(self.speculation)

    @property
    def prompt(self) -> Sequence[int]:
        return self.speculation.prompt

    @property
    def finish_reason(self) -> str | None:
        return self.speculation.finished


def watched(chance: random.Random) -> tuple[TracedRing, HolderWatch]:
    """A fake ring at the start of a request, and the view of its holder."""
    decoding = Speculation(
        1, [1, 2, 3], make("gardener", Bounds(rows=6, window=3)), Limits(60, 200)
    )

    def drafts(text: Sequence[int]) -> tuple[Guess, ...]:
        right = target(text)
        return (Guess((right + 1) % 5, 0.5), Guess(right, 0.4)) if chance.random() < 0.7 else ()

    TracedRing.trace = Trace()
    made = Alone(decoding, Costs.flat(3), Payoff(math.inf))
    ring = TracedRing(made, drafts, chance)
    holder = SimpleNamespace(
        session=Watched(decoding),
        admission=SimpleNamespace(
            running={}, waiting=(), prefixes=SimpleNamespace(used=128, room=640)
        ),
        condition="",
        trace=ring.trace,
        cards=tuple(
            Card(k, "host", "0", k, k + 1, 9, 8, "m", "float32", "none", 1) for k in (1, 2, 3)
        ),
        ring=SimpleNamespace(
            upstream=SimpleNamespace(round_trip=0.001), downstream=SimpleNamespace(round_trip=None)
        ),
    )
    watch = HolderWatch("starting")
    watch.begin(cast(Holder, holder), TOKENIZER)
    return ring, watch


@pytest.mark.parametrize("seed", range(20))
def test_a_status_agrees_with_the_run_whenever_it_is_taken(seed: int) -> None:
    chance = random.Random(seed)
    ring, watch = watched(chance)
    now = 0.0
    while True:
        now += 0.01
        going = ring.step()
        if going and chance.random() < 0.7:
            continue
        status = watch.status(now)
        counts, flights = ring.speculation.counts, ring.speculation.flights
        assert status.figures.counts.emitted == len(ring.emitted)
        assert status.exact == "the ring is exact"
        assert "".join(p.text for p in status.text) == TOKENIZER.decode(ring.emitted)
        if not ring.speculation.finished:
            assert [(s.seq, s.rows) for s in status.segments] == [(f.seq, f.size) for f in flights]
            sent, accepted = map(sum, zip((0, 0), *status.figures.depths, strict=True))
            assert accepted <= min(sent, counts.accepted) <= sent <= counts.rows
        assert sum(s.root for s in status.segments) <= 1
        guessed = sum(len(p.text) for p in status.text if p.guessed)
        assert guessed == counts.accepted  # one letter for each token
        assert status.tree[0].id == ring.speculation.tree.root
        check(screen(holder_frame.draw(status, 80, 24), 80, 24), 80, 24)
        if not going:
            break
    assert status.state == "done (length)"
    assert status.memory == KVMemory(128, 640, 0)
    assert status.figures.plain > 0


def test_a_second_request_starts_afresh() -> None:
    ring, watch = watched(random.Random(1))
    ring.finish()
    assert watch.status(1.0).figures.counts.emitted == 60
    holder = cast(Any, watch)._watcher._reader._holder
    second = Speculation(2, [1, 2], make("plain", Bounds()), Limits(5, 50))
    holder.admission.running[2] = Watched(second)
    holder.trace.add("emitted", 1, rows=1, items=(1,))  # of the first one, seen late
    holder.trace.add("sent", 2, 0, 2, items=(0, 1))
    Alone(second, Costs.flat(3), Payoff(math.inf)).start(1.9)  # sends the prompt
    status = watch.status(2.0)
    assert (status.policy, status.text, status.figures.counts.emitted) == ("plain", (), 0)
    assert [(s.seq, s.prompt, s.root) for s in status.segments] == [(0, 1, 1)]
    assert watch.status(2.0).state == "reading the prompt, 0 of 2 tokens"
    holder.ring.upstream = None
    assert watch.status(3.0).state == "a stage is lost"
    holder.condition = "stage 3 was lost; now: waiting for it"
    assert watch.status(3.0).state == holder.condition
    assert watch.status(3.0).trouble


def test_before_the_ring_stands_the_lanes_show_what_the_stages_say() -> None:
    watch = HolderWatch("starting 2 stages here", 2)
    watch.heard("stage 2: listening at 127.0.0.1:7002")
    watch.heard("stage 9: nobody asked")
    watch.heard("Traceback")
    status = watch.status(1.0)
    assert [lane.said for lane in status.stages] == ["starting", "listening at 127.0.0.1:7002"]


def test_a_server_is_watched_from_ring_to_ring() -> None:
    first, second = watched(random.Random(1)), watched(random.Random(2))
    rings = [
        SimpleNamespace(
            holder=cast(Any, each)._watcher._reader._holder,
            prompter=SimpleNamespace(backend=TOKENIZER),
        )
        for _, each in (first, second)
    ]
    keeper: Any = SimpleNamespace(ring=None, broken=False)
    watch = ServerWatch("opening the ring", 2)
    assert watch.status(0.0).state == "opening the ring"
    watch.follow(keeper, "http://127.0.0.1:8000")
    status = watch.status(0.0)
    assert (status.state, status.address) == ("opening the ring", "http://127.0.0.1:8000")
    assert [each.said for each in status.stages] == ["starting", "starting"]
    keeper.ring = rings[0]
    session = rings[0].holder.session
    rings[0].holder.session = None
    assert (watch.status(1.0).state, watch.status(1.0).policy) == ("idle", "")
    rings[0].holder.admission.running = {1: session}
    assert watch.status(1.0).state == "reading the prompt, 0 of 3 tokens"
    first[0].finish()
    rings[0].holder.admission.running = {}
    status = watch.status(2.0)
    assert (status.state, status.policy, status.figures.counts.emitted) == ("idle", "gardener", 60)
    keeper.ring = None
    assert (watch.status(3.0).state, watch.status(3.0).trouble) == ("closing the ring", False)
    keeper.broken = True
    assert (watch.status(3.0).state, watch.status(3.0).trouble) == ("the ring broke", True)
    keeper.ring = rings[1]
    assert watch.status(4.0).figures.counts.emitted == 0


def test_records_after_one_that_left_the_trace() -> None:
    trace = Trace(size=3)
    trace.add("sent", seq=1)
    first = trace.after(None)[0]
    trace.add("sent", seq=2)
    assert [record.seq for record in trace.after(first)] == [2]
    for seq in (3, 4, 5):
        trace.add("sent", seq=seq)
    assert [record.seq for record in trace.after(first)] == [3, 4, 5]
    assert trace.after(trace.after(None)[-1]) == []


# --- the screen ----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal to `run` in."""
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "80"), ("LINES", "24")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def run(main: Coroutine[Any, Any, None], stderr: TextIO, stdout: TextIO | None = None) -> None:
    """Run with these streams; stdout is the same terminal unless it is given."""
    stdout = stdout or stderr
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            asyncio.run(main)
        finally:
            assert sys.stdout is stdout
            assert sys.stderr is stderr


def left_clean(text: str) -> str:
    """What stands in the terminal once the alternate screen is gone."""
    before, on, rest = text.partition("\x1b[?1049h")
    screen, off, after = rest.rpartition("\x1b[?1049l")
    assert on
    assert off
    assert "\x1b[?1049" not in before + screen + after
    assert (screen + after).count("\x1b[?25l") == (screen + after).count("\x1b[?25h") == 1
    assert after.startswith("\x1b[?25h")  # the cursor is back
    return before + after.removeprefix("\x1b[?25h")


async def shown(body: Callable[[], None]) -> None:
    """What `body` does once the screen is on and something was drawn."""
    drawn = threading.Event()
    async with showing(drawn):
        await asyncio.to_thread(drawn.wait, 10)
        body()


def showing(drawn: threading.Event) -> Live[HolderStatus]:
    """A live screen that sets `drawn` with every frame."""

    def show(status: HolderStatus, width: int, height: int) -> Segments:
        drawn.set()
        return holder_frame.draw(status, width, height)

    return Live(lambda now: HOLDERS["busy"], show)


def test_what_is_written_under_the_screen_comes_out_once_and_in_order(terminal: Terminal) -> None:
    def body() -> None:
        for part in ("Once ", "upon\n", "a time"):
            sys.stdout.write(part)
            sys.stderr.write(f"note {part.strip()}\n")

    run(shown(body), terminal)
    assert left_clean(terminal.getvalue()) == "note Once\nnote upon\nnote a time\nOnce upon\na time"
    assert "tokens/s" in terminal.getvalue()


def test_a_pipe_gets_the_text_at_once(terminal: Terminal) -> None:
    pipe = io.StringIO()

    def body() -> None:
        sys.stdout.write("text")
        assert pipe.getvalue() == "text"

    run(shown(body), terminal, pipe)
    assert pipe.getvalue() == "text"
    assert left_clean(terminal.getvalue()) == ""


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), asyncio.CancelledError()])
def test_an_exception_leaves_the_terminal_clean(terminal: Terminal, error: BaseException) -> None:
    def body() -> None:
        sys.stdout.write("so far")
        raise error

    with pytest.raises(type(error)):
        run(shown(body), terminal)
    assert left_clean(terminal.getvalue()) == "so far\n"


def test_a_fault_of_the_view_costs_nothing_but_the_view(terminal: Terminal) -> None:
    async def main() -> None:
        looked = asyncio.Event()

        def take(now: float) -> HolderStatus:
            looked.set()
            raise KeyError("a fault")

        async with Live(take, holder_frame.draw):
            await looked.wait()
            sys.stdout.write("text")

    run(main(), terminal)
    assert left_clean(terminal.getvalue()) == "the live view ended: KeyError: 'a fault'\ntext"


def test_closing_twice_is_no_error(terminal: Terminal) -> None:
    async def main() -> None:
        async with showing(threading.Event()) as live:
            await live.close()
            sys.stdout.write("after")

    run(main(), terminal)
    assert left_clean(terminal.getvalue()) == "after"


@pytest.mark.parametrize("name", ["dumb", "unknown", ""])
def test_no_view_on_a_terminal_that_cannot_show_one(
    name: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.redirect_stderr(terminal):
        assert possible()
        monkeypatch.setenv("TERM", name)
        assert not possible()
    with contextlib.redirect_stderr(io.StringIO()):
        assert not possible()


def test_kept_lines_are_bounded_and_counted() -> None:
    real = io.StringIO()
    kept = KeptOutput(real, 3)
    for number in range(5):
        kept.write(f"line {number}\n")
    kept.write("open")
    assert kept.last(2) == ("line 3", "line 4")
    assert kept.last(9, after=4) == ("line 4",)
    assert kept.last(9, after=5) == ()
    kept.give_back()
    kept.give_back()
    assert real.getvalue() == "line 2\nline 3\nline 4\nopen"
