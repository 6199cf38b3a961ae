"""`gardener verify`: is the text the same, token for token, however it is computed?"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Literal

import typer

from gardener.check import Comparison, Reference, compare, plain_reference
from gardener.cli import options as o
from gardener.cli.program import ignore, note, result, run
from gardener.cli.ring import RingSettings, open_ring, shape
from gardener.errors import GardenerError
from gardener.holder import Holder
from gardener.models import resolve
from gardener.policy import POLICIES, Shape, make
from gardener.prompts import Prompter, read_prompts
from gardener.run import Wanted, answer

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
    peer: o.Peer = None,
    listen: o.Listen = "127.0.0.1:7000",
    model: o.Model = o.DEFAULT_MODEL,
    revision: o.Revision = None,
    policies: PoliciesOption = ALL,
    prompts: PromptsOption = None,
    count: CountOption = None,
    reference: ReferenceOption = "auto",
    max_new_tokens: o.NewTokens = 64,
    rows: o.Rows = 16,
    window: o.Window = None,
    floor: o.Floor = 0.2,
    dtype: o.DType = "float32",
    device: o.Device = "cpu",
    threads: o.Threads = None,
    quant: o.Quant = "none",
    patience: o.Patience = 120.0,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    config: o.Config = None,
) -> None:
    """Compare plain transformers in this process with the ring under every policy.

    Exits with 1 on any difference. A difference where the two best logits are within 1e-4 of each
    other is a tie and reported as one.
    """
    names = o.policies(policies)
    settings = RingSettings(
        model=model,
        revision=revision,
        local=local if local is not None or peer is not None else 2,
        peer=peer,
        listen=listen,
        dtype=dtype,
        device=device,
        threads=threads,
        quant=quant,
        patience=patience,
    )
    texts = _texts(prompts)[:count]
    if reference == "auto":
        reference = "transformers" if (dtype, quant) == ("float32", "none") else "plain"

    async def main() -> list[Comparison]:
        check, prompter = await _prepare(settings, texts, names, max_new_tokens, reference)
        async with open_ring(settings, note, note if verbose else ignore) as (holder, _):
            sizes = shape(len(holder.cards), rows, window, floor)
            done: list[Comparison] = []
            for number in range(len(check.prompts)):
                done += await _compare(holder, prompter, sizes, check, number)
                for each in () if as_json else done[-len(check.policies) :]:
                    note(str(each))
            return done

    _report(run(main()), as_json, reference, len(texts))


async def _prepare(
    settings: RingSettings,
    texts: Sequence[str],
    policies: Sequence[str],
    new_tokens: int,
    against: str,
) -> tuple[Check, Prompter]:
    folder = await asyncio.to_thread(resolve, settings.model, settings.revision, say=note)
    prompter = Prompter(folder)
    prompts = [prompter.encode(text) for text in texts]
    if against == "plain":
        ordered = ["plain", *(name for name in policies if name != "plain")]
        return Check(prompts, None, ordered, new_tokens), prompter
    note(f"transformers decodes {len(texts)} prompts in {settings.dtype} ...")
    reference = await asyncio.to_thread(
        plain_reference,
        folder,
        prompts,
        new_tokens,
        prompter.eos,
        settings.dtype,
        settings.device,
    )
    return Check(prompts, reference, policies, new_tokens), prompter


async def _compare(
    holder: Holder, prompter: Prompter, sizes: Shape, check: Check, number: int
) -> list[Comparison]:
    """One prompt under every policy. Raises the ring's failure, if it fails."""
    wanted = Wanted(check.prompts[number], check.new_tokens)
    truth = check.reference[number] if check.reference else None
    done = []
    for name in check.policies:
        got = await answer(holder, prompter, make(name, sizes), wanted)
        if got.error:
            raise GardenerError(got.error)
        truth = truth or (got.tokens, [])
        done.append(compare(number, name, truth, got.tokens))
    return done


def _texts(path: Path | None) -> list[str]:
    if path is not None:
        return read_prompts(path)
    with as_file(files("gardener") / "prompts.jsonl") as own:
        return read_prompts(own)


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
