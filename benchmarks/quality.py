"""What every quantisation does to the default model: perplexity, and picks that stay the same.

The text is `texts/novels.txt`: from the openings of "Pride and Prejudice", "Alice's Adventures in
Wonderland" and "A Tale of Two Cities", in windows that know nothing of each other. A pick is the
likeliest next token; `float32` and `bfloat16` are shares of the positions at which it is the one
that the model in that dtype picks.

The default model is a Q4_1 file. So that every kind rounds once, and rounds the same numbers, its
weights are first turned into float32 (`gardener split --dtype float32`); a kind named `gguf:KIND`
takes the file itself, whose weights int4 has as they are. With `--llama-python PYTHON` (a Python
that has `llama-cpp-python`) there are llama.cpp's Q4_0, Q4_1 and Q8_0 of the same weights, too; as
llama.cpp writes them, and `pure`, with the head like all the rest.

    python -m benchmarks.quality [--kinds float32 nf4 int4@32 int4@32/int8 ...]
"""

import argparse
import json
import math
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.kinds import Kind
from benchmarks.machine import machine
from benchmarks.told import Told
from gardener.cli.program import note
from gardener.errors import UserError
from gardener.holder.prompter import Prompter
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.resolve import home, resolve
from gardener.model.checkpoint.slices import Slice
from gardener.model.checkpoint.split import Stored, split
from gardener.model.head import Head
from gardener.protocol.messages import Open
from gardener.stages import measure
from gardener.stages.executor import Executor
from gardener.stages.load import load_stage

MODEL = "smollm2-135m"
HERE = Path(__file__).parent
GGUF = "gguf:"
REFERENCES = ("float32", "bfloat16")
KINDS = (
    *REFERENCES,
    *("float16", "llm-int8", "nf4", "fp4", "int8"),
    *("int8/none", "int4/none", "int4/int8", "int4/int4", "int4@64/none", "int4@128/none"),
    *("gguf:float32", "gguf:int4/none", "gguf:int4/int8"),
)
LLAMA = ("F32", "Q8_0", "Q4_1", "Q4_1 pure", "Q4_0", "Q4_0 pure")

Windows = list[list[int]]


@dataclass(frozen=True)
class Scored:
    """One kind. logs: of the probability of each token that came, natural; picks: the likeliest
    ones in their places."""

    name: str
    logs: list[float]
    picks: list[int]

    @property
    def perplexity(self) -> float:
        return math.exp(-statistics.fmean(self.logs))

    def agreement(self, other: "Scored") -> float:
        """Share of the positions with the same pick."""
        return statistics.fmean(a == b for a, b in zip(self.picks, other.picks, strict=True))


def windows(model: Path, text: Path, size: int) -> Windows:
    """The text in tokens, cut into windows of this size."""
    tokens = list(Prompter(model).encode(text.read_text(encoding="utf-8"), raw=True))
    cut = [tokens[first : first + size] for first in range(0, len(tokens), size)]
    return [each for each in cut if len(each) > 1]


@contextmanager
def _logits() -> Iterator[list[Tensor]]:
    """All logits that heads compute within the block, float32."""
    found: list[Tensor] = []
    project = Head.project

    def kept(self: Head, normed: Tensor) -> Tensor:
        logits = project(self, normed)
        found.append(logits.float())
        return logits

    with patch.object(Head, "project", kept):
        yield found


@torch.inference_mode()
def score(name: str, stage: Executor, texts: Windows) -> Scored:
    """The windows through a stage that has the whole model."""
    logs: list[float] = []
    picks: list[int] = []
    for window in texts:
        stage.open(Open(measure.REQUEST, 1, stage.architecture.context))
        placed = replace(measure.chain(stage, 0, len(window), 0), tokens=window)
        with _logits() as found:
            stage.forward([placed])
        stage.close(measure.REQUEST)
        likely = torch.log_softmax(torch.cat(found)[:-1].double(), -1)
        logs += likely.gather(-1, torch.tensor(window[1:])[:, None])[:, 0].tolist()
        picks += likely.argmax(-1).tolist()
    return Scored(name, logs, picks)


def ours(names: Sequence[str], folders: tuple[Path, Path], texts: Windows) -> Iterator[Scored]:
    """Every kind that there is. `folders`: of the model in float32, and as it is."""
    for name in names:
        kind = Kind.read(name.removeprefix(GGUF))
        folder = folders[name.startswith(GGUF)]
        with tempfile.TemporaryDirectory(prefix="gardener-") as scratch:
            try:
                stage = load_stage(_grouped(kind, folder, Path(scratch)), **kind.how())
            except (UserError, TypeError, KeyError, ValueError) as error:
                note(f"no {name}: {error}")
                continue
            yield score(name, stage, texts)


def _grouped(kind: Kind, folder: Path, scratch: Path) -> Path:
    """The folder, or one with weights in the groups of this kind. Raises UserError."""
    if kind.group is None:
        return folder
    failed = kind.split(folder, scratch / "split", HERE.parent)
    if failed:
        raise UserError(failed)
    return scratch / "split" / "stage-1"


def in_float32(model: Path, layers: int, out: Path) -> Path:
    """A folder of the whole model, all of whose weights are float32."""
    split(model, [Slice(0, layers, layers)], out, stored=Stored("float32"))
    folder = out / "stage-1"
    config = json.loads((folder / "config.json").read_text())
    del config["gardener"]  # it is no part of a model, but all of it
    (folder / "config.json").write_text(json.dumps(config))
    for file in model.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def theirs(python: str, model: Path, scratch: Path, texts: Windows) -> Iterator[Scored]:
    """llama.cpp's own."""
    with Told("llama.cpp", (python, "-P", str(HERE / "llama_child.py")), {}) as child:
        whole = scratch / "F32.gguf"
        child.ask("quantise", path=str(model), out=str(whole), kind="F32", pure=True)
        for name in LLAMA:
            kind, _, pure = name.partition(" ")
            file = scratch / f"{name}.gguf"
            if name != "F32":
                child.ask("quantise", path=str(whole), out=str(file), kind=kind, pure=bool(pure))
            child.ask("load", path=str(file), threads=1, context=max(map(len, texts)))
            found = child.ask("score", windows=texts)
            logs, picks = (list(chain.from_iterable(found[each])) for each in ("logs", "picks"))
            yield Scored(f"llama.cpp {name}", logs, picks)


def show(found: Scored, references: dict[str, Scored]) -> None:
    """One line."""
    line = f"{found.name:22} {found.perplexity:10.4f}"
    for name in REFERENCES:
        reference = references.get(name)
        line += "         -" if reference is None else f" {found.agreement(reference):9.2%}"
    if "float32" in references:
        more = found.perplexity / references["float32"].perplexity - 1
        nats = np.subtract(references["float32"].logs, found.logs)
        error = nats.std() / math.sqrt(len(nats))
        line += f"   {more:+.2%} +- {error:.2%}"
    print(line, flush=True)


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), metavar="KIND")
    parser.add_argument("--llama-python", metavar="PYTHON")
    parser.add_argument("--text", type=Path, default=HERE / "texts" / "novels.txt")
    parser.add_argument("--window", type=int, default=512, help="tokens of each window")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args()
    print(machine())
    gguf = resolve(MODEL, say=note)
    layers = Architecture.read(gguf).layers
    texts = windows(gguf, options.text, options.window)
    # The references come first: all others are held against them.
    names = [*REFERENCES, *(name for name in options.kinds if name not in REFERENCES)]
    found: dict[str, Scored] = {}
    print(f"{options.text.name}: {sum(map(len, texts))} tokens, windows of {options.window}")
    print(f"{'':22} {'perplexity':>10} {'float32':>9} {'bfloat16':>9}   perplexity to float32")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gardener-")))
        folders = in_float32(gguf, layers, scratch / "model"), gguf
        for each in ours(names, folders, texts):
            found[each.name] = each
            show(each, found)
        if options.llama_python:
            file = home() / "models" / f"{MODEL}.gguf"
            for each in theirs(options.llama_python, file, scratch, texts):
                found[each.name] = each
                show(each, found)
    if options.json:
        table = {
            name: {
                "perplexity": each.perplexity,
                **{other: each.agreement(found[other]) for other in REFERENCES},
            }
            for name, each in found.items()
        }
        options.json.write_text(json.dumps({"machine": machine(), "kinds": table}))


if __name__ == "__main__":
    main()
