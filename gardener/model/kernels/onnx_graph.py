"""Graphs for ONNX Runtime, put together operation by operation, with the weights beside them.

Rows go in and rows come out, in float32.
"""

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.errors import UserError
from gardener.model.finite import is_finite
from gardener.model.kernels.grouped import Grouped

_INTEGER_SUMS = 4  # what ONNX Runtime calls `accuracy_level`
_OPSET, _IR = 17, 9  # versions of ONNX: old ones, which every later package reads
_EXTENSION = "com.microsoft"


@dataclass(frozen=True, eq=False)
class GroupedAffine:
    """A linear layer in groups: weights that read the same rows, whose outputs stand one after the
    other, and their common bias [outputs]."""

    parts: Sequence[Grouped]
    bias: Tensor | None = None


class OnnxRun:
    """A finished graph. ONNX Runtime brings the steps of its weights into an order of its own and
    lets go of the source.

    form    what is the same for graphs of the same operations and shapes alone
    nbytes  of the weights. Of scales it keeps three: as they were given, in its order, and
            multiplied with the zero points
    """

    def __init__(
        self, session: Any, inputs: Sequence[str], outputs: Sequence[str], form: str, nbytes: int
    ) -> None:
        self._session, self._inputs, self._outputs = session, inputs, outputs
        self.form, self.nbytes = form, nbytes

    def __call__(self, *rows: Tensor) -> list[Tensor]:
        """From inputs to outputs, in float32, in the order in which they were named."""
        given = {
            name: each.float().contiguous().numpy()
            for name, each in zip(self._inputs, rows, strict=True)
        }
        return [torch.from_numpy(made) for made in self._session.run(self._outputs, given)]


class OnnxGraph:
    """A graph that grows. What its methods return is the name of a value in it."""

    def __init__(self, **inputs: int) -> None:
        """How wide the rows are that it reads, [n, width] each. Raises UserError if ONNX or its
        runtime are not installed."""
        self._onnx, self._ort = package("onnx"), package("onnxruntime")
        self._inputs = inputs
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._weights: dict[str, np.ndarray[Any, Any]] = {}
        self._numbers = count()
        self._twice = 0  # bytes that the runtime holds beside the weights that it is given

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """An operation of one result."""
        (made,) = self.ops(kind, 1, *inputs, **attributes)
        return made

    def ops(
        self, kind: str, results: int, *inputs: str, domain: str = "", **attributes: Any
    ) -> list[str]:
        """An operation of several results."""
        made = [self._name() for _ in range(results)]
        node = self._onnx.helper.make_node(kind, inputs, made, domain=domain, **attributes)
        self._nodes.append(node)
        return made

    def extension(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """An operation that ONNX Runtime has beyond those of ONNX."""
        return self.op(kind, *inputs, domain=_EXTENSION, **attributes)

    def ints(self, *values: int) -> str:
        """A constant [values]."""
        kind = self._onnx.TensorProto.INT64
        name = self._name()
        self._constants.append(self._onnx.helper.make_tensor(name, kind, [len(values)], values))
        return name

    def weight(self, value: Tensor) -> str:
        """A constant that is held beside the graph: uint8, or brought to float32."""
        kinds = self._onnx.TensorProto
        kind = kinds.UINT8 if value.dtype == torch.uint8 else kinds.FLOAT
        if kind == kinds.FLOAT:
            value = value.float()
        name = self._name()
        stated = kinds(name=name, data_type=kind, dims=value.shape, data_location=kinds.EXTERNAL)
        stated.external_data.add(key="location", value=name)
        self._constants.append(stated)
        self._weights[name] = value.contiguous().numpy()
        return name

    def linear(self, rows: str, layer: GroupedAffine) -> str:
        """Rows [n, inputs] to [n, outputs of all parts]."""
        made = [self._product(rows, part) for part in layer.parts]
        whole = made[0] if len(made) == 1 else self.op("Concat", *made, axis=-1)
        return whole if layer.bias is None else self.op("Add", whole, self.weight(layer.bias))

    def _product(self, rows: str, weight: Grouped) -> str:
        outputs, inputs = weight.shape
        groups = inputs // weight.group
        self._twice += 2 * weight.scales.nbytes
        parts = [
            weight.steps.view(outputs, groups, -1),
            weight.scales.flatten(),
            *([] if weight.zeros is None else [_packed_zeros(weight, weight.zeros).flatten()]),
        ]
        made = self.extension(
            "MatMulNBits",
            rows,
            *map(self.weight, parts),
            K=inputs,
            N=outputs,
            bits=weight.bits,
            block_size=weight.group,
            accuracy_level=_INTEGER_SUMS,
        )
        if weight.minima is None:
            return made
        # Each one times the sum of its group of the row.
        by_group = self.op("Reshape", rows, self.ints(0, groups, weight.group))
        sums = self.op("ReduceSum", by_group, self.ints(2), keepdims=0)
        return self.op("Add", made, self.op("MatMul", sums, self.weight(weight.minima.T)))

    def run(self, **outputs: str) -> OnnxRun:
        """What computes these values, named so, [n, anything]."""
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        called = {value: name for name, value in outputs.items()}
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [called.get(name, name) for name in names]
        graph = helper.make_graph(
            self._nodes,
            "rows",
            [
                helper.make_tensor_value_info(name, kinds.FLOAT, ["n", width])
                for name, width in self._inputs.items()
            ],
            [helper.make_tensor_value_info(name, kinds.FLOAT, None) for name in outputs],
            self._constants,
        )
        versions = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_EXTENSION, 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=_IR)
        nbytes = sum(value.nbytes for value in self._weights.values()) + self._twice
        stated = model.SerializeToString()  # without the weights
        form = hashlib.sha256(stated).hexdigest()[:16]
        return OnnxRun(self._session(stated), list(self._inputs), list(outputs), form, nbytes)

    def _session(self, graph: bytes) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3  # errors
        # Threads of its own, which sleep in between. There is a common pool for all sessions, but
        # its threads spin for a while after each one, on cores that torch and other stages want.
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        values = [self._ort.OrtValue.ortvalue_from_numpy(each) for each in self._weights.values()]
        options.add_external_initializers(list(self._weights), values)
        return self._ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def _name(self) -> str:
        return f"value{next(self._numbers)}"


def spoiled(made: Tensor, *rows: Tensor) -> Tensor:
    """What was made of rows [n, width], with no numbers where these are none: `MatMulNBits` leaves
    out a NaN among numbers of its group. Looked for in float16 alone, which overflows everywhere;
    in other dtypes only hidden states grow so large, and they stay what they are."""
    for each in rows:
        if each.dtype == torch.float16 and not is_finite(each):
            made = made + (each.float() * 0.0).sum(-1, keepdim=True)
    return made


def _packed_zeros(weight: Grouped, zeros: Tensor) -> Tensor:
    """As ONNX Runtime takes them: those of 4 bits two to a byte, an odd last one of an output with
    a byte of its own."""
    if weight.bits == 8:
        return zeros
    even = F.pad(zeros, (0, zeros.shape[1] % 2))
    return even[:, ::2] | even[:, 1::2] << 4


def package(name: str) -> Any:
    """onnx or onnxruntime. Raises UserError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"--quant int4 and int8 need the package {name}: pip install 'gardener-node[quant]'"
        ) from error
