"""Microseconds of attention in one layer on the CPU, by rows and length of the text.

    python benchmarks/attention.py [THREADS]

exact: what stages compute (`gardener.model.exact_attention`). float32: plain steps, whose sums
depend on slots and rows; what stages computed in float32 before there was `exact`. float64: the
same steps in float64, what they computed in 16 bits and quantised. The rows are a chain at the end
of the text; the least of many runs counts, the three in turns.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gardener.model.attention import AttentionKernel, Scoring, attend, softmax_attention
from gardener.model.attention_trial import least_lines
from gardener.model.exact_attention import BLOCK, Scratch, pieces, seen
from gardener.model.placement import Placement
from gardener.model.wide_attention import wide_attention

SHAPES = {
    "SmolLM2-135M": (3, 3, 64),
    "Llama-3.2-1B": (8, 4, 64),
    "Llama-3.1-8B": (8, 4, 128),
    "Llama-2-7B": (32, 1, 128),
}
"""Heads of keys, heads of queries for each of these, numbers in a head."""

ROWS = (1, 4, 16)

TEXTS = (16, 300, 2048, 8192)

SECONDS = 0.15
"""For one figure."""


def plain(kernel: AttentionKernel, q: Tensor, keys: Tensor, values: Tensor, text: int) -> Tensor:
    """What rows after `text` tokens see, in plain steps."""
    rows = len(q)
    bias = None
    if rows > 1:
        bias = torch.zeros(rows, text + rows)
        bias[:, text:] = torch.full((rows, rows), -torch.inf).triu(1)
    return attend(
        kernel,
        Scoring(q.shape[-1] ** -0.5),
        q,
        keys[:, : text + rows],
        values[:, : text + rows],
        bias,
    )


def exact(q: Tensor, keys: Tensor, values: Tensor, text: int) -> Callable[[], Tensor]:
    """The same, with what is made once for all layers made before."""
    rows, heads, head_dim = q.shape
    group = heads // len(keys)
    positions = np.arange(text, text + rows)
    placement = Placement(
        slots=positions,
        positions=positions,
        base=text,
        high=text + rows,
        mask=np.tri(rows, dtype=np.bool_) if rows > 1 else None,
        slot_positions=positions,
    )
    (piece,) = pieces(placement, None, BLOCK)
    least = least_lines(len(keys), group, head_dim, torch.get_num_threads())
    if least is None:
        raise SystemExit("attention is not exact here: stages take float64")
    scratch = Scratch(piece, Scoring(head_dim**-0.5), len(keys), group, head_dim, least)
    return partial(seen, piece, scratch, q, keys, values)


def microseconds(ways: dict[str, Callable[[], Tensor]]) -> dict[str, float]:
    """The least of each, in turns."""
    best = dict.fromkeys(ways, float("inf"))
    deadline = time.perf_counter() + len(ways) * SECONDS
    while time.perf_counter() < deadline:
        for name, way in ways.items():
            for _ in range(3):
                begin = time.perf_counter()
                way()
                best[name] = min(best[name], time.perf_counter() - begin)
    return {name: 1e6 * seconds for name, seconds in best.items()}


@torch.inference_mode()
def main() -> None:
    if len(sys.argv) > 1:
        torch.set_num_threads(int(sys.argv[1]))
    table = Table(title=f"us a layer, {torch.get_num_threads()} threads", box=None)
    for column in ("shape", "text", "rows", "exact", "float32", "float64", "exact/float32"):
        table.add_column(column, justify="left" if column == "shape" else "right")
    for shape, (kv_heads, group, head_dim) in SHAPES.items():
        for text in TEXTS:
            keys, values = torch.randn(2, kv_heads, text + BLOCK + max(ROWS), head_dim).unbind()
            for rows in ROWS:
                q = torch.randn(rows, kv_heads * group, head_dim)
                took = microseconds(
                    {
                        "exact": exact(q, keys, values, text),
                        "float32": partial(plain, softmax_attention, q, keys, values, text),
                        "float64": partial(plain, wide_attention, q, keys, values, text),
                    }
                )
                figures = [f"{took[name]:.0f}" for name in ("exact", "float32", "float64")]
                ratio = f"{took['exact'] / took['float32']:.2f}"
                table.add_row(shape, str(text), str(rows), *figures, ratio)
    Console().print(table)


if __name__ == "__main__":
    main()
