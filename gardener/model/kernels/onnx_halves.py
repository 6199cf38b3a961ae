"""The two halves of a layer around its attention, each as one graph of ONNX Runtime.

Between two attentions everything is done row by row: norms, linear layers, the gate, the rotation.
As separate operations these take as long as the linear layers of a small model themselves, one row
at a time: 95 microseconds, where the two graphs take 60 (width 576, inner 1536, one thread).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.kernels.onnx_graph import GroupedAffine, OnnxGraph
from gardener.model.kernels.row_run import RowRun, tried


@dataclass(frozen=True, eq=False)
class GroupedLayer:
    """The weights of a layer in groups. q, k and v are one linear layer, and so are gate and up.
    norms: by their fields in `block.BlockWeights`."""

    qkv: GroupedAffine
    out: GroupedAffine
    gate_up: GroupedAffine
    down: GroupedAffine
    norms: Mapping[str, Tensor]


def before_attention(
    architecture: Architecture, layer: GroupedLayer, rotated: int | None
) -> RowRun:
    """Hidden states [n, width] to queries and keys [n, (heads + kv_heads) * head_dim], and values
    [n, kv_heads * head_dim].

    rotated: how many numbers of a head are rotated; the cosines and sines of the rows [n, rotated /
    2] are read, too, then. None: they are not.
    """
    s = architecture
    half = {} if rotated is None else dict.fromkeys(("cosines", "sines"), rotated // 2)
    graph = _Graph(s, layer.norms, hidden=s.width, **half)
    queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
    both = graph.linear(graph.normed("hidden", "attention_norm"), layer.qkv)
    qk, v = graph.ops("Split", 2, both, graph.ints(queries + keys, keys), axis=-1)
    if "q_norm" in layer.norms:
        q, k = graph.ops("Split", 2, qk, graph.ints(queries, keys), axis=-1)
        q, k = graph.normed_heads(q, "q_norm"), graph.normed_heads(k, "k_norm")
        qk = graph.op("Concat", q, k, axis=-1)
    if rotated is not None:
        qk = graph.rotated(qk, rotated)
    read = [s.width, *half.values()]
    return tried(graph.run(queries_keys=qk, values=v), read, [queries + keys, keys])


def after_attention(architecture: Architecture, layer: GroupedLayer) -> RowRun:
    """What the queries have seen [n, heads * head_dim], and the hidden states [n, width] that
    entered the layer, to those that leave it."""
    s = architecture
    graph = _Graph(s, layer.norms, seen=s.heads * s.head_dim, hidden=s.width)
    out = graph.linear("seen", layer.out)
    x = graph.added("hidden", graph.normed(out, "out_norm"))
    both = graph.linear(graph.normed(x, "mlp_norm"), layer.gate_up)
    gate, up = graph.ops("Split", 2, both, graph.ints(s.inner, s.inner), axis=-1)
    made = graph.linear(graph.op("Mul", graph.activated(gate), up), layer.down)
    left = graph.added(x, graph.normed(made, "down_norm"))
    return tried(graph.run(left=left), [s.heads * s.head_dim, s.width], [s.width])


class _Graph(OnnxGraph):
    """With the operations of a layer."""

    def __init__(
        self, architecture: Architecture, norms: Mapping[str, Tensor], **inputs: int
    ) -> None:
        super().__init__(**inputs)
        self._architecture, self._norms = architecture, norms

    def normed(self, rows: str, field: str) -> str:
        """The last dimension, by the norm of this name, if the layer has one."""
        norm = self._norms.get(field)
        if norm is None:
            return rows
        eps = self._architecture.eps
        return self.op(
            "SimplifiedLayerNormalization", rows, self.weight(norm), axis=-1, epsilon=eps
        )

    def normed_heads(self, heads: str, field: str) -> str:
        """[n, heads * head_dim], each head for itself; a longer norm is one over all heads, as in
        OLMo 2."""
        size = self._architecture.head_dim
        if len(self._norms[field]) > size:
            return self.normed(heads, field)
        each = self.op("Reshape", heads, self.ints(0, -1, size))
        return self.op("Reshape", self.normed(each, field), self.ints(0, -1))

    def rotated(self, heads: str, rotated: int) -> str:
        """Queries and keys [n, (heads + kv_heads) * head_dim], by the inputs `cosines` and
        `sines`."""
        count = self._architecture.heads + self._architecture.kv_heads
        size = self._architecture.head_dim
        # As a text of n tokens, whose first one is at position 0 of tables of n positions.
        text = self.op("Reshape", heads, self.ints(1, -1, count * size))
        partial = {} if rotated == size else {"rotary_embedding_dim": rotated}
        turned = self.extension(
            "RotaryEmbedding",
            text,
            self.ints(0),
            "cosines",
            "sines",
            num_heads=count,
            **partial,
        )
        return self.op("Reshape", turned, self.ints(-1, count * size))

    def activated(self, gate: str) -> str:
        kind = self._architecture.activation
        if kind == "silu":
            return self.op("Mul", gate, self.op("Sigmoid", gate))
        if kind == "relu":
            return self.op("Relu", gate)
        if kind == "gelu":
            return self.extension("Gelu", gate)
        return self.extension("FastGelu", gate)

    def added(self, rows: str, more: str) -> str:
        scale = self._architecture.residual_scale
        if scale != 1.0:
            more = self.op("Mul", more, self.weight(torch.tensor([scale])))
        return self.op("Add", rows, more)
