"""`gardener generate`: one prompt, one answer, the text as it comes."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from gardener.cli import options as o
from gardener.cli.groups import POLICY
from gardener.cli.output import progress
from gardener.cli.program import Misuse, flag, ignore, note, result, run, text_of
from gardener.cli.sampling import Logprobs, SamplingOptions
from gardener.cli.view import live
from gardener.cli.view.holder_watch import HolderWatch
from gardener.cli.view.snapshot import reading
from gardener.decoding.policy import SHARING, Bounds, default_policy
from gardener.errors import UserError, reason
from gardener.holder.answer import Answer, collect
from gardener.holder.figures import Figures
from gardener.holder.rates import Prefill, prefill
from gardener.holder.session import Session
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import printable, span

PERIOD = 0.5
"""Seconds between two reports about the prompt."""

DIGITS = re.compile("-?[0-9]{1,100}")
"""A token by its number."""

PromptArgument = Annotated[
    str | None, Parameter(allow_leading_hyphen=False, help="What to ask the model.")
]
FromStdin = Annotated[bool, flag("-", help="Read the prompt from standard input.")]
PolicyOption = Annotated[
    o.PolicyName | None,
    Parameter(
        group=POLICY,
        env_var="GARDENER_POLICY",
        help="What goes into the ring when. Default: gardener; alternating where the stages and "
        "the drafter share the cores of one machine.",
    ),
]
CompareOption = Annotated[
    str,
    Parameter(
        group=POLICY,
        metavar="NAME,...",
        show_default=False,
        help="Run the same prompt under these policies too, and compare.",
    ),
]
StopOption = Annotated[
    list[str] | None,
    Parameter(
        metavar="TEXT",
        help="End before this text; special tokens count, though they are not shown. May be given "
        "several times.",
    ),
]
StopTokenOption = Annotated[
    list[str] | None,
    Parameter(
        metavar="TOKEN|ID",
        help="End at this token, as at those that the model ends an answer with: what it is, or "
        "its number. May be given several times.",
    ),
]


def generate(
    prompt: PromptArgument = None,
    /,
    *,
    from_stdin: FromStdin = False,
    ring: o.RingOptions = o.RingOptions(),
    draft: o.Draft = "auto",
    holder: o.HolderOptions = o.HolderOptions(),
    max_new_tokens: o.NewTokens = 256,
    stop: StopOption = None,
    stop_token: StopTokenOption = None,
    raw: o.Raw = False,
    sampling: SamplingOptions = SamplingOptions(),
    logprobs: Logprobs = None,
    policy: PolicyOption = None,
    compare: CompareOption = "",
    no_view: o.NoView = False,
    output: o.OutputOptions = o.OutputOptions(),
    config: o.Config = None,
) -> None:
    """Answer one prompt. The text goes to stdout as it is accepted, all else to stderr.

    gardener generate "Why is the sky blue?" --local 3
    """
    if (prompt is None) != from_stdin:
        raise Misuse("say what to ask: give one prompt, or - to read it from standard input")
    if stop and not all(stop):
        raise UserError("--stop '' would end every answer at once: give it some text")
    if logprobs is not None and not output.as_json:
        raise Misuse("--logprobs adds to what --json prints: give both")
    holder.chat.tell_raw(raw)
    settings = holder.settings(ring, holder.drafting.settings(draft))
    first = policy or default_policy(settings.crowded, holder.bounds.window)
    if policy is None and first == "alternating":
        note(f"policy {first}, because {SHARING} (--policy changes that)")
    names = o.policies(f"{first},{compare}")
    settings = replace(settings, policies=tuple(names))
    question = AnswerRequest(
        text=_asked(prompt),
        raw=raw,
        policies=names,
        bounds=holder.bounds.bounds(),
        new_tokens=max_new_tokens,
        stops=[text_of(each, "--stop") for each in stop or ()],
        stop_tokens=[_token(text_of(each, "--stop-token")) for each in stop_token or ()],
        sampling=sampling.begun(max_new_tokens),
        logprobs=logprobs,
        output=output,
    )
    _report(_run(settings, question, no_view), settings, output.as_json)


def _asked(prompt: str | None) -> str:
    """The prompt as text, read from standard input if there is none. Raises UserError."""
    if prompt is not None and prompt != "-":
        return text_of(prompt, "the prompt")
    try:
        text = sys.stdin.read()
    except UnicodeError as error:
        raise UserError(
            f"the prompt is not {sys.stdin.encoding.upper()} text: convert it"
        ) from error
    except OSError as error:
        raise UserError(
            f"the prompt cannot be read from standard input ({reason(error)}): give a text or a "
            "file that can be read"
        ) from error
    return text


def _token(given: str) -> str | int:
    """Its number where digits are given, else what it is."""
    return int(given) if DIGITS.fullmatch(given) else given


@dataclass(frozen=True)
class AnswerRequest:
    """What is asked, and how it is to be answered."""

    text: str
    raw: bool
    policies: Sequence[str]
    bounds: Bounds
    new_tokens: int
    stops: Sequence[str]
    stop_tokens: Sequence[str | int]
    sampling: SamplingOptions
    logprobs: int | None
    output: o.OutputOptions


def _run(settings: RingSettings, question: AnswerRequest, no_view: bool) -> list[Answer]:
    """The answers, under the live view where somebody can watch it."""
    # A simulated answer comes too soon to be watched.
    shown = not question.output.as_json and settings.simulate is None
    watched = shown and not no_view and live.possible() and live.spares_stdout()
    answering = _watched(settings, question) if watched else _answers(settings, question, None)
    return run(answering, settings.loop())


def _report(answers: Sequence[Answer], settings: RingSettings, as_json: bool) -> None:
    """Print what came of it; ends with status 1 if an answer failed or the texts differ."""
    stages, profile = settings.simulate, settings.profile
    if as_json:
        simulated = None if stages is None else {"stages": stages, "profile": profile}
        result(json.dumps({**_object(answers), "simulated": simulated}) + "\n")
    else:
        _summary(answers, f"simulated: {stages} stages of {profile}" if stages else "")
    if answers[0].text_fault:
        note(
            f"the tokenizer failed ({printable(answers[0].text_fault)}): some of the text is "
            "U+FFFD; --json prints the tokens, which are right"
        )
    if answers[-1].error:
        note(f"error: {answers[-1].error}")
    if answers[-1].error or not _agree(answers):
        sys.exit(1)


async def _watched(settings: RingSettings, question: AnswerRequest) -> list[Answer]:
    """Answer under the live view, which closes before the ring does."""
    waiting = f"starting {settings.local} stages here" if settings.local else "closing the ring"
    view = HolderWatch(waiting, settings.local or 0)
    async with view.live:
        return await _answers(settings, question, view)


async def _answers(
    settings: RingSettings, question: AnswerRequest, view: HolderWatch | None
) -> list[Answer]:
    """The prompt under every policy; the text of the first goes out as it comes."""

    def heard(line: str) -> None:
        if question.output.verbose:
            note(line)
        if view is not None:
            view.heard(line)

    async with open_ring(settings, note, heard, progress) as ring:
        for card in ring.stages if not question.output.as_json else ():
            layers = span(card.first, card.end)
            note(f"stage {card.stage}: {layers} on {printable(card.name)}, {card.dtype}")
        sampling = question.sampling.sampling(ring.folder, note)
        if view is not None:
            view.begin(ring.holder, ring.prompter.backend)
        answers: list[Answer] = []
        for name in question.policies:
            first = not answers and not question.output.as_json
            session = ring.ask(
                question.text,
                max_new_tokens=question.new_tokens,
                stop=question.stops,
                stop_tokens=question.stop_tokens,
                raw=question.raw,
                policy=name,
                bounds=question.bounds,
                sampling=sampling,
                logprobs=question.logprobs,
                ignore_eos=question.sampling.ignore_eos,
            )
            async with _telling(session, view is None and settings.simulate is None):
                answers.append(await collect(session, result if first else ignore))
            if first:
                result("\n")
            if answers[-1].error:
                break
        if view is not None:
            await view.live.close()
        return answers


@asynccontextmanager
async def _telling(session: Session, wanted: bool) -> AsyncIterator[None]:
    """Show how much of the prompt is computed, until the answer begins."""

    async def tell() -> None:
        while not session.speculation.counts.emitted and not session.finish_reason:
            await asyncio.sleep(PERIOD)
            if not session.speculation.counts.emitted and not session.finish_reason:
                progress(reading(session.speculation))
        progress("")

    telling = asyncio.create_task(tell()) if wanted else None
    try:
        yield
    finally:
        if telling is not None:
            telling.cancel()
            progress("")


def _agree(answers: Sequence[Answer]) -> bool:
    """Whether all answers that were not cut short are the same."""
    whole = [each.tokens for each in answers if not each.error]
    return all(tokens == whole[0] for tokens in whole)


def _object(answers: Sequence[Answer]) -> dict[str, Any]:
    first, common = answers[0], _prefill(answers)
    return {
        "text": first.text,
        "text_fault": first.text_fault,
        "token_ids": first.tokens,
        "logprobs": _logprobs(first) if first.logprobs else None,
        "finish_reason": first.reason,
        "error": answers[-1].error,
        "prompt_tokens": first.figures.prompt_tokens,
        "policy": first.figures.policy,
        "sampling": msgspec.structs.asdict(first.sampling),
        "agree": _agree(answers),
        "prefill": common._asdict(),
        "policies": {
            each.policy: {"tokens_per_second": each.rate(common.seconds), **each.statistics()}
            for each in _figures(answers)
        },
    }


def _logprobs(answer: Answer) -> list[dict[str, Any]]:
    """Of each token: its log probability, and the best tokens there with theirs."""
    return [
        {"token_id": token, "logprob": said.pick, "best": [list(each) for each in said.best]}
        for token, said in zip(answer.tokens, answer.logprobs, strict=True)
    ]


def _figures(answers: Sequence[Answer]) -> list[Figures]:
    return [each.figures for each in answers]


def _prefill(answers: Sequence[Answer]) -> Prefill:
    """The time of the prefill, which is subtracted from the total of every answer."""
    figures = _figures(answers)
    begun = [each for each in figures if each.tokens] or figures
    return prefill({each.policy: [each.first_token] for each in begun})


COLUMNS = (
    "\npolicy",
    "\ntokens",
    "decoding\ntokens/s",
    "end to end\ntokens/s",
    "tokens/\nsegment",
    "first\ntoken",
    "rows\nwasted",
)


def _summary(answers: Sequence[Answer], title: str) -> None:
    table = Table(box=None, pad_edge=False, title=title or None, title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == COLUMNS[0] else "right")
    common = _prefill(answers)
    for each in _figures(answers):
        rate = each.rate(common.seconds)
        table.add_row(
            each.policy,
            str(each.tokens),
            "-" if rate is None else f"{rate:.1f}",
            f"{each.end_to_end:.1f}",
            f"{each.tokens_per_segment:.2f}",
            f"{each.first_token:.2f} s",
            f"{each.counts.wasted} of {each.counts.rows}",
        )
    console = Console(stderr=True)
    console.print()
    console.print(table)
    console.print(
        f"decoding: all tokens but the first, after that of {common.policy} "
        f"({common.seconds:.2f} s)",
        highlight=False,
    )
    for each in _figures(answers):
        if each.counts.plain:
            console.print(
                f"{each.policy}: {each.counts.plain} of {each.tokens} tokens were written "
                "without guesses, which did not pay"
            )
    if len(answers) > 1 and not answers[-1].error:
        console.print("all texts agree" if _agree(answers) else "[bold red]THE TEXTS DIFFER[/]")
