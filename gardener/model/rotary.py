"""Rotary embedding: one row of cosines and sines per position, computed once.

The frequencies are transformers' own (`ROPE_INIT_FUNCTIONS`). Two kinds of scaling, dynamic NTK and
longrope, change all frequencies as the text grows, so that in transformers a key depends on how the
text was cut into forward passes. Here the frequencies of a row are a function of its own position
only: those that transformers uses when it decodes token by token. So the text does not depend on
how rows were cut into segments; on a prompt longer than the original context it may differ from a
transformers run that computes the prompt in one piece.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.device.events import keep_until_read

SCALINGS = ("default", "linear", "llama3", "yarn", "dynamic", "longrope", "factors")
"""Kinds of scaling. `factors` is what GGUF files have: each frequency divided by its own factor."""

_FACTORS = {"longrope": ("short_factor", "long_factor"), "factors": ("factors",)}
"""Settings with a number for each frequency, by the kind of scaling."""

_STEP = 512  # positions by which the tables grow at least


@dataclass(frozen=True, eq=False)
class Rotation:
    """Cosines and sines of the rows of a pass, [rows, 1, rotated] each. The sines carry the sign
    of the rotation: `x * cos + swap_halves(x) * sin` rotates x."""

    cos: Tensor
    sin: Tensor

    @cached_property
    def halves(self) -> tuple[Tensor, Tensor]:
        """The same as others take it: cosines and sines of the angles, [rows, rotated / 2] in
        float32. For all layers of a pass at once."""
        half = self.cos.shape[-1] // 2
        cos, sin = (each[:, 0, half:].float().contiguous() for each in (self.cos, self.sin))
        return cos, sin


Rotations: TypeAlias = Sequence[Rotation]
"""One for each rotary embedding of a model, see `Architecture.ropes`."""


class Rotary:
    """All rotary embeddings of a model."""

    def __init__(
        self, architecture: Architecture, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Raises UserError for a scaling that is not known."""
        self._tables = [RotaryTable(architecture, r, dtype, device) for r in architecture.ropes]

    def at(self, positions: Tensor, highest: int) -> Rotations:
        """Of int64 `positions` [rows], whose largest is `highest`."""
        return [table.at(positions, highest) for table in self._tables]

    def reserve(self, positions: int) -> bool:
        """Make the tables long enough for so many positions. Whether one had to grow: what was
        read stands elsewhere then."""
        grown = [table.reserve(positions) for table in self._tables]
        return any(grown)

    def rows(self, positions: Tensor) -> Rotations:
        """Of int64 `positions` [rows], for which there is room."""
        return [table.rows(positions) for table in self._tables]

    @property
    def sound(self) -> bool:
        """Whether these are numbers, and as many as the heads need."""
        return all(table.sound for table in self._tables)


class RotaryTable:
    """Cosines and sines, [positions, rotated], that grow as positions are asked for.

    rotated: how many of the numbers of a head are rotated, the first ones.
    """

    def __init__(
        self,
        architecture: Architecture,
        rope: Mapping[str, Any],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._architecture, self._rope = architecture, rope
        self._rotated = architecture.rotated(rope)
        self._kind = rope.get("rope_type", "default")
        if self._kind not in SCALINGS:
            raise UserError(f"rope scaling '{self._kind}' is not supported")
        self._dtype, self._device = dtype, device
        self._cos = self._sin = torch.empty(0, self._rotated, dtype=dtype, device=device)
        self._fixed = self._frequencies(None)

    def at(self, positions: Tensor, highest: int) -> Rotation:
        """See `Rotary.at`. The tables grow to `highest`."""
        self.reserve(highest + 1)
        return self.rows(positions)

    def reserve(self, positions: int) -> bool:
        """See `Rotary.reserve`."""
        known = len(self._cos)
        if positions <= known:
            return False
        self._grow(known, max(positions, known + _STEP, min(2 * known, known + 8 * _STEP)))
        return True

    def rows(self, positions: Tensor) -> Rotation:
        """See `Rotary.rows`."""
        cos, sin = (table.index_select(0, positions) for table in (self._cos, self._sin))
        return Rotation(cos.unsqueeze(1), sin.unsqueeze(1))

    @property
    def sound(self) -> bool:
        """See `Rotary.sound`."""
        # Factors of longrope are used beyond the original context only, when it is too late; a
        # single factor would be taken for all frequencies.
        keys = _FACTORS.get(self._kind, ())
        lengths = {len(self._rope[key]) for key in keys} - {self._rotated // 2}
        found = self.at(torch.tensor([1], device=self._device), 1)
        first = torch.stack((found.cos, found.sin))
        return bool(first.isfinite().all()) and not lengths

    def _grow(self, first: int, end: int) -> None:
        angles, scale = self._angles(first, end)
        cos, sin = angles.cos() * scale, angles.sin() * scale
        cos, sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        self._cos = self._longer(self._cos, cos)
        self._sin = self._longer(self._sin, sin)

    def _longer(self, table: Tensor, more: Tensor) -> Tensor:
        keep_until_read(table)
        return torch.cat((table, more.to(self._device, self._dtype)))

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
            return self._architecture.trained
        if self._kind == "longrope":
            return int(self._rope["original_max_position_embeddings"])
        return None

    def _frequencies(self, length: int | None) -> tuple[Tensor, float]:
        """Frequencies [rotated / 2] for a text of this length, and the factor on cos and sin."""
        if self._kind in ("default", "factors"):
            steps = torch.arange(0, self._rotated, 2, dtype=torch.float)
            frequencies = 1.0 / (self._rope["rope_theta"] ** (steps / self._rotated))
            if self._kind == "factors":
                frequencies /= torch.tensor(self._rope["factors"])
            return frequencies, 1.0
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # late: takes seconds

        config: Any = SimpleNamespace(
            rope_parameters=dict(self._rope),
            standardize_rope_params=lambda: None,
            head_dim=self._architecture.head_dim,
            hidden_size=self._architecture.width,
            num_attention_heads=self._architecture.heads,
            max_position_embeddings=self._architecture.trained,
        )
        frequencies, scale = ROPE_INIT_FUNCTIONS[self._kind](
            config, torch.device("cpu"), seq_len=length
        )
        return frequencies.float(), float(scale)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate heads [rows, heads, head_dim]."""
    cos, sin = rotation.cos, rotation.sin
    rotated = cos.shape[-1]
    if rotated < x.shape[-1]:
        return torch.cat((rotate(x[..., :rotated], rotation), x[..., rotated:]), -1)
    return (x * cos).addcmul_(x.roll(rotated // 2, -1), sin)
