"""The types of tensors in GGUF files, and numbers out of those that are quantised, with the
arithmetic of the `gguf` package. Without torch."""

from collections.abc import Iterable
from typing import Any

import numpy as np

NEEDS_GGUF = "GGUF files need one package more: pip install gguf"
"""What to say where that package is not installed."""

AS_STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types that torch has, too."""


def dequantised(
    rows: np.ndarray[Any, np.dtype[np.uint8]], kind: str
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Numbers [rows, columns] of the bytes [rows, bytes of a row] of a type."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    with np.errstate(all="ignore"):  # scales of a damaged file may be no numbers: so are these then
        found: np.ndarray[Any, np.dtype[np.float32]] = dequantize(rows, GGMLQuantizationType[kind])
    return found


def unknown_types(kinds: Iterable[str]) -> list[str]:
    """Those that cannot be dequantised."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    unknown = []
    for kind in sorted(set(kinds) - AS_STORED.keys()):
        try:
            dequantised(
                np.zeros((1, GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]), np.uint8), kind
            )
        except NotImplementedError:
            unknown.append(kind)
    return unknown
