"""Linear layers in 4 or 8 bits on the CPU, through ONNX Runtime's `MatMulNBits`.

A row is rounded to 8 bits a group on its way, and products are summed up in integers within a
group: instructions for that are on every x86 processor since AVX2, and on ARM. On one thread of an
AVX-512 machine, 2048 outputs of 8192 inputs in 4 bits, weights from memory: 0.35 / 0.9 / 1.4 ms for
1 / 4 / 8 rows.
"""

from torch import Tensor

from gardener.model.kernels.grouped import Grouped
from gardener.model.kernels.interface import UNTRIED
from gardener.model.kernels.onnx_graph import GroupedAffine, OnnxGraph, spoiled


class OnnxLinear:
    """Weights as `Grouped` has them, with a bias [outputs] or without one.

    Results are of the dtype of the rows; they are computed in float32. A row that is no number
    gives none, see `onnx_graph.spoiled`.
    """

    def __init__(self, weight: Grouped, bias: Tensor | None) -> None:
        """Raises UserError if ONNX Runtime is not installed."""
        graph = OnnxGraph(rows=weight.shape[1])
        products = graph.linear("rows", GroupedAffine([weight], bias))
        self._run = graph.run(products=products)
        self.nbytes = self._run.nbytes
        self.spread = UNTRIED

    def __call__(self, x: Tensor) -> Tensor:
        """Rows [n, inputs] to rows [n, outputs]."""
        (y,) = self._run(x)
        return spoiled(y, x).to(x.dtype)
