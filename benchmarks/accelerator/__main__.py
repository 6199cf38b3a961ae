"""What a stage on a GPU is worth, shown in one run of less than eight minutes: see `HELP`."""

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

HELP = """\
What a stage on a GPU is worth, shown in one run of less than eight minutes.

    python -m benchmarks.accelerator [--device cuda] [--json FILE] [--parts stage,verify,...]

  stage   a middle stage of 8 layers of Llama-2-7B shape: all kinds of weights but llm-int8, with
          and without graphs, 1 to 128 rows, texts of 16, 1,024 and 4,096 tokens, beside the time of
          reading its weights at the bandwidth that the device shows
  verify  two stages of a model on the device, as processes: what all policies write, against plain
  speed   how fast policies are in such rings, drafters on the CPU and on the device, with graphs
          and without
  curve   the curves on the cards of these stages beside the passes of these rings

The important comes first, everything has its seconds (--seconds in all), and the file is written
anew after each piece: a run that is cut off leaves what it had, and says what it left out.

On a bare machine with torch and a GPU, carry the wheels of what is missing there (it is named in
one sentence) and the model, for there is no hub to ask:

    pip download --no-deps -d wheels msgspec msgpack uvloop cyclopts ...    # where there is one
    pip install --no-index --no-deps --target more wheels/*.whl             # on the bare machine
    PYTHONPATH=more python -m benchmarks.accelerator --model smollm2-135m.gguf --json out.json
"""

STAGE = (
    "torch",
    "transformers",
    "numpy",
    "safetensors",
    "msgspec",
    "platformdirs",
    "psutil",
    "rich",
    "tqdm",
)
RING = (
    *STAGE,
    "tokenizers",
    "huggingface_hub",
    "msgpack",
    "uvloop",
    "cyclopts",
    "attrs",
    "filelock",
    "packaging",
    "regex",
    "pyyaml",
)
"""Packages that the parts import, also those that others bring with them unless they are carried
with `--no-deps`; a model in GGUF needs `gguf` too."""

MODULES = {"pyyaml": "yaml"}
"""What a package is imported as, where that is not its name."""


def missing(parts: list[str], model: str) -> list[str]:
    """The packages that have to be carried here."""
    needed = list(STAGE if parts == ["stage"] else RING)
    if parts != ["stage"] and (model.endswith(".gguf") or not Path(model).exists()):
        needed.append("gguf")
    return [name for name in needed if find_spec(MODULES.get(name, name)) is None]


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="as torch names it; default: cuda")
    parser.add_argument("--parts", default="stage,verify,speed,curve", metavar="NAME,...")
    parser.add_argument("--seconds", type=float, default=450.0, help="that all of it may take")
    parser.add_argument("--model", default="smollm2-135m", help="of the rings, as for `gardener`")
    parser.add_argument("--data", type=Path, help="prompts; default: those of the package")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there too")
    parser.add_argument("--quick", action="store_true", help="only to see whether it runs")
    found = parser.parse_args()
    found.parts = found.parts.split(",")
    known = ("stage", "verify", "speed", "curve")
    if odd := set(found.parts) - set(known):
        parser.error(f"there is no part {', '.join(sorted(odd))}: take {', '.join(known)}")
    found.parts.sort(key=known.index)
    return found


def main() -> None:
    """Measure and print."""
    begin = time.monotonic()
    asked = options()
    if lacking := missing(asked.parts, asked.model):
        sys.exit(f"error: missing here: {', '.join(lacking)}: carry their wheels (see --help)")
    from benchmarks.accelerator.whole import run  # late: it needs what may be missing

    run(asked, begin)


if __name__ == "__main__":
    main()
