"""How the time of a pass grows with its rows: a mixture of experts against a dense model of the
same active size.

Both are random models of the same sizes, but for the feed-forward part: the mixture has `--experts`
of width `--inner`, of which a row goes through `--chosen`; the dense one has a single part as wide
as these together. So a pass of one row reads as many weights in both. Passes are timed as a node
times its own (`stages/measure.py`), with random rows, which share fewer experts than those of a
text do: what is measured is the most that rows of a real tree cost.

Run from the checkout: `python -m benchmarks.mixtures [--dtype bfloat16] [--quant nf4]
[--threads 1]`.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3MoeConfig

from benchmarks.machine import machine
from gardener.decoding.costs import SIZES
from gardener.stages.load import load_stage
from gardener.stages.measure import Measured, measure

BUDGET = 20.0
"""Seconds to time one model."""


def main() -> None:
    """Print both curves, and the experts that are read, as JSON."""
    options = _options()
    sizes: dict[str, Any] = {
        "vocab_size": 1024,
        "hidden_size": options.width,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.width // 64,
        "num_key_value_heads": max(options.width // 256, 1),
        "head_dim": 64,
        "max_position_embeddings": 256,
    }
    mixture = Qwen3MoeConfig(
        **sizes,
        num_experts=options.experts,
        num_experts_per_tok=options.chosen,
        moe_intermediate_size=options.inner,
        norm_topk_prob=True,
    )
    dense = Qwen3Config(**sizes, intermediate_size=options.chosen * options.inner)
    curves = {"mixture": _measured(mixture, options), "dense": _measured(dense, options)}
    print(
        json.dumps(
            {
                "machine": machine(),
                "threads": options.threads,
                "experts_read": {rows: _read(rows, options) for rows in SIZES},
                **{
                    name: {rows: round(seconds * 1e3, 3) for rows, seconds in found.short}
                    for name, found in curves.items()
                },
                "rows_of_mixture_against_one": _growth(curves["mixture"]),
                "rows_of_dense_against_one": _growth(curves["dense"]),
            },
            indent=1,
        )
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {
        "width": 512,
        "layers": 8,
        "experts": 32,
        "chosen": 4,
        "inner": 256,
        "threads": 1,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quant", default="none")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def _measured(config: Any, options: argparse.Namespace) -> Measured:
    torch.manual_seed(0)
    build: Any = AutoModelForCausalLM.from_config
    with tempfile.TemporaryDirectory() as folder:
        build(config, dtype=torch.bfloat16).save_pretrained(folder)
        stage = load_stage(
            Path(folder),
            dtype=options.dtype,
            quant=options.quant,
            device=options.device,
            threads=options.threads,
        )
        return measure(stage, BUDGET)


def _read(rows: int, options: argparse.Namespace) -> float:
    """How many experts of a layer so many random rows are expected to reach."""
    missed: float = (1 - options.chosen / options.experts) ** rows
    read: float = options.experts * (1 - missed)
    return round(read, 1)


def _growth(found: Measured) -> dict[int, float]:
    least = found.short[0][1]
    return {rows: round(seconds / least, 2) for rows, seconds in found.short}


if __name__ == "__main__":
    main()
