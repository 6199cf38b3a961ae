"""What GGUF files cost and whether they are right, with random models that are made for it.

    python -m benchmarks.gguf memory [--folder DIR]

writes a random Q4_0 model of the shape of Llama-2-7B (3.8 GB, deleted afterwards) and loads layers
0-7 of 32 from it, each time in a process of its own: seconds and peak memory.

    python -m benchmarks.gguf verify [--stages N]

makes a small random model in every type and runs `gardener verify` on each: all policies against
transformers, which computes in float32 with what the `gguf` package makes of the weights.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from benchmarks.machine import machine
from benchmarks.shapes import SHAPES, Shape
from gardener.cli.program import note

TYPES = (
    *("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
)

_SCALES: Mapping[str, tuple[int, ...]] = {
    "Q8_0": (0,),
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}
"""Where the float16 numbers of a block are, which must not be any bits."""

_LEVELS = {"Q8_0": 128, "Q4_0": 8, "Q5_0": 16, "Q4_1": 8, "Q5_1": 16, "Q2_K": 24, "Q3_K": 128}
"""About how large the integers get that the scales are multiplied with; 1000 for the others."""

_LOAD = """
import json, resource, sys, time
from pathlib import Path
import torch
from gardener.model.checkpoint.resolve import resolve
from gardener.model.checkpoint.slices import Slice
from gardener.stages.load import load_stage

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

model, dtype, threads, first, end, layers = sys.argv[1:3] + [int(each) for each in sys.argv[3:]]
imported, begun = peak(), time.perf_counter()
folder = resolve(model)
found = time.perf_counter()
stage = load_stage(folder, Slice(first, end, layers), dtype=dtype, threads=threads)
done = time.perf_counter()
print(json.dumps({
    "resolve_s": round(found - begun, 2), "load_s": round(done - found, 2),
    "imports_gb": round(imported / 1e9, 2), "peak_gb": round(peak() / 1e9, 2),
    "slice_gb": round(stage.memory / 1e9, 2),
}))
"""


SMALL = Shape(4, 256, 512, 4, 2, 1000, 256)


def matrices(shape: Shape) -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns."""
    yield "token_embd.weight", shape.vocab, shape.width
    if not shape.tied:
        yield "output.weight", shape.vocab, shape.width
    for layer in range(shape.layers):
        for name, _, rows, columns in shape.layer_matrices():
            yield f"blk.{layer}.{name}.weight", rows, columns


def norms(shape: Shape) -> Iterator[str]:
    yield "output_norm.weight"
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm.weight"
        yield f"blk.{layer}.ffn_norm.weight"


def write(path: Path, shape: Shape, kind: str) -> None:
    """A random model, one tensor in memory at a time."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [f"▁w{number}" for number in range(shape.vocab - len(tokens))]
    writer.add_token_list([*tokens, *words])
    writer.add_token_scores([0.0] * len(tokens) + [-float(n) for n in range(len(words))])
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * len(words)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    stored = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[stored]
    for name, rows, columns in matrices(shape):
        nbytes = rows * columns // block * size
        raw = (rows, columns // block * size)
        writer.add_tensor_info(name, raw, np.dtype(np.uint8), nbytes, raw_dtype=stored)
    for name in norms(shape):
        writer.add_tensor_info(name, (shape.width,), np.dtype(np.float32), 4 * shape.width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    chance = np.random.default_rng(1)
    for _, rows, columns in matrices(shape):
        writer.write_tensor_data(_drawn(chance, rows, columns, kind))
    for _ in norms(shape):
        writer.write_tensor_data(np.ones(shape.width, np.float32))
    writer.close()


def _drawn(chance: np.random.Generator, rows: int, columns: int, kind: str) -> np.ndarray[Any, Any]:
    """The bytes of a random matrix [rows, columns] whose numbers are about columns ** -0.5."""
    stored = gguf.GGMLQuantizationType[kind]
    if kind not in _SCALES:
        numbers = (chance.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)
        return gguf.quants.quantize(numbers, stored).view(np.uint8)
    block, size = gguf.GGML_QUANT_SIZES[stored]
    blocks = chance.integers(0, 256, (rows * columns // block, size), np.uint8)
    scale = columns**-0.5 / _LEVELS.get(kind, 1000)
    for at in _SCALES[kind]:
        scales = (chance.uniform(-2, 2, len(blocks)) * scale).astype(np.float16)
        blocks[:, at : at + 2] = scales[:, None].view(np.uint8)
    return blocks.reshape(rows, -1)


def memory(where: Path | None, threads: int) -> None:
    with tempfile.TemporaryDirectory(prefix="gardener-", dir=where) as folder:
        file = Path(folder) / "random-7b-Q4_0.gguf"
        note(f"writing {file}")
        write(file, SHAPES["llama-2-7b"], "Q4_0")
        note(f"{machine()}, {threads} threads; {file.stat().st_size / 1e9:.2f} GB")
        for dtype in ("float32", "float32", "bfloat16"):
            command = [sys.executable, "-c", _LOAD, str(file), dtype, str(threads), "0", "8", "32"]
            done = subprocess.run(
                command, env=_elsewhere(folder), capture_output=True, text=True, check=True
            )
            note(f"{dtype}: {json.loads(done.stdout)}")


def verify(stages: int) -> None:
    with tempfile.TemporaryDirectory(prefix="gardener-") as folder:
        for kind in TYPES:
            file = Path(folder) / f"{kind}.gguf"
            write(file, SMALL, kind)
            start = "from gardener.cli.start import gardener; gardener()"
            options = f"--local {stages} --count 4 --max-new-tokens 40 --ignore-eos --json"
            done = subprocess.run(
                [sys.executable, "-c", start, "verify", "--model", str(file), *options.split()],
                env=_elsewhere(folder),
                capture_output=True,
                text=True,
                check=False,
            )
            if not done.stdout:
                raise SystemExit(f"{kind}: {done.stderr}")
            found = json.loads(done.stdout)
            counts = {key: found[key] for key in ("reference", "same", "tie", "different")}
            note(f"{kind}: {counts}")


def _elsewhere(folder: str) -> dict[str, str]:
    """An environment whose cache is in this folder."""
    return {**os.environ, "GARDENER_HOME": str(Path(folder) / "home")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("memory", "verify"))
    parser.add_argument("--folder", type=Path, help="where the large file is written for a while")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stages", type=int, default=2)
    given = parser.parse_args()
    if given.what == "memory":
        memory(given.folder, given.threads)
    else:
        verify(given.stages)


if __name__ == "__main__":
    main()
