"""A layer whose weights are in groups, in two graphs around its attention."""

from collections.abc import Sequence

from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.attention import CachedRows
from gardener.model.kernels.onnx_graph import spoiled
from gardener.model.kernels.onnx_halves import GroupedLayer, after_attention, before_attention
from gardener.model.look_back import LookBack
from gardener.model.rotary import Rotations


class FusedBlock:
    """As `block.Block`, of which it may differ in the last bits: numbers stay in float32 between
    its operations, whatever the dtype of the hidden states."""

    def __init__(
        self,
        architecture: Architecture,
        layer: GroupedLayer,
        look: LookBack,
        rope: int | None = 0,
    ) -> None:
        """`rope`: which rotary embedding it has; None: none. Raises UserError if ONNX Runtime is
        not installed."""
        self._look, self._rope = look, rope
        self._head_dim = architecture.head_dim
        rotated = None if rope is None else architecture.rotated(architecture.ropes[rope])
        self._before = before_attention(architecture, layer, rotated)
        self._after = after_attention(architecture, layer)
        self.nbytes = self._before.nbytes + self._after.nbytes
        self.spread = max(self._before.spread, self._after.spread)

    def __call__(self, x: Tensor, rotations: Rotations, spans: Sequence[CachedRows]) -> Tensor:
        """See `block.Layer`."""
        turns = () if self._rope is None else rotations[self._rope].halves
        qk, v = (self._heads(made, x) for made in self._before(x, *turns))
        seen = self._look(qk, v, spans)
        (y,) = self._after(seen, x)
        return spoiled(y, seen).to(x.dtype)

    def _heads(self, made: Tensor, x: Tensor) -> Tensor:
        """[rows, heads * head_dim] to [rows, heads, head_dim], of the dtype of x."""
        return made.to(x.dtype).view(len(x), -1, self._head_dim)
