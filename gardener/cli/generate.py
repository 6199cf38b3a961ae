"""`gardener generate`: one prompt, one answer, the text as it comes."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gardener.cli import options as o
from gardener.cli.program import ignore, note, result, run
from gardener.cli.ring import RingSettings, open_ring, shape
from gardener.errors import UserError
from gardener.policy import make
from gardener.prompts import Prompter
from gardener.run import Answer, Wanted, answer
from gardener.survey import span

PromptArgument = Annotated[
    str, typer.Argument(help="What to ask the model; - reads it from standard input.")
]
PolicyOption = Annotated[
    o.PolicyName, typer.Option(envvar="GARDENER_POLICY", help="What goes into the ring when.")
]
CompareOption = Annotated[
    str,
    typer.Option(
        metavar="NAME,...", help="Run the same prompt under these policies too, and compare."
    ),
]
StopOption = Annotated[
    list[str] | None, typer.Option(help="End before this text. May be given several times.")
]
RawOption = Annotated[bool, typer.Option("--raw", help="Without the model's chat template.")]


def generate(
    prompt: PromptArgument,
    local: o.Local = None,
    peer: o.Peer = None,
    listen: o.Listen = "127.0.0.1:7000",
    model: o.Model = o.DEFAULT_MODEL,
    revision: o.Revision = None,
    max_new_tokens: o.NewTokens = 256,
    stop: StopOption = None,
    raw: RawOption = False,
    policy: PolicyOption = "gardener",
    compare: CompareOption = "",
    rows: o.Rows = 16,
    window: o.Window = None,
    floor: o.Floor = 0.2,
    dtype: o.DType = "float32",
    device: o.Device = "cpu",
    threads: o.Threads = None,
    quant: o.Quant = "none",
    patience: o.Patience = 120.0,
    no_view: o.NoView = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    config: o.Config = None,
) -> None:
    """Answer one prompt. The text goes to stdout as it is accepted, all else to stderr.

    gardener generate "Why is the sky blue?" --local 3
    """
    settings = RingSettings(
        model=model,
        revision=revision,
        local=local,
        peer=peer,
        listen=listen,
        dtype=dtype,
        device=device,
        threads=threads,
        quant=quant,
        patience=patience,
    )
    text = sys.stdin.read() if prompt == "-" else prompt
    policies = o.policies(f"{policy},{compare}")

    async def main() -> list[Answer]:
        async with open_ring(settings, note, note if verbose else ignore) as (holder, folder):
            prompter = Prompter(folder)
            tokens = prompter.encode(text, raw=raw)
            if len(tokens) >= prompter.context:
                raise UserError(
                    f"the prompt has {len(tokens)} tokens, and this model has room for "
                    f"{prompter.context} with the answer: shorten it"
                )
            wanted = Wanted(tokens, max_new_tokens, tuple(stop or ()))
            sizes = shape(len(holder.cards), rows, window, floor)
            for card in holder.cards if not as_json else ():
                note(f"stage {card.stage}: {span(card)} on {card.name}, {card.dtype}")
            answers: list[Answer] = []
            for name in policies:
                first = not answers and not as_json
                show = result if first else ignore
                answers.append(await answer(holder, prompter, make(name, sizes), wanted, show))
                if first:
                    result("\n")
                if answers[-1].error:
                    break
            return answers

    answers = run(main())
    if as_json:
        result(json.dumps(_object(answers)) + "\n")
    else:
        _summary(answers)
    if answers[-1].error:
        note(f"error: {answers[-1].error}")
        raise typer.Exit(1)


def _object(answers: Sequence[Answer]) -> dict[str, Any]:
    first = answers[0]
    return {
        "text": first.text,
        "token_ids": first.tokens,
        "finish_reason": first.reason,
        "error": answers[-1].error,
        "prompt_tokens": first.prompt_tokens,
        "policy": first.policy,
        "agree": all(other.tokens == first.tokens for other in answers),
        "policies": {each.policy: each.statistics() for each in answers},
    }


def _summary(answers: Sequence[Answer]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("policy", "tokens", "tokens/s", "tokens/segment", "first token", "rows wasted"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for each in answers:
        table.add_row(
            each.policy,
            str(len(each.tokens)),
            f"{each.rate:.1f}",
            f"{each.per_segment:.2f}",
            f"{each.first_token:.2f} s",
            f"{each.counts.wasted} of {each.counts.rows}",
        )
    console = Console(stderr=True)
    console.print()
    console.print(table)
    if len(answers) > 1 and not answers[-1].error:
        same = all(other.tokens == answers[0].tokens for other in answers)
        console.print("all texts agree" if same else "[bold red]THE TEXTS DIFFER[/]")
