"""`gardener generate`: one prompt, one answer, the text as it comes."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gardener.cli import options as o
from gardener.cli.answered import Answered, as_object, summary, whole
from gardener.cli.cluster_options import ClusterFile
from gardener.cli.groups import POLICY
from gardener.cli.output import progress
from gardener.cli.program import Misuse, flag, ignore, note, result, run, text_of
from gardener.cli.recording import recorder_at
from gardener.cli.sampling import Logprobs, SamplingOptions
from gardener.cli.view import live
from gardener.cli.view.holder_watch import HolderWatch
from gardener.decoding.policy import SHARING, Bounds, default_policy
from gardener.errors import UserError, reason
from gardener.evaluation.near_ties import all_tied
from gardener.holder.answer import Answer, collect
from gardener.holder.session import Session
from gardener.protocol.cards import arithmetic
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import printable, span
from gardener.watch.snapshot import reading

PERIOD = 0.5
"""Seconds between two reports about the prompt."""

DIGITS = re.compile("-?[0-9]{1,100}")
"""A token by its number."""

PromptArgument = Annotated[
    str | None, Parameter(allow_leading_hyphen=False, help="What to ask the model.")
]
FromStdin = Annotated[bool, flag("-", help="Read the prompt from standard input.")]
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
    policy: o.Policy = None,
    compare: CompareOption = "",
    no_view: o.NoView = False,
    record: o.Record = None,
    output: o.OutputOptions = o.OutputOptions(),
    cluster: ClusterFile = None,
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
    view = _view(settings, not no_view and not output.as_json, record, hears=not from_stdin)
    answered = run(_answered(settings, question, view), settings.loop())
    _report(answered, settings, output.as_json)


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


def _view(
    settings: RingSettings, shown: bool, record: Path | None, hears: bool
) -> HolderWatch | None:
    """Who watches: the live view where somebody can see it, and a recorder. Raises UserError."""
    simulated = settings.simulate is not None  # such an answer comes too soon to be watched
    if simulated and record is not None:
        raise Misuse("--record needs a real ring: a simulated one has its answer at once")
    shown = shown and not simulated and live.possible() and live.spares_stdout()
    if not shown and record is None:
        return None
    waiting = f"starting {settings.local} stages here" if settings.local else "closing the ring"
    recorder = None if record is None else recorder_at(record, settings.model)
    return HolderWatch(waiting, settings.local or 0, recorder, shown=shown, hears=hears)


def _report(answered: Answered, settings: RingSettings, as_json: bool) -> None:
    """Print what came of it; ends with status 1 if an answer failed or the texts differ."""
    stages, profile = settings.simulate, settings.profile
    answers = answered.answers
    if as_json:
        simulated = None if stages is None else {"stages": stages, "profile": profile}
        result(json.dumps({**as_object(answered), "simulated": simulated}) + "\n")
    else:
        summary(answered, f"simulated: {stages} stages of {profile}" if stages else "")
    if answers[0].text_fault:
        note(
            f"the tokenizer failed ({printable(answers[0].text_fault)}): some of the text is "
            "U+FFFD; --json prints the tokens, which are right"
        )
    if answers[-1].error:
        note(f"error: {answers[-1].error}")
    if answers[-1].error or not answered.tied:
        sys.exit(1)


async def _answered(
    settings: RingSettings, question: AnswerRequest, view: HolderWatch | None
) -> Answered:
    """Answer, watched if there is a view, which closes before the ring does."""
    async with view or nullcontext():
        return await _answers(settings, question, view)


async def _answers(
    settings: RingSettings, question: AnswerRequest, view: HolderWatch | None
) -> Answered:
    """The prompt under every policy; the text of the first goes out as it comes."""

    def heard(line: str) -> None:
        if question.output.verbose:
            note(line)
        if view is not None:
            view.heard(line)

    async with open_ring(settings, note, heard, progress) as ring:
        for card in ring.stages if not question.output.as_json else ():
            layers = span(card.first, card.end)
            note(f"stage {card.stage}: {layers} on {printable(card.name)}, {arithmetic(card)}")
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
            unseen = view is None or view.live.closed.is_set()
            async with _telling(session, unseen and settings.simulate is None):
                answers.append(await collect(session, result if first else ignore))
            if first:
                result("\n")
            if answers[-1].error:
                break
        if view is not None:
            await view.close()
        prompt = ring.prompter.encode(question.text, raw=question.raw)
        texts = whole(answers)
        tied = await all_tied(ring.holder, ring.prompter, prompt, texts, answers[0].sampling)
        return Answered(answers, ring.exactness, tied)


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
