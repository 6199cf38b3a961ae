"""`gardener verify`: checks that the text is the same, token for token, however it is computed."""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli import options as o
from gardener.cli.cluster_options import ClusterFile
from gardener.cli.groups import POLICY
from gardener.cli.output import progress
from gardener.cli.program import ignore, note, result, run
from gardener.cli.sampling import SamplingOptions
from gardener.decoding.policy import POLICIES, Bounds, make
from gardener.errors import GardenerError
from gardener.evaluation.datasets import read_conversations
from gardener.evaluation.near_ties import gap
from gardener.evaluation.reference import TIE, Comparison, Reference, compare, plain_reference
from gardener.holder.answer import Wanted, answer
from gardener.holder.holder import Holder
from gardener.holder.prompter import Prompter
from gardener.model.checkpoint.parts import held_part
from gardener.model.checkpoint.resolve import resolve
from gardener.protocol.cards import near_tie
from gardener.protocol.messages import Card
from gardener.protocol.sampling import Sampling
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings

ALL = ",".join(POLICIES)

PoliciesOption = Annotated[
    str,
    Parameter(group=POLICY, metavar="NAME,...", help="Which to compare, with commas between."),
]
PromptsOption = Annotated[
    Path | None,
    Parameter(
        metavar="FILE",
        help='JSONL with rows like {"turns": ["..."]}, or text with one prompt a line. '
        "Default: a small set of Gardener's own.",
    ),
]
ReferenceOption = Annotated[
    Literal["auto", "transformers", "plain"],
    Parameter(
        help="What is right: transformers in this process, or the ring's own plain decoding. "
        "auto: transformers in float32, plain in 16 bits and quantised, where two programs round "
        "differently and only the same one can be held to its own text.",
    ),
]
CountOption = Annotated[
    int | None, Parameter(validator=Number(gte=1), metavar="N", help="Only the first N prompts.")
]


@dataclass(frozen=True)
class Check:
    """What is to be compared: prompts in tokens, policies, and what they should write. `near`: two
    scores of the ring that are closer than this are a tie; 0.0: no two are, for it is exact."""

    prompts: Sequence[Sequence[int]]
    reference: Sequence[Reference] | None  # None: the ring's own plain decoding
    policies: Sequence[str]
    new_tokens: int
    sampling: Sampling
    ignore_eos: bool
    near: float


@dataclass(frozen=True)
class Verified:
    """What was compared with `against`, how tokens were picked, and how exact the ring says it
    is."""

    done: Sequence[Comparison]
    against: str
    sampling: Sampling
    exactness: str


def verify(
    *,
    ring: o.RingOptions = o.RingOptions(),
    draft: o.Draft = "auto",
    holder: o.HolderOptions = o.HolderOptions(),
    policies: PoliciesOption = ALL,
    prompts: PromptsOption = None,
    count: CountOption = None,
    reference: ReferenceOption = "auto",
    max_new_tokens: o.NewTokens = 64,
    raw: o.Raw = False,
    sampling: SamplingOptions = SamplingOptions(),
    output: o.OutputOptions = o.OutputOptions(),
    cluster: ClusterFile = None,
    config: o.Config = None,
) -> None:
    """Compare what the ring writes under every policy with a reference, token by token.

    Exits with 1 on any difference but a tie: the two best logits, with their noise where there is a
    temperature, within 1e-4 of each other; or, where the stages say that they are not exact, within
    what their kind of numbers makes of one row.
    """
    names = o.policies(policies)
    if (ring.local, ring.simulate, holder.connection.peer) == (None, None, None):
        ring = replace(ring, local=2)
    holder.chat.tell_raw(raw)
    settings = holder.settings(ring, holder.drafting.settings(draft))
    settings = replace(settings, policies=tuple(names))
    texts = _texts(prompts)[:count]
    bounds = holder.bounds.bounds()
    asked = sampling.begun(max_new_tokens)

    async def main() -> Verified:
        heard = note if output.verbose else ignore
        async with open_ring(settings, note, heard, progress) as ring:
            holder, prompter = ring.holder, ring.prompter
            against = _against(reference, ring.stages[0], whole=held_part(ring.folder) is None)
            given = ring.settled(asked.sampling(ring.folder, note), asked.ignore_eos)
            tokens = [prompter.encode(text, raw=raw) for text in texts]
            near = near_tie(ring.stages)
            check = Check(tokens, None, names, max_new_tokens, given, asked.ignore_eos, near)
            if against == "transformers":
                check = await _with_reference(check, settings, ring.stages[0].dtype, prompter)
            holder.prepare(check.prompts, max_new_tokens, given)
            done: list[Comparison] = []
            for number in range(len(check.prompts)):
                found = await _compare(holder, prompter, bounds, check, number)
                for each in () if output.as_json else found:
                    note(str(each))
                done += found
            return Verified(done, against, given, ring.exactness)

    _report(run(main(), settings.loop()), output.as_json, len(texts))


def _against(reference: str, card: Card, whole: bool) -> str:
    """What to compare a ring with, one of whose stages has this card. `whole`: whether the whole
    model is here."""
    if reference != "auto":
        return reference
    exact = (card.dtype, card.quant, card.head_quant) == ("float32", "none", "none")
    return "transformers" if exact and whole else "plain"


async def _with_reference(
    check: Check, settings: RingSettings, dtype: str, prompter: Prompter
) -> Check:
    """The check with the texts of transformers as reference, which needs the whole model."""
    folder = await asyncio.to_thread(resolve, settings.model, settings.revision, say=note)
    note(f"transformers decodes {len(check.prompts)} prompts in {dtype} ...")
    texts = await asyncio.to_thread(
        plain_reference,
        folder,
        check.prompts,
        check.new_tokens,
        prompter.context,
        frozenset[int]() if check.ignore_eos else prompter.eos,
        dtype,
        settings.device,
        check.sampling,
    )
    return replace(check, reference=texts)


async def _compare(
    holder: Holder, prompter: Prompter, bounds: Bounds, check: Check, number: int
) -> list[Comparison]:
    """Run one prompt under every policy. Raises GardenerError if the ring fails."""

    async def write(policy: str) -> list[int]:
        wanted = Wanted(
            check.prompts[number],
            check.new_tokens,
            sampling=check.sampling,
            ignore_eos=check.ignore_eos,
        )
        got = await answer(holder, prompter, make(policy, bounds), wanted)
        if got.error:
            raise GardenerError(got.error)
        return got.tokens

    if check.reference is not None:
        truth, policies = check.reference[number], list(check.policies)
    else:
        truth = await write("plain"), []
        policies = [name for name in check.policies if name != "plain"]
    texts = {name: await write(name) for name in policies}
    tie = max(check.near, TIE)
    found = [compare(number, name, truth, text, tie) for name, text in texts.items()]
    if check.reference is None:
        found = [await _weighed(holder, prompter, check, each, truth[0]) for each in found]
    return found


async def _weighed(
    holder: Holder, prompter: Prompter, check: Check, found: Comparison, truth: Sequence[int]
) -> Comparison:
    """The same with the gap of the two best scores where a text left the ring's own plain one."""
    if found.position is None:
        return found
    prompt, agreed = check.prompts[found.prompt], truth[: found.position]
    both = found.expected, found.got
    apart = await gap(holder, prompter, prompt, agreed, both, check.sampling)
    tied = apart is not None and apart < check.near
    return replace(found, outcome="tie" if tied else found.outcome, gap=apart)


def _texts(path: Path | None) -> list[str]:
    return [row.turns[0] for row in read_conversations([] if path is None else [path], None)]


def _report(verified: Verified, as_json: bool, prompts: int) -> None:
    """Say how it went; ends with status 1 if any text differs."""
    done = verified.done
    count = {
        outcome: sum(each.outcome == outcome for each in done)
        for outcome in ("same", "tie", "different")
    }
    if as_json:
        comparisons = [asdict(each) for each in done]
        whole = {
            "reference": verified.against,
            "prompts": prompts,
            "sampling": msgspec.structs.asdict(verified.sampling),
            "exactness": verified.exactness,
            **count,
            "comparisons": comparisons,
        }
        result(json.dumps(whole) + "\n")
    else:
        note(
            f"{len(done)} texts against {verified.against}: {count['same']} the same, "
            f"{count['tie']} tied, {count['different']} different"
        )
        note(verified.exactness)
    if count["different"]:
        sys.exit(1)
