"""Rotary embedding: one row of cosines and sines per position, computed once.

The frequencies are transformers' own (`ROPE_INIT_FUNCTIONS`). Two kinds of scaling, dynamic NTK and
longrope, change all frequencies as the text grows, so that in transformers a key depends on how the
text was cut into forward passes. Here the frequencies of a row are a function of its own position
only: those that transformers uses when it decodes token by token. So the text does not depend on
how rows were cut into segments; on a prompt longer than the original context it may differ from a
transformers run that computes the prompt in one piece.
"""

from functools import cache

import torch
from torch import Tensor

from gardener.errors import UserError
from gardener.model.architecture import Architecture

SCALINGS = ("default", "linear", "llama3", "yarn", "dynamic", "longrope")

_STEP = 512  # positions by which the tables grow at least


class Rotary:
    """Tables of cosines and sines, [positions, head_dim], that grow as positions are asked for.

    The sines carry the sign of the rotation: `x * cos + swap_halves(x) * sin` rotates x.
    """

    def __init__(
        self, architecture: Architecture, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._architecture = architecture
        self._config = cache(architecture.config)
        self._kind = architecture.rope.get("rope_type", "default")
        if self._kind not in SCALINGS:
            raise UserError(f"rope scaling '{self._kind}' is not supported")
        self._dtype = dtype
        self._device = device
        self._cos = self._sin = torch.empty(0, architecture.head_dim, dtype=dtype, device=device)
        self._fixed = self._frequencies(None)

    def at(self, positions: Tensor, highest: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of int64 `positions` [rows], as [rows, 1, head_dim] each.

        `highest` is the largest of them; the tables grow to it.
        """
        known = len(self._cos)
        if highest >= known:
            self._grow(known, max(highest + 1, known + _STEP, min(2 * known, known + 8 * _STEP)))
        return self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)

    @property
    def sound(self) -> bool:
        """Whether these are numbers, and as many as the heads need."""
        # Factors of longrope are used beyond the original context only, when it is too late.
        factors = (self._architecture.rope.get(key) for key in ("short_factor", "long_factor"))
        lengths = {len(each) for each in factors if each} - {self._architecture.head_dim // 2}
        first = torch.stack(self.at(torch.tensor([1], device=self._device), 1))
        return bool(first.isfinite().all()) and not lengths

    def _grow(self, first: int, end: int) -> None:
        angles, scale = self._angles(first, end)
        cos, sin = angles.cos() * scale, angles.sin() * scale
        cos, sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        self._cos = torch.cat((self._cos, cos.to(self._device, self._dtype)))
        self._sin = torch.cat((self._sin, sin.to(self._device, self._dtype)))

    def _angles(self, first: int, end: int) -> tuple[Tensor, float]:
        """Angles [end - first, head_dim / 2] in float32, and the factor on their cos and sin."""
        positions = torch.arange(first, end)
        frequencies, scale = self._fixed
        limit = self._limit()
        if limit is None or end <= limit:
            return positions[:, None].float() * frequencies, scale
        rows = [
            frequencies if p < limit else self._frequencies(p + 1)[0] for p in range(first, end)
        ]
        return positions[:, None].float() * torch.stack(rows), scale

    def _limit(self) -> int | None:
        """Positions from here on have frequencies of their own; None: there are none that do."""
        if self._kind == "dynamic":
            return int(self._config().max_position_embeddings)
        if self._kind == "longrope":
            return int(self._architecture.rope["original_max_position_embeddings"])
        return None

    def _frequencies(self, length: int | None) -> tuple[Tensor, float]:
        """Frequencies [head_dim / 2] for a text of this length, and the factor on cos and sin."""
        if self._kind == "default":
            steps = torch.arange(0, self._architecture.head_dim, 2, dtype=torch.float)
            return 1.0 / (
                self._architecture.rope["rope_theta"] ** (steps / self._architecture.head_dim)
            ), 1.0
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # late: takes seconds

        frequencies, scale = ROPE_INIT_FUNCTIONS[self._kind](
            self._config(), torch.device("cpu"), seq_len=length
        )
        return frequencies.float(), float(scale)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads [rows, heads, head_dim] by tables from `Rotary.at`."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
