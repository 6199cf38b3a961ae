"""How the weights of linear layers may be quantised. Read without torch, for options.

int4, int8   in groups with a scale each (`kernels/grouped.py`), by ONNX Runtime, rows in 8 bits
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

GROUPS = (32, 64, 128)
"""How many weights may share a scale."""

GROUP = 32
"""How many do, unless told otherwise."""
