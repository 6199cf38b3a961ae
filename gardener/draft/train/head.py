"""The head to train: one Llama layer in the form of EAGLE-3, with gradients.

    g     = fc(feature)                        where the feature is the target's
    g     = the row's own output before        where there is none yet
    qkv   reads [norm(embedding); norm(g)], the residual stream starts from g
    guess = the target's own output matrix, only the rows of the draft vocabulary, over norm(output)

Li et al. 2025 (EAGLE-3), with the training-time test: `unrolled` runs the layer on its own outputs
as drafting will. The output matrix is borrowed and stays as it is: that is less to learn, to store
and to send, and outputs stay in the space in which the target's features live.

Induction heads (`induction` groups of them, the last ones) look for earlier places where the text
was as it is now: their keys are those of the row before, so that what they find is the row of the
token that followed there (Olsson et al. 2022). One layer alone could not repeat anything: it would
find the place, but not what came after it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gardener.model.architecture import Architecture
from gardener.model.norm import rms_norm
from gardener.model.rotary import Rotation, rotate

_PER_HEAD = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")

_AT_ONCE = 512
"""Rows whose logits are in memory at a time."""


class _Norm(nn.Module):
    """The norm of the stages, with a weight to train."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self._eps)


class DraftHead(nn.Module):
    """Parameters are named as in published EAGLE-3 checkpoints. `induction`: key heads, each with
    as many query heads as the others, beyond those of `shape`."""

    def __init__(self, shape: Architecture, taps: int, inner: int, induction: int = 0) -> None:
        super().__init__()
        width, size = shape.width, shape.head_dim
        self.kv_heads = shape.kv_heads + induction
        self.heads = shape.heads // shape.kv_heads * self.kv_heads
        queries, keys = self.heads * size, self.kv_heads * size
        self.shape, self.taps, self.inner, self.induction = shape, taps, inner, induction

        def linear(inputs: int, outputs: int) -> nn.Linear:
            layer = nn.Linear(inputs, outputs, bias=False)
            nn.init.normal_(layer.weight, std=inputs**-0.5)
            return layer

        def norm() -> _Norm:
            return _Norm(width, shape.eps)

        self.fc = linear(taps * width, width)
        with torch.no_grad():  # from the last tap alone, for a start: the nearest to the output
            self.fc.weight.zero_()
            self.fc.weight[:, -width:] = torch.eye(width)
        attention = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
        self.midlayer: Any = nn.ModuleDict(  # typed as what it is, it could not be indexed twice
            {
                "input_layernorm": norm(),
                "hidden_norm": norm(),
                "post_attention_layernorm": norm(),
                "self_attn": nn.ModuleDict(
                    {name: linear(2 * width, rows) for name, rows in attention.items()}
                    | {"o_proj": linear(queries, width)}
                ),
                "mlp": nn.ModuleDict(
                    {
                        "gate_proj": linear(width, inner),
                        "up_proj": linear(width, inner),
                        "down_proj": linear(inner, width),
                    }
                ),
            }
        )
        self.norm = norm()
        layers: Any = self.midlayer
        for layer in (layers["self_attn"]["o_proj"], layers["mlp"]["down_proj"]):
            nn.init.zeros_(layer.weight)  # the layer begins as the identity
        self._look_for_the_same()

    def _look_for_the_same(self) -> None:
        """Induction heads begin with queries that ask for what is like the row itself."""
        attention = self.midlayer["self_attn"]
        size, first = self.shape.head_dim, self.shape.heads * self.shape.head_dim
        with torch.no_grad():
            keys = attention["k_proj"].weight[self.shape.kv_heads * size :]
            group = self.heads // self.kv_heads
            attention["q_proj"].weight[first:] = (
                keys.unflatten(0, (-1, 1, size)).expand(-1, group, -1, -1).flatten(0, 2)
            )

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Parameters of a head with as many induction heads, or fewer: the others stay as they are.

        Raises KeyError and RuntimeError where they are not of such a head.
        """
        own = self.state_dict()
        grown = {}
        for name, tensor in tensors.items():
            whole = own[name]
            if name.endswith(_PER_HEAD) and tensor.shape != whole.shape:
                whole = whole.clone()
                whole[tuple(slice(n) for n in tensor.shape)] = tensor
                tensor = whole
            grown[name] = tensor
        self.load_state_dict(grown)

    def unrolled(
        self,
        embedded: Tensor,
        features: Tensor,
        cos: Tensor,
        sin: Tensor,
        steps: int,
        further: Tensor,
    ) -> Iterator[Tensor]:
        """Outputs, after the last norm, of `steps` passes, each on the outputs of the one before.

        embedded  [texts, rows + steps - 1, width], row i of the token after feature i
        features  [texts, rows, taps * width] of the target
        cos, sin  [rows + steps - 1, head_dim], from `Rotary`, by position
        further   [some] int64, the rows that take part in the passes after the first

        Pass k computes for row i what a drafter would that has true features up to i only and has
        drafted k tokens since, which happened to be the right ones: it stands k places further, and
        sees the first pass up to row i and the k passes since of row i itself.
        """
        rows = features.shape[1]
        at = torch.arange(rows, device=features.device)
        g = self.fc(features)
        causal = torch.full((rows, rows), -torch.inf, device=g.device).triu_(1)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        before = None
        for k in range(steps):
            if k == 1:
                at, g, causal = further, g[:, further], causal[further]
                before = before[:, :, further] if before is not None else None
            q, key, value, before = self._qkv(
                embedded[:, at + k], g, cos[at + k], sin[at + k], before
            )
            keys.append(key)
            values.append(value)
            g = g + self.midlayer["self_attn"]["o_proj"](_see(q, keys, values, causal))
            mlp = self.midlayer["mlp"]
            x = self.midlayer["post_attention_layernorm"](g)
            g = g + mlp["down_proj"](F.silu(mlp["gate_proj"](x)) * mlp["up_proj"](x))
            yield self.norm(g)

    def _qkv(
        self, embedded: Tensor, g: Tensor, cos: Tensor, sin: Tensor, before: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, [texts, heads, rows, head_dim]; and the induction
        heads' keys for the rows that follow these. `before`: for these rows; None where each
        follows the one before it.
        """
        layer, attention = self.midlayer, self.midlayer["self_attn"]
        both = torch.cat((layer["input_layernorm"](embedded), layer["hidden_norm"](g)), -1)
        size = self.shape.head_dim
        q, k, v = (_split(attention[name](both), size) for name in ("q_proj", "k_proj", "v_proj"))
        own = k[:, self.shape.kv_heads :]
        if before is None:
            before = F.pad(own[:, :, :-1], (0, 0, 1, 0))
        k = torch.cat((k[:, : self.shape.kv_heads], before), 1)
        rotation = Rotation(cos, sin)
        return rotate(q, rotation), rotate(k, rotation), v, own


def induction_of(tensors: Mapping[str, Tensor], shape: Architecture) -> int:
    """How many groups of induction heads a head with these parameters has. Raises KeyError."""
    return len(tensors["midlayer.self_attn.k_proj.weight"]) // shape.head_dim - shape.kv_heads


def _split(x: Tensor, size: int) -> Tensor:
    """[texts, rows, heads * size] to [texts, heads, rows, size]."""
    return x.view(*x.shape[:2], -1, size).transpose(1, 2)


def _see(q: Tensor, keys: list[Tensor], values: list[Tensor], causal: Tensor) -> Tensor:
    """Attention of queries [texts, heads, rows, head_dim] over the first keys, as far as `causal`
    lets them, and over the later ones each row of its own; [texts, rows, heads * head_dim]."""
    texts, heads, rows, size = q.shape
    group, first_rows = heads // keys[0].shape[1], keys[0].shape[2]
    q = q.reshape(texts, -1, group, rows, size) * size**-0.5
    first = (q.flatten(2, 3) @ keys[0].transpose(-1, -2)).view(*q.shape[:-1], first_rows)
    scores = [first.float() + causal]
    scores += [(q * key[:, :, None]).sum(-1, keepdim=True).float() for key in keys[1:]]
    weights = torch.softmax(torch.cat(scores, -1), -1).to(q.dtype)
    seen = (weights[..., :first_rows].flatten(2, 3) @ values[0]).view(q.shape)
    for step, value in enumerate(values[1:]):
        seen = seen + weights[..., first_rows + step, None] * value[:, :, None]
    return seen.flatten(1, 2).transpose(1, 2).reshape(texts, rows, heads * size)


class _Borrowed(torch.autograd.Function):
    """Cross-entropy against soft targets through a matrix that is not trained.

    The gradient is computed with the loss, so that logits over the vocabulary, by far the largest
    tensors of training, are gone when this returns.
    """

    @staticmethod
    def forward(ctx, rows, matrix, targets, weights):  # type: ignore[no-untyped-def]
        parts = [t.split(_AT_ONCE) for t in (rows, targets, weights)]
        done = [_value_and_slope(r, matrix, t, w) for r, t, w in zip(*parts, strict=True)]
        ctx.save_for_backward(torch.cat([slope for _, slope in done]))
        return torch.stack([loss for loss, _ in done]).sum()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None, None


def _value_and_slope(
    rows: Tensor, matrix: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss, and its gradient by `rows`."""
    logits = F.linear(rows, matrix).float()
    total = torch.logsumexp(logits, -1, keepdim=True)
    loss = ((total.squeeze(-1) - (targets * logits).sum(-1)) * weights).sum()
    slope = logits.sub_(total).exp_().sub_(targets).mul_(weights[:, None])
    return loss, slope.to(rows.dtype) @ matrix


def cross_entropy(rows: Tensor, matrix: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Sum over rows of weight times cross-entropy.

    rows [n, width], matrix [vocab, width], targets [n, vocab] float32 that sum to one, weights [n].
    """
    loss: Tensor = _Borrowed.apply(rows, matrix, targets, weights)  # type: ignore[no-untyped-call]
    return loss
