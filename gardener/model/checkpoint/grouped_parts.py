"""`Grouped` weights in safetensors files: the steps under the name of the tensor, and its other
parts beside them.

    NAME          uint8, as in `Grouped`; the file has a note of it (`notes.py`)
    NAME.scales   float16 or float32 [outputs, inputs / group]
    NAME.zeros    uint8, likewise, where there are any
    NAME.minima   as the scales, where there are any
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gardener.model.checkpoint.notes import Note, odd
from gardener.model.checkpoint.safetensors_writer import Entry
from gardener.model.kernels.grouped import Grouped

_DTYPES = {
    "": (torch.uint8,),
    "scales": (torch.float16, torch.float32),
    "zeros": (torch.uint8,),
    "minima": (torch.float16, torch.float32),
}


@dataclass(frozen=True)
class Layout:
    """What a tensor's parts are, known before they are read or made.

    narrow         whether scales and minima are numbers of 16 bits
    zeros, minima  whether there are any
    """

    bits: int
    group: int
    narrow: bool
    zeros: bool
    minima: bool

    @property
    def note(self) -> Note:
        """What the file says of such a tensor."""
        more = {"zeros": self.zeros, "minima": self.minima}
        return Note(self.bits, ("scales", *(part for part, there in more.items() if there)))

    def entries(self, name: str, outputs: int, inputs: int) -> dict[str, Entry]:
        """Of a tensor of this size, by the names that they have in the file."""
        grid = (outputs, inputs // self.group)
        floats = Entry(torch.float16 if self.narrow else torch.float32, grid)
        found = {
            name: Entry(torch.uint8, (outputs, inputs * self.bits // 8)),
            f"{name}.scales": floats,
        }
        if self.zeros:
            found[f"{name}.zeros"] = Entry(torch.uint8, grid)
        return found | ({f"{name}.minima": floats} if self.minima else {})

    def parts(self, name: str, weights: Grouped) -> dict[str, Tensor]:
        """Those of the weights, likewise."""
        dtype = torch.float16 if self.narrow else torch.float32
        found = {name: weights.steps, f"{name}.scales": weights.scales.to(dtype)}
        if weights.zeros is not None:
            found[f"{name}.zeros"] = weights.zeros
        if weights.minima is not None:
            found[f"{name}.minima"] = weights.minima.to(dtype)
        return found


def together(what: str, bits: int, parts: Mapping[str, Tensor]) -> Grouped:
    """Out of its parts: the steps are named "". Raises UserError if they do not fit together;
    `what` names them."""
    for part, tensor in parts.items():
        if tensor.dtype not in _DTYPES[part] or tensor.ndim != 2:
            kind = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            raise odd(what, f"its {part or 'steps'} are {kind}")
    steps, scales, minima = parts[""], parts["scales"], parts.get("minima")
    _check_zeros(what, bits, parts.get("zeros"))
    groups = max(scales.shape[1], 1)
    try:
        return Grouped(
            bits,
            steps.shape[1] * 8 // bits // groups,
            steps,
            scales.float(),
            parts.get("zeros"),
            None if minima is None else minima.float(),
        )
    except ValueError as error:
        raise odd(what, str(error)) from error


def _check_zeros(what: str, bits: int, zeros: Tensor | None) -> None:
    """Each is a step; others are lost where kernels pack them."""
    most = 0 if zeros is None or not zeros.numel() else int(zeros.max())
    if most >= 2**bits:
        raise odd(what, f"a zero point is {most}, and its steps end at {2**bits - 1}")
