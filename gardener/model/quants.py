"""How the weights of linear layers may be quantised. Read without torch, for options.

int4, int8   in groups with a scale each (`kernels/grouped.py`): on the CPU by ONNX Runtime, rows in
             8 bits; int4 on CUDA by torch, rows in bfloat16; else widened when they are loaded
nf4, fp4     in groups of 64, through bitsandbytes (QLoRA, Dettmers et al. 2305.14314)
llm-int8     a scale per output, rows in 8 bits, through bitsandbytes (Dettmers et al. 2208.07339)
"""

GROUPED = {"int4": 4, "int8": 8}
"""Bits of the kinds whose weights are `kernels/grouped.Grouped`."""

QUANT_BYTES = {
    "none": 2.0,
    "int4": 0.625,
    "int8": 1.125,
    "nf4": 0.5625,
    "fp4": 0.5625,
    "llm-int8": 1.0,
}
"""Bytes per weight of each kind, with the scales."""

QUANTS = tuple(QUANT_BYTES)

AUTO = "auto"
"""Whichever kind of 4 bits is the fastest one on a device; for the head, see `of_head`."""

HEAD_QUANTS = (AUTO, "none", *GROUPED)
"""How the output matrix may be quantised. It decides between near ties."""


def of_head(quant: str, layers: str) -> str:
    """The kind that is meant by one of `HEAD_QUANTS`, where the layers are of a kind in `QUANTS`.
    auto: 8 bits if they are quantised by groups, else none."""
    if quant != AUTO:
        return quant
    return "int8" if layers in GROUPED else "none"


GROUPS = (16, 32, 64, 128, 256)
"""How many weights may share a scale. ONNX Runtime takes powers of two from 16 on."""

GROUP = 32
"""How many do, unless told otherwise."""


def fitting_group(inputs: int, group: int = GROUP) -> int | None:
    """The largest group up to this one that divides so many inputs; None: none does."""
    return max((each for each in GROUPS if each <= group and inputs % each == 0), default=None)
