"""What `gardener generate` says of its answers: as JSON, or as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from gardener.holder.answer import Answer
from gardener.holder.figures import Figures
from gardener.holder.rates import Prefill, prefill


@dataclass(frozen=True)
class Answered:
    """The answers, how exact the ring says it is, and whether those that were not cut short are the
    same but for near ties."""

    answers: Sequence[Answer]
    exactness: str
    tied: bool


def agree(answers: Sequence[Answer]) -> bool:
    """Whether all answers that were not cut short are the same."""
    texts = whole(answers)
    return all(tokens == texts[0] for tokens in texts)


def whole(answers: Sequence[Answer]) -> list[list[int]]:
    """Those that were not cut short."""
    return [each.tokens for each in answers if not each.error]


def as_object(answered: Answered) -> dict[str, Any]:
    """What `--json` prints, but for what is simulated."""
    answers = answered.answers
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
        "exactness": answered.exactness,
        "agree": agree(answers),
        "near_ties": answered.tied and not agree(answers),
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
    "rows/\nsegment",
    "tokens/\nsegment",
    "first\ntoken",
    "rows\nwasted",
)


def summary(answered: Answered, title: str) -> None:
    """Print the figures of every policy, and how exact the ring is, to stderr."""
    answers = answered.answers
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
            f"{each.rows_per_segment:.2f}",
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
    console.print(answered.exactness, highlight=False, markup=False)
    if len(answers) > 1 and not answers[-1].error:
        but_for_ties = (
            "the texts differ, at near ties only"
            if answered.tied
            else "[bold red]THE TEXTS DIFFER[/]"
        )
        console.print("all texts agree" if agree(answers) else but_for_ties)
