"""`gardener verify`: is the text the same, token for token, however it is computed?"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from gardener.cli import options as o
from gardener.cli.output import progress
from gardener.cli.program import ignore, note, result, run
from gardener.decoding.policy import FLOOR, POLICIES, Bounds, make
from gardener.errors import GardenerError
from gardener.evaluation.datasets import read_conversations
from gardener.evaluation.reference import Comparison, Reference, compare, plain_reference
from gardener.holder.answer import Wanted, answer
from gardener.holder.chat_template import Prompter
from gardener.holder.holder import Holder
from gardener.model.checkpoint.parts import held_part
from gardener.model.checkpoint.resolve import resolve
from gardener.protocol.messages import Card
from gardener.rings.equipment import read_prompter
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings

ALL = ",".join(POLICIES)

PoliciesOption = Annotated[
    str, typer.Option(help="Which to compare, with commas between.", metavar="NAME,...")
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        help='JSONL with rows like {"turns": ["..."]}, or text with one prompt a line. '
        "Default: a small set of Gardener's own.",
    ),
]
ReferenceOption = Annotated[
    Literal["auto", "transformers", "plain"],
    typer.Option(
        help="What is right: transformers in this process, or the ring's own plain decoding. "
        "auto: transformers in float32, plain in 16 bits and quantised, where two programs round "
        "differently and only the same one can be held to its own text.",
    ),
]
CountOption = Annotated[int | None, typer.Option(min=1, help="Only the first so many prompts.")]


@dataclass(frozen=True)
class Check:
    """What is to be compared: prompts in tokens, policies, and what they should write."""

    prompts: Sequence[Sequence[int]]
    reference: Sequence[Reference] | None  # None: the ring's own plain decoding
    policies: Sequence[str]
    new_tokens: int


def verify(
    local: o.Local = None,
    simulate: o.Simulate = None,
    profile: o.Profile = "loopback",
    peer: o.Peer = None,
    listen: o.Listen = "127.0.0.1:7000",
    model: o.Model = o.DEFAULT_MODEL,
    revision: o.Revision = None,
    policies: PoliciesOption = ALL,
    prompts: PromptsOption = None,
    count: CountOption = None,
    reference: ReferenceOption = "auto",
    max_new_tokens: o.NewTokens = 64,
    rows: o.Rows = None,
    window: o.Window = None,
    floor: o.Floor = FLOOR,
    dtype: o.DType = "float32",
    device: o.Device = "cpu",
    threads: o.Threads = None,
    quant: o.Quant = "none",
    draft: o.Draft = "auto",
    head: o.Head = None,
    draft_model: o.DraftModel = None,
    draft_dtype: o.DraftDType = "auto",
    draft_device: o.DraftDevice = "cpu",
    patience: o.Patience = 120.0,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    config: o.Config = None,
) -> None:
    """Compare what the ring writes under every policy with a reference, token by token.

    Exits with 1 on any difference but a tie, where the two best logits are within 1e-4 of each
    other.
    """
    names = o.policies(policies)
    settings = RingSettings(
        model=model,
        revision=revision,
        local=2 if (local, peer, simulate) == (None, None, None) else local,
        peer=peer,
        listen=listen,
        dtype=dtype,
        device=device,
        threads=threads,
        quant=quant,
        patience=patience,
        draft=o.drafting(draft, head, draft_model, draft_dtype, draft_device),
        simulate=simulate,
        profile=profile,
        policies=tuple(names),
    )
    texts = _texts(prompts)[:count]

    async def main() -> tuple[list[Comparison], str]:
        async with open_ring(settings, note, note if verbose else ignore, progress) as (
            holder,
            folder,
        ):
            prompter = await read_prompter(settings, folder)
            against = _against(reference, holder.cards[0], whole=held_part(folder) is None)
            check = Check([prompter.encode(text) for text in texts], None, names, max_new_tokens)
            if against == "transformers":
                check = await _with_reference(check, settings, holder.cards[0].dtype, prompter)
            holder.prepare(check.prompts, max_new_tokens)
            sizes = Bounds(rows, window, floor)
            done: list[Comparison] = []
            for number in range(len(check.prompts)):
                found = await _compare(holder, prompter, sizes, check, number)
                for each in () if as_json else found:
                    note(str(each))
                done += found
            return done, against

    loop = settings.loop()
    done, against = run(main(), loop)
    _report(done, as_json, against, len(texts))


def _against(reference: str, card: Card, whole: bool) -> str:
    """What the ring, of which this is a stage, is compared with. `whole`: is the model here?"""
    if reference != "auto":
        return reference
    exact = (card.dtype, card.quant) == ("float32", "none")
    return "transformers" if exact and whole else "plain"


async def _with_reference(
    check: Check, settings: RingSettings, dtype: str, prompter: Prompter
) -> Check:
    """The same with the texts of transformers, which needs the whole model."""
    folder = await asyncio.to_thread(resolve, settings.model, settings.revision, say=note)
    note(f"transformers decodes {len(check.prompts)} prompts in {dtype} ...")
    texts = await asyncio.to_thread(
        plain_reference,
        folder,
        check.prompts,
        check.new_tokens,
        prompter.context,
        prompter.eos,
        dtype,
        settings.device,
    )
    return replace(check, reference=texts)


async def _compare(
    holder: Holder, prompter: Prompter, sizes: Bounds, check: Check, number: int
) -> list[Comparison]:
    """One prompt under every policy. Raises the ring's failure, if it fails."""

    async def write(policy: str) -> list[int]:
        wanted = Wanted(check.prompts[number], check.new_tokens)
        got = await answer(holder, prompter, make(policy, sizes), wanted)
        if got.error:
            raise GardenerError(got.error)
        return got.tokens

    if check.reference is not None:
        truth, policies = check.reference[number], list(check.policies)
    else:
        truth = await write("plain"), []
        policies = [name for name in check.policies if name != "plain"]
    return [compare(number, name, truth, await write(name)) for name in policies]


def _texts(path: Path | None) -> list[str]:
    return [row.turns[0] for row in read_conversations([] if path is None else [path], None)]


def _report(done: Sequence[Comparison], as_json: bool, reference: str, prompts: int) -> None:
    """Say how it went; ends with status 1 if any text differs."""
    count = {
        outcome: sum(each.outcome == outcome for each in done)
        for outcome in ("same", "tie", "different")
    }
    if as_json:
        comparisons = [asdict(each) for each in done]
        whole = {"reference": reference, "prompts": prompts, **count, "comparisons": comparisons}
        result(json.dumps(whole) + "\n")
    else:
        note(
            f"{len(done)} texts against {reference}: {count['same']} the same, {count['tie']} "
            f"tied, {count['different']} different"
        )
    if count["different"]:
        raise typer.Exit(1)
