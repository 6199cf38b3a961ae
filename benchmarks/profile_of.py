"""A profile for `--simulate` out of what `benchmarks.stage` measured, for a model of its shape.

All layers of the shape and the head, reckoned from the layers that were measured; a drafter of one
such layer and the head; links, overhead and the holder's time of another profile.

    python -m benchmarks.stage --shapes llama-2-7b --kinds int4 --threads 1 --json stage.json
    python -m benchmarks.profile_of stage.json --shape llama-2-7b --kind int4 > cpu-int4.toml
    gardener eval --simulate 4 --profile cpu-int4.toml
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.kinds import ITEM, Kind
from benchmarks.shapes import SHAPES


def curves(
    report: dict[str, Any], shape: str, kind: str, threads: int, side: str
) -> tuple[list[list[float]], list[list[float]]]:
    """Rows and milliseconds of the model and of the drafter, after the shortest text. Raises
    SystemExit if these cells were not measured."""
    own = [
        cell
        for cell in report["cells"]
        if (cell["shape"], cell["kind"], cell["threads"], cell["side"])
        == (shape, kind, threads, side)
    ]
    text = min((cell["context"] for cell in own if cell["head"]), default=None)
    short = {(cell["rows"], cell["head"]): cell for cell in own if cell["context"] == text}
    model, drafter = [], []
    for rows in sorted(rows for rows, head in short if head and (rows, False) in short):
        alone, whole = short[rows, False], short[rows, True]
        layer = alone["ms"] / alone["layers"]
        head = max(whole["ms"] - alone["ms"], 0.0)
        model.append([rows, round(SHAPES[shape].layers * layer + head, 3)])
        drafter.append([rows, round(layer + head, 3)])
    if not model:
        measured = {(cell["shape"], cell["kind"], cell["threads"]) for cell in report["cells"]}
        raise SystemExit(f"error: {shape}, {kind}, threads {threads} is not among {measured}")
    return model, drafter


def main() -> None:
    """Print the TOML."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="what benchmarks.stage wrote with --json")
    parser.add_argument("--shape", choices=SHAPES, default="llama-2-7b")
    parser.add_argument("--kind", default="int4")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", choices=("this", "rival"), default="this")
    parser.add_argument("--base", default="cpu", help="the profile that has all the rest")
    options = parser.parse_args()
    report = json.loads(options.report.read_text())
    model, drafter = curves(report, options.shape, options.kind, options.threads, options.side)
    for name, fact in report["machine"].items():
        print(f"# {name}: {fact}")
    print(f"# {options.shape}, {options.kind}, threads {options.threads}")
    print(f'base = "{options.base}"')
    print(f"model = {model}")
    print(f"row_bytes = {SHAPES[options.shape].width * ITEM[Kind.read(options.kind).dtype]}")
    print(f"drafter = {drafter}")


if __name__ == "__main__":
    main()
