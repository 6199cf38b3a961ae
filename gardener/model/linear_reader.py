"""Read linear layers from a checkpoint, each brought into its final form before the next is read.

What is to be in 4 or 8 bits by groups (`quants.GROUPED`) goes in as it is, if the checkpoint has it
so. Else every part of a layer is rounded on its own, from the numbers that are stored: no layer is
there as a whole in a float type, but on a device that has no kernel for it, see `grouped_device`.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gardener.errors import UserError
from gardener.model.checkpoint.tensors import Checkpoint
from gardener.model.finite import in_dtype
from gardener.model.kernels import machine
from gardener.model.kernels.bitsandbytes_linear import quantised
from gardener.model.kernels.grouped import Grouped
from gardener.model.kernels.grouped_device import on_device
from gardener.model.kernels.grouped_linear import grouped_linear, runs
from gardener.model.kernels.interface import Linear, Make
from gardener.model.kernels.linear import linear
from gardener.model.kernels.onnx_graph import GroupedAffine
from gardener.model.kernels.rounding import rounded
from gardener.model.quants import GROUPED, GROUPS, QUANTS, fitting_group


class LinearReader:
    """Linear layers of a checkpoint, quantised or not.

    read    the names of all tensors that were read
    spread  the largest one of the layers that were built, see `kernels.interface.Linear`
    few     whether a layer takes less time, on a device, in passes of `sizes.FEW` rows
    """

    def __init__(
        self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, quant: str
    ) -> None:
        """`dtype` of the rows, and of weights that are not quantised; `quant`: a kind in
        `quants.QUANTS`. Raises UserError for an unknown kind."""
        self._checkpoint, self._dtype, self._device = checkpoint, dtype, device
        self._quant = quant
        self.read: set[str] = set()
        self.spread, self.few = 0.0, False
        self._widened = self._all = 0  # weights on a device
        self._own = machine.has_own_kernels(device)
        if self._own and dtype == torch.float32:
            machine.forbid_tf32(device)
        if quant not in QUANTS:
            raise UserError(f"quant '{quant}' is not one of {', '.join(QUANTS)}")
        self._make: Make = linear if quant in GROUPED or quant == "none" else quantised(quant)

    @property
    def remark(self) -> str | None:
        """What its user should know of weights that are in groups, but not on this device."""
        if not self._widened:
            return None
        part = "all" if self._widened == self._all else f"{self._widened / self._all:.0%} of the"
        dtype = str(self._dtype).removeprefix("torch.")
        return (
            f"{part} {self._all / 1e6:.3g} million weights in {self._quant} were widened to {dtype}"
            f", and take its memory: {self._device.type} has no kernel for them"
        )

    def fused(self, parts: Mapping[str, int], inputs: int, bias: bool) -> Linear:
        """One layer out of several that read the same rows: outputs by name."""
        shapes = {f"{name}.weight": (size, inputs) for name, size in parts.items()}
        biases = {f"{name}.bias": (size,) for name, size in parts.items()} if bias else {}
        whole_bias = self._together(biases) if biases else None
        if self._quant in GROUPED:
            found = [self._grouped(name, shape) for name, shape in shapes.items()]
            return self._in_groups(next(iter(shapes)), found, whole_bias)
        return self._tried(self._make(self._together(shapes), whole_bias))

    def grouped(self, parts: Mapping[str, int], inputs: int, bias: bool) -> GroupedAffine:
        """The same, of weights in groups, as what a larger graph is made of."""
        shapes = {f"{name}.weight": (size, inputs) for name, size in parts.items()}
        biases = {f"{name}.bias": (size,) for name, size in parts.items()} if bias else {}
        found = [self._grouped(name, shape) for name, shape in shapes.items()]
        return GroupedAffine(runs(found), self._together(biases) if biases else None)

    def one_of(self, count: int, number: int, name: str, shape: tuple[int, int]) -> Linear:
        """From a tensor that holds the weights of `count` layers, as transformers can store those
        of experts."""
        self.read.add(name)
        weight = self._checkpoint.read(name, (count, *shape))[number]
        if self._quant in GROUPED:
            return self._in_groups(name, [self._rounded(name, weight)], None)
        return self._tried(self._make(in_dtype(name, weight, self._device, self._dtype), None))

    def matrix(self, name: str, shape: tuple[int, int], stored: Callable[[], Tensor]) -> Linear:
        """A layer of its own, which others have the weights of, too: `stored` gives them as they
        are stored."""
        if self._quant in GROUPED:
            found = self._checkpoint.grouped(name, self._quant, shape)
            found = found or self._rounded(name, stored())
            return self._in_groups(name, [found], None)
        return self._tried(self._make(in_dtype(name, stored(), self._device, self._dtype), None))

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """In the stage's dtype and on its device."""
        self.read.add(name)
        return in_dtype(name, self._checkpoint.read(name, shape), self._device, self._dtype)

    def _in_groups(self, name: str, parts: Sequence[Grouped], bias: Tensor | None) -> Linear:
        """One layer; `name`: of the first part."""
        if not self._own:
            return self._tried(grouped_linear(parts, bias))
        made = on_device(name, parts, bias, self._dtype, self._device)
        self._all += sum(math.prod(part.shape) for part in parts)
        self._widened += made.widened
        self.few = self.few or made.few
        return self._tried(made.layer)

    def _tried(self, layer: Linear) -> Linear:
        self.spread = max(self.spread, layer.spread)
        return layer

    def _grouped(self, name: str, shape: tuple[int, int]) -> Grouped:
        self.read.add(name)
        found = self._checkpoint.grouped(name, self._quant, shape)
        return found or self._rounded(name, self._checkpoint.read(name, shape))

    def _rounded(self, name: str, stored: Tensor) -> Grouped:
        """Raises UserError for weights that no group divides."""
        inputs = stored.shape[1]
        group = fitting_group(inputs)
        if group is None:
            raise UserError(
                f"{name} has {inputs} inputs, and --quant {self._quant} takes multiples of "
                f"{min(GROUPS)}: take nf4, or no --quant"
            )
        whole = in_dtype(name, stored, torch.device("cpu"), stored.dtype)
        return rounded(whole, GROUPED[self._quant], group)

    def _together(self, shapes: Mapping[str, tuple[int, ...]]) -> Tensor:
        parts = [self.tensor(name, shape) for name, shape in shapes.items()]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
