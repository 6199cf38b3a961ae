"""Linear layers in 4 or 8 bits on the CPU, through ONNX Runtime's `MatMulNBits`.

A row is rounded to 8 bits a group on its way, and products are summed up in integers within a
group: instructions for that are on every x86 processor since AVX2, and on ARM. On one thread of an
AVX-512 machine, 2048 outputs of 8192 inputs in 4 bits, weights from memory: 0.35 / 0.9 / 1.4 ms for
1 / 4 / 8 rows.
"""

import importlib
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.errors import UserError
from gardener.model.kernels.grouped import Grouped
from gardener.model.kernels.interface import UNTRIED

_INTEGER_SUMS = 4  # what ONNX Runtime calls `accuracy_level`
_OPSET, _IR = 17, 9  # versions of ONNX: old ones, which every later package reads


class _Form(NamedTuple):
    """What the graph of a layer depends on. The last three: whether it has some."""

    outputs: int
    inputs: int
    bits: int
    group: int
    zeros: bool
    minima: bool
    bias: bool

    @property
    def groups(self) -> int:
        """Of one output."""
        return self.inputs // self.group

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the weights that the graph takes, by name, in the order of the operation's inputs."""
        found: dict[str, tuple[int, ...]] = {
            "steps": (self.outputs, self.groups, self.group * self.bits // 8),
            "scales": (self.outputs * self.groups,),
        }
        if self.zeros:
            found["zeros"] = (self.outputs * ((self.groups * self.bits + 7) // 8),)
        if self.minima:
            found["minima"] = (self.groups, self.outputs)
        if self.bias:
            found["bias"] = (self.outputs,)
        return found


class OnnxLinear:
    """Weights as `Grouped` has them, with a bias [outputs] or without one.

    Results are of the dtype of the rows; they are computed in float32.

    ONNX Runtime brings the steps into an order of its own and lets go of the source. Of the scales
    it keeps three: as they were given, in its order, and multiplied with the zero points.
    """

    def __init__(self, weight: Grouped, bias: Tensor | None) -> None:
        """Raises UserError if ONNX Runtime is not installed."""
        given = {
            "steps": weight.steps,
            "scales": weight.scales.float(),
            "zeros": _packed_zeros(weight),
            "minima": None if weight.minima is None else weight.minima.float().T,
            "bias": None if bias is None else bias.float(),
        }
        form = _Form(
            *weight.shape,
            weight.bits,
            weight.group,
            *(given[name] is not None for name in ("zeros", "minima", "bias")),
        )
        values = {
            name: value.contiguous().numpy().reshape(form.shapes[name])
            for name, value in given.items()
            if value is not None
        }
        self._session = _session(_graph(form), values)
        self.spread = UNTRIED
        self.nbytes = sum(value.nbytes for value in values.values()) + 2 * weight.scales.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Rows [n, inputs] to rows [n, outputs]."""
        (y,) = self._session.run(None, {"rows": x.float().contiguous().numpy()})
        return torch.from_numpy(y).to(x.dtype)


def _packed_zeros(weight: Grouped) -> Tensor | None:
    """As ONNX Runtime takes them: those of 4 bits two to a byte, an odd last one of an output with
    a byte of its own."""
    if weight.zeros is None or weight.bits == 8:
        return weight.zeros
    even = F.pad(weight.zeros, (0, weight.zeros.shape[1] % 2))
    return even[:, ::2] | even[:, 1::2] << 4


def _session(graph: bytes, values: dict[str, np.ndarray[Any, Any]]) -> Any:
    """What runs the graph with these weights."""
    ort = package("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors
    # Threads of its own, which sleep in between. There is a common pool for all sessions, but its
    # threads spin for a while after each one, on cores that torch and other stages want.
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    weights = [ort.OrtValue.ortvalue_from_numpy(value) for value in values.values()]
    options.add_external_initializers(list(values), weights)
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@cache
def _graph(form: _Form) -> bytes:
    """An ONNX model: `rows` [n, inputs] to `products` [n, outputs], float32. Its weights are to be
    given beside it."""
    onnx = package("onnx")
    make, kinds = onnx.helper, onnx.TensorProto
    terms = [
        make.make_node(
            "MatMulNBits",
            ["rows", "steps", "scales", *(["zeros"] if form.zeros else [])],
            ["scaled"],
            domain="com.microsoft",
            K=form.inputs,
            N=form.outputs,
            bits=form.bits,
            block_size=form.group,
            accuracy_level=_INTEGER_SUMS,
        )
    ]
    constants = []
    last = "scaled"
    if form.minima:  # each one times the sum of its group of the row
        constants += [
            make.make_tensor("by_group", kinds.INT64, [3], [0, form.groups, form.group]),
            make.make_tensor("in_group", kinds.INT64, [1], [2]),
        ]
        terms += [
            make.make_node("Reshape", ["rows", "by_group"], ["grouped"]),
            make.make_node("ReduceSum", ["grouped", "in_group"], ["sums"], keepdims=0),
            make.make_node("MatMul", ["sums", "minima"], ["lifted"]),
            make.make_node("Add", [last, "lifted"], ["whole"]),
        ]
        last = "whole"
    if form.bias:
        terms.append(make.make_node("Add", [last, "bias"], ["biased"]))
    terms[-1].output[0] = "products"
    constants += [_outside(name, shape) for name, shape in form.shapes.items()]
    graph = make.make_graph(
        terms,
        "linear",
        [make.make_tensor_value_info("rows", kinds.FLOAT, ["n", form.inputs])],
        [make.make_tensor_value_info("products", kinds.FLOAT, ["n", form.outputs])],
        constants,
    )
    versions = [make.make_opsetid("", _OPSET), make.make_opsetid("com.microsoft", 1)]
    model = make.make_model(graph, opset_imports=versions, ir_version=_IR)
    done: bytes = model.SerializeToString()
    return done


def _outside(name: str, shape: tuple[int, ...]) -> Any:
    """A weight that is given beside the graph, not in it."""
    kinds = package("onnx").TensorProto
    kind = kinds.UINT8 if name in ("steps", "zeros") else kinds.FLOAT
    weight = kinds(name=name, data_type=kind, dims=shape, data_location=kinds.EXTERNAL)
    weight.external_data.add(key="location", value=name)
    return weight


def package(name: str) -> Any:
    """onnx or onnxruntime. Raises UserError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"--quant int4 and int8 need the package {name}: pip install 'gardener-node[quant]'"
        ) from error
