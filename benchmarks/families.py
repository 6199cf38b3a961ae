"""Models of drawn configs, computed here and by transformers: the same logits, or a refusal.

For each family `--count` configs are drawn (`drawn_configs.py`), a tiny random model of each is
made and saved under the config as it was drawn, and both sides load that folder. Printed is how
many gave the same logits, how many were refused here and there, and what else happened: `refused
here` lists the reasons, and a model that is `different` is the fault that this looks for. From the
checkout: `python -m benchmarks.families [--count 200] [--family gemma2] [--seed 0] [--json]`.
"""

import argparse
import json
import logging
import random
import re
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.drawn_configs import MODELS, ROWS, VOCAB, Config, draw
from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.attention import Span, quick_attention
from gardener.model.block import run_blocks
from gardener.model.kv_cache import KVCache
from gardener.model.kv_slots import SlotTable
from gardener.model.loader import check_rotary, load_whole

Kind: TypeAlias = Literal[
    "same", "refused by both", "refused here", "refused there", "different", "crashed"
]

_WITHIN = 1e-4
"""Of the largest logit where that is above one."""


@dataclass(frozen=True)
class Outcome:
    """What became of one config; `why`: what was said, or how far apart the logits are."""

    kind: Kind
    why: str = ""


def trial(family: str, seed: int, folder: Path) -> Outcome:
    """Draw a config, make the model, compare. `folder`: an empty one."""
    config = draw(family, seed)
    (folder / "config.json").write_text(json.dumps(config))
    tokens = [random.Random(seed).randrange(VOCAB) for _ in range(ROWS)]
    try:
        _save_weights(config, seed, folder)
        expected = theirs(folder, tokens)
    except Exception as error:  # what it does not check ends in any of them
        return _without_reference(folder, tokens, f"{type(error).__name__}: {error}")
    try:
        found = ours(folder, tokens)
    except UserError as error:
        return Outcome("refused here", _shortened(error, folder))
    except Exception as error:  # told apart from a refusal
        return Outcome("crashed", repr(error))
    if not expected.isfinite().all():
        return Outcome("refused there", "logits that are not numbers")
    apart = float((found - expected).abs().max())
    bound = _WITHIN * max(1.0, float(expected.abs().max()))
    return Outcome("same" if apart <= bound else "different", f"{apart:.2g}")


def _without_reference(folder: Path, tokens: list[int], why: str) -> Outcome:
    try:
        check_rotary(folder, Architecture.read(folder))
        if not (folder / "model.safetensors").exists():
            return Outcome("refused there", why)
        ours(folder, tokens)
    except UserError as error:
        return Outcome("refused by both", _shortened(error, folder))
    except Exception as error:  # told apart from a refusal
        return Outcome("crashed", repr(error))
    return Outcome("refused there", why)


def _save_weights(config: Config, seed: int, folder: Path) -> None:
    """Random ones, as transformers names them; a head of its own now and then, where there need not
    be one, and sometimes no prefix."""
    from transformers import AutoConfig, AutoModelForCausalLM

    build: Any = AutoModelForCausalLM.from_config
    model = build(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    source = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=source) * 0.2
        tensors[name] = 1 + noise if "norm" in name else noise
    chance = random.Random(seed)
    table = tensors["model.embed_tokens.weight"]
    if "lm_head.weight" not in tensors and chance.random() < 0.4:
        own = torch.randn(table.shape, generator=source) * 0.2
        tensors["lm_head.weight"] = chance.choice((own, own, table.clone()))
    if chance.random() < 0.1:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def theirs(folder: Path, tokens: list[int]) -> Tensor:
    """Logits [rows, vocabulary] of transformers, in float32. Token by token: scalings that change
    as a text grows then are what a text is decoded with."""
    from transformers import AutoModelForCausalLM, DynamicCache

    load: Any = AutoModelForCausalLM.from_pretrained
    model = load(folder, dtype=torch.float32).eval()
    if "dynamic" not in _scalings(model.config) and "longrope" not in _scalings(model.config):
        whole: Tensor = model(torch.tensor([tokens]), use_cache=False).logits[0]
        return whole
    past: Any = DynamicCache()  # keeps all keys: made from a config it obeys any layer_types
    read = partial(model, past_key_values=past, use_cache=True)
    rows = [read(torch.tensor([[token]])).logits[0, -1] for token in tokens]
    return torch.stack(rows)


def _scalings(config: Any) -> str:
    return json.dumps(config.rope_parameters)


@torch.inference_mode()
def ours(folder: Path, tokens: list[int]) -> Tensor:
    """The same from the layers that stages run."""
    whole = load_whole(folder, dtype="float32", device="cpu")
    architecture, cpu = whole.architecture, torch.device("cpu")
    rows = list(range(len(tokens)))
    placement = SlotTable(len(tokens), 200).place(rows, [row - 1 for row in rows], rows)
    cache = KVCache(architecture.layers, architecture, torch.float32, cpu)
    windows = set(architecture.windows)
    span = Span.of(placement, cache, cpu, quick_attention(cpu), windows=windows)
    rotations = whole.rotary.at(torch.tensor(rows), rows[-1])
    hidden = run_blocks(
        whole.blocks, whole.embed(tokens), rotations, [span], lambda index: False, taps={}
    )
    assert hidden is not None
    return whole.head.logits(hidden)


def _shortened(error: UserError, folder: Path) -> str:
    """What is the same for the same reason."""
    return str(error).replace(str(folder), "FOLDER")


def _reason(outcome: Outcome) -> str:
    return re.sub(r"[\d.]+", "N", outcome.why)[:140]


def count(family: str, seeds: range) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """How many of each kind, and of each kind that is not the same and its reason."""
    kinds, reasons = Counter[str](), Counter[tuple[str, str]]()
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            found = trial(family, seed, Path(folder))
        kinds[found.kind] += 1
        if found.kind in ("different", "crashed"):
            reasons[found.kind, f"seed {seed}: {found.why}"] += 1
        elif found.kind != "same":
            reasons[found.kind, _reason(found)] += 1
    return kinds, reasons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", choices=MODELS, default=None)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    told = {}
    for family in [args.family] if args.family else MODELS:
        kinds, reasons = count(family, range(args.seed, args.seed + args.count))
        told[family] = dict(kinds)
        if not args.json:
            print(family, ", ".join(f"{kind}: {n}" for kind, n in kinds.most_common()), flush=True)
            for (kind, why), n in reasons.most_common():
                print(f"    {n:4} {kind}: {why}")
    if args.json:
        print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
