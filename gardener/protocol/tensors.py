"""Tensors as they cross the wire."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]

DType: TypeAlias = Literal["float32", "bfloat16", "float16"]

ITEM_SIZE: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes per element of each dtype that may cross the wire."""


class Tensor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A tensor as it crosses the wire: raw little-endian bytes in C order."""

    dtype: DType
    shape: Annotated[tuple[Count, ...], Meta(max_length=4)]
    data: bytes

    def __post_init__(self) -> None:
        expected = ITEM_SIZE[self.dtype]
        for length in self.shape:
            expected *= length
        if len(self.data) != expected:
            raise ValueError(
                f"a {self.dtype} tensor of shape {self.shape} takes {expected} bytes, "
                f"got {len(self.data)}"
            )

    def take(self, rows: Sequence[int]) -> "Tensor":
        """The tensor with only these rows of its first dimension, in this order."""
        if not rows:
            return Tensor(self.dtype, (0, *self.shape[1:]), b"")
        first, end = rows[0], rows[0] + len(rows)
        run = list(rows) == list(range(first, end))
        if run and len(rows) == self.shape[0]:
            return self
        size = len(self.data) // self.shape[0]
        if run:
            data = self.data[first * size : end * size]
        else:
            data = b"".join(self.data[row * size : (row + 1) * size] for row in rows)
        return Tensor(self.dtype, (len(rows), *self.shape[1:]), data)
