"""Kinds of weights as benchmarks name them.

    QUANT[@GROUP][:DTYPE][/HEAD]     int4@64:float32/int8
    DTYPE[/HEAD]                     bfloat16

QUANT of the layers in groups of so many, what is computed in, and the quantisation of the head.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gardener.model.quants import GROUPED, QUANT_BYTES

ITEM = {"float32": 4, "bfloat16": 2, "float16": 2}

START = "from gardener.cli.start import gardener; gardener()"
"""What a Python runs to be the command `gardener`."""

_USUAL = {"nf4": "bfloat16", "fp4": "bfloat16", "llm-int8": "bfloat16"}
"""What a quantised kind is quick in, where that is not float32."""


@dataclass(frozen=True)
class Kind:
    """See above. `group` and `head`: None for what Gardener takes by itself. A stage has another
    group only if its folder was written so, see `split`."""

    name: str
    quant: str
    dtype: str
    group: int | None = None
    head: str | None = None

    @classmethod
    def read(cls, name: str) -> "Kind":
        """Raises SystemExit with a sentence for people."""
        body, _, head = name.partition("/")
        body, _, dtype = body.partition(":")
        quant, _, group = body.partition("@")
        if quant in ITEM and not dtype:
            quant, dtype = "none", quant
        dtype = dtype or _USUAL.get(quant, "float32")
        odd = group and (quant not in GROUPED or not group.isdecimal())
        if quant not in QUANT_BYTES or dtype not in ITEM or odd or head not in ("", *QUANT_BYTES):
            known = ", ".join((*ITEM, *QUANT_BYTES))
            raise SystemExit(
                f"error: there is no kind {name}: write QUANT[@GROUP][:DTYPE][/HEAD] with {known}"
            )
        return cls(name, quant, dtype, int(group) if group else None, head or None)

    @property
    def bytes(self) -> float:
        """Of a weight of a layer."""
        return ITEM[self.dtype] if self.quant == "none" else QUANT_BYTES[self.quant]

    def how(self) -> dict[str, Any]:
        """What `load_stage` is told."""
        found: dict[str, Any] = {"dtype": self.dtype, "quant": self.quant}
        if self.head is not None:
            found["quant_head"] = self.head
        return found

    def split(self, source: Path, out: Path, tree: Path) -> str:
        """Write the layers of a model's folder to `out`/stage-1, quantised in this way, with the
        `gardener` of the checkout `tree`. Returns why it could not; empty: it could."""
        told = {"quant": self.quant, "group": self.group, "quant-head": self.head}
        given = [part for name, each in told.items() if each for part in (f"--{name}", str(each))]
        command = ["split", str(source), "--stages", "1", "--out", str(out), *given]
        done = subprocess.run(
            [sys.executable, "-P", "-c", START, *command],
            env={**os.environ, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            check=False,
        )
        if not done.returncode:
            return ""
        return (done.stderr.strip().splitlines() or ["gardener split failed"])[-1]
