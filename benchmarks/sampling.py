"""What the pick costs at the last stage: milliseconds per verdict of 16 rows, a tree with as many
rows as a segment brings, beside the pass of a stage that holds a quarter of a model of 7B shape.

Each verdict has six positions. `fresh`: the noise of all six is drawn for it. `kept`: that of one,
since the verdicts before have looked at the others; that is what speculation does. Medians, in this
process, with the same threads for picks and passes. From the checkout:
`python -m benchmarks.sampling [--threads 2] [--repeat 15] [--json]`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from benchmarks.machine import machine
from gardener.model.sampler import Picking, Sampler
from gardener.protocol.sampling import Sampling

ROWS = 16
DEPTHS = (0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5)
"""Of the rows, below the root."""

TEXT = 1000
"""Tokens before the tree."""

VOCABULARIES = (49_152, 128_256)
WIDTH, INNER, LAYERS = 4096, 11_008, 8
"""Of the model, and layers of one of four stages."""

DTYPES = (torch.float32, torch.bfloat16)

WAYS: dict[str, tuple[Sampling, int | None]] = {
    "temperature": (Sampling(0.8, seed=1), None),
    "top-k 50": (Sampling(0.8, top_k=50, seed=1), None),
    "top-p 0.9": (Sampling(0.8, top_p=0.9, seed=1), None),
    "top-k and top-p": (Sampling(0.8, top_k=50, top_p=0.9, seed=1), None),
    "repetition penalty": (Sampling(0.8, repetition_penalty=1.1, seed=1), None),
    "greedy, 5 log probabilities": (Sampling(), 5),
}


def median(work: Callable[[], object], repeat: int) -> float:
    """Milliseconds."""
    seconds = []
    for turn in range(repeat + 2):
        begin = time.perf_counter()
        work()
        if turn >= 2:
            seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds)


class Verdicts:
    """Verdicts of one request, one after the other: each begins a token later, or a tree later."""

    def __init__(self, logits: torch.Tensor, sampling: Sampling, best: int | None) -> None:
        self._logits, self._sampler = logits, Sampler(sampling, TEXT // 2, best)
        self._text = torch.randint(logits.shape[-1], (TEXT,)).tolist()
        self._paths = [self._text[:depth] for depth in DEPTHS]
        self._first = TEXT

    def next(self, step: int) -> None:
        self._first += step
        positions = [self._first + depth for depth in DEPTHS]
        self._sampler.pick(
            self._logits, Picking(self._sampler, positions, self._text, TEXT, self._paths)
        )


def picks(vocabulary: int, dtype: torch.dtype, repeat: int) -> dict[str, float]:
    """Milliseconds by way. The logits are spread as those of a language model are: a few high."""
    chance = torch.Generator().manual_seed(0)
    logits = 2.5 * torch.randn(ROWS, vocabulary, generator=chance)
    logits[:, :20] += torch.linspace(14, 6, 20)
    logits = logits.to(dtype)
    found = {"greedy": median(lambda: logits.float().argmax(-1).tolist(), repeat)}
    for name, (sampling, best) in WAYS.items():
        steps = (("", 0),) if sampling.is_greedy else ((", kept", 1), (", fresh", max(DEPTHS) + 1))
        for said, step in steps:
            verdicts = Verdicts(logits, sampling, best)
            found[name + said] = median(partial(verdicts.next, step), repeat)
    return found


def stage_pass(dtype: torch.dtype, repeat: int) -> float:
    """The linear layers of a stage, without attention: its pass takes no less."""
    shapes = [*[(WIDTH, WIDTH)] * 4, *[(INNER, WIDTH)] * 2, (WIDTH, INNER)]
    weights = [torch.randn(shape).mul_(0.01).to(dtype) for shape in shapes]
    layers: Sequence[Sequence[torch.Tensor]] = [
        [weight.clone() for weight in weights] for _ in range(LAYERS)
    ]
    rows = {width: torch.randn(ROWS, width).to(dtype) for width in (WIDTH, INNER)}

    def once() -> None:
        for layer in layers:
            for weight in layer:
                torch.nn.functional.linear(rows[weight.shape[1]], weight)

    return median(once, repeat)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    facts = machine() | {"threads": torch.get_num_threads(), "rows": ROWS}
    results = []
    for dtype in DTYPES:
        took = stage_pass(dtype, max(arguments.repeat // 3, 3))
        for vocabulary in VOCABULARIES:
            for way, ms in picks(vocabulary, dtype, arguments.repeat).items():
                name = str(dtype).removeprefix("torch.")
                results.append((name, vocabulary, way, ms, took))
    if arguments.json:
        columns = ("dtype", "vocabulary", "way", "ms", "pass_ms")
        rows = [dict(zip(columns, result, strict=True)) for result in results]
        print(json.dumps({"machine": facts, "results": rows}))
        return
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(f"\n{'dtype':10}{'tokens':>8}  {'way':30}{'ms':>8}{'pass ms':>9}{'share':>8}")
    for name, vocabulary, way, ms, took in results:
        print(f"{name:10}{vocabulary:>8}  {way:30}{ms:8.2f}{took:9.1f}{ms / took:8.1%}")


if __name__ == "__main__":
    main()
