"""Quantised tensors of GGUF files as `Grouped` weights: the same numbers, never dequantised.

All types in which a number is scale * step + minimum, by groups, can be had so. Steps of at most 4
bits stay in 4 bits, others take 8. The layouts of blocks are those of `ggml-common.h`; what comes
out is held to the `gguf` package's own arithmetic by tests.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from gardener.model.checkpoint.grouped_parts import Layout
from gardener.model.kernels.grouped import Grouped

Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Parts: TypeAlias = tuple[Bytes, Floats, Floats | None]
"""Of blocks: steps, scales and minima, [blocks, ...] each."""

_AT_ONCE = 1 << 19
"""Numbers that a thread takes in one go: with what is made meanwhile, they fit into a cache."""

_NIBBLES = np.array([0, 4], np.uint16)[:, None]
_CRUMBS = np.array([0, 2, 4, 6], np.uint16)[:, None]
_BITS = np.arange(8, dtype=np.uint16)[:, None]


@dataclass(frozen=True)
class Form:
    """What tensors of a type become.

    block, size  numbers of a block, and its bytes
    layout       of what they become; where it has zeros, step 0 stands for 0
    """

    block: int
    size: int
    layout: Layout
    take: Callable[[Bytes], Parts]


def form_of(kind: str, quant: str) -> Form | None:
    """Of tensors of this type of GGML; None: such ones are not so. `quant`: a kind of
    `quants.GROUPED`; a type of 4 bits whose steps are no numbers is exact in 8."""
    return FORMS.get(kind) or (_EXACT_IN_8.get(kind) if quant == "int8" else None)


def grouped(rows: Bytes, order: np.ndarray[Any, Any], form: Form) -> Grouped:
    """Of the bytes [rows, bytes of a row] of a tensor; `order`: where each row is among them."""
    outputs, inputs = len(rows), rows.shape[1] // form.size * form.block
    layout = form.layout
    steps = np.empty((outputs, inputs * layout.bits // 8), np.uint8)
    grid = (outputs, inputs // layout.group)
    scales = np.empty(grid, np.float32)
    minima = np.empty(grid, np.float32) if layout.minima else None
    at_once = max(1, _AT_ONCE // inputs)

    def take(first: int) -> None:
        some = slice(first, first + at_once)
        chosen = rows[order[some]]
        with np.errstate(all="ignore"):  # a damaged file's scales may be no numbers: so told later
            found = form.take(chosen.reshape(-1, form.size))
        for whole, part in zip((steps, scales, minima), found, strict=True):
            if whole is not None and part is not None:
                whole[some] = part.reshape(len(chosen), -1)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(take, range(0, outputs, at_once)))
    zeros = torch.zeros(grid, dtype=torch.uint8) if layout.zeros else None
    return Grouped(
        layout.bits,
        layout.group,
        torch.from_numpy(steps),
        torch.from_numpy(scales),
        zeros,
        None if minima is None else torch.from_numpy(minima),
    )


def _half(blocks: Bytes, at: int) -> Floats:
    """The number of 16 bits there, [blocks, 1]."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _halves(blocks: Bytes, first: int, end: int) -> Iterator[Floats]:
    for at in range(first, end, 2):
        yield _half(blocks, at)


def _pairs(part: Bytes) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Two bytes as one word, so that two steps become a byte in one go."""
    return np.ascontiguousarray(part).view(np.uint16)


def _packed(words: np.ndarray[Any, np.dtype[np.uint16]]) -> Bytes:
    """The low four bits of both bytes of each word, in a byte; others must be 0."""
    return (words | words >> 4).astype(np.uint8)


def _swapped(part: Bytes, run: int) -> Bytes:
    """Bytes whose low halves, `run` after each other, come before their high halves: to two
    neighbours in a byte."""
    words = _pairs(part).reshape(len(part), -1, 1, run // 2)
    return _packed(words >> _NIBBLES & np.uint16(0x0F0F))


def _apart(part: Bytes, run: int) -> Bytes:
    """The same, to a byte for each half: [blocks, runs, 2, run]."""
    return part.reshape(len(part), -1, 1, run) >> _NIBBLES.astype(np.uint8) & np.uint8(15)


def _q4_0(blocks: Bytes) -> Parts:
    return _swapped(blocks[:, 2:], 16), _half(blocks, 0), None


def _q4_1(blocks: Bytes) -> Parts:
    scale, least = _halves(blocks, 0, 4)
    return _swapped(blocks[:, 4:], 16), scale, least


def _q5(blocks: Bytes, at: int, middle: int) -> Bytes:
    """Five bits, the highest ones of all in four bytes; `middle`: which step is 0."""
    high = np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little")
    low = _apart(blocks[:, at + 4 :], 16).reshape(len(blocks), 32)
    return (low | high << np.uint8(4)) + np.uint8(128 - middle)


def _q5_0(blocks: Bytes) -> Parts:
    return _q5(blocks, 2, 16), _half(blocks, 0), None


def _q5_1(blocks: Bytes) -> Parts:
    scale, least = _halves(blocks, 0, 4)
    return _q5(blocks, 4, 0), scale, least


def _q8_0(blocks: Bytes) -> Parts:
    return blocks[:, 2:] ^ np.uint8(128), _half(blocks, 0), None


def _q2_k(blocks: Bytes) -> Parts:
    scale, least = _halves(blocks, 80, 84)
    words = _pairs(blocks[:, 16:80]).reshape(len(blocks), 2, 1, 16)
    steps = words >> _CRUMBS & np.uint16(0x0303) | np.uint16(0x0808)
    factors = blocks[:, :16]
    return _packed(steps), scale * (factors & 15), -(least * (factors >> 4))


def _q3_k(blocks: Bytes) -> Parts:
    low = _pairs(blocks[:, 32:96]).reshape(len(blocks), 2, 1, 16) >> _CRUMBS & np.uint16(0x0303)
    high = _pairs(blocks[:, :32]).reshape(len(blocks), 1, 16) >> _BITS & np.uint16(0x0101)
    high = high.reshape(len(blocks), 2, 4, 16)
    steps = low + (high << 2) + np.uint16(0x0404)  # the middle is 8, and -4 the least
    fours, twos = blocks[:, 96:104], blocks[:, 104:108]
    factors = _apart(fours, 8).reshape(len(blocks), 16)
    more = twos[:, None] >> _CRUMBS.astype(np.uint8) & np.uint8(3)
    factors = factors | more.reshape(len(blocks), 16) << np.uint8(4)
    return _packed(steps), _half(blocks, 108) * (factors.astype(np.int8) - np.int8(32)), None


def _of_eight(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scales and minima of Q4_K and Q5_K, whose factors have six bits each."""
    scale, least = _halves(blocks, 0, 4)
    first, second, third = (blocks[:, at : at + 4] for at in (4, 8, 12))
    scales = np.concatenate((first & 63, third & 15 | first >> 2 & 48), 1)
    minima = np.concatenate((second & 63, third >> 4 | second >> 2 & 48), 1)
    return scale * scales, -(least * minima)


def _q4_k(blocks: Bytes) -> Parts:
    return _swapped(blocks[:, 16:], 32), *_of_eight(blocks)


def _q5_k(blocks: Bytes) -> Parts:
    low = _apart(blocks[:, 48:], 32).reshape(len(blocks), 8, 32)
    high = blocks[:, None, 16:48] >> _BITS.astype(np.uint8) & np.uint8(1)
    return (low | high << np.uint8(4)) + np.uint8(128), *_of_eight(blocks)


def _q6_k(blocks: Bytes) -> Parts:
    low = _apart(blocks[:, :128], 64).reshape(len(blocks), 256)
    high = blocks[:, 128:192].reshape(len(blocks), 2, 1, 32) >> _CRUMBS.astype(np.uint8)
    steps = (low | (high & np.uint8(3)).reshape(len(blocks), 256) << np.uint8(4)) + np.uint8(96)
    return steps, _half(blocks, 208) * blocks[:, 192:208].view(np.int8), None


_LEVELS = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int16
)
"""What the steps of IQ4_NL stand for (`kvalues_iq4nl`)."""


def _iq4_nl(blocks: Bytes) -> Parts:
    levels = (_LEVELS + 128).astype(np.uint8)
    return levels[_apart(blocks[:, 2:], 16)], _half(blocks, 0), None


FORMS = {
    "Q4_0": Form(32, 18, Layout(4, 32, True, False, False), _q4_0),
    "Q4_1": Form(32, 20, Layout(4, 32, True, True, True), _q4_1),
    "Q5_0": Form(32, 22, Layout(8, 32, True, False, False), _q5_0),
    "Q5_1": Form(32, 24, Layout(8, 32, True, False, True), _q5_1),
    "Q8_0": Form(32, 34, Layout(8, 32, True, False, False), _q8_0),
    "Q2_K": Form(256, 84, Layout(4, 16, False, False, True), _q2_k),
    "Q3_K": Form(256, 110, Layout(4, 16, False, False, False), _q3_k),
    "Q4_K": Form(256, 144, Layout(4, 32, False, True, True), _q4_k),
    "Q5_K": Form(256, 176, Layout(8, 32, False, False, True), _q5_k),
    "Q6_K": Form(256, 210, Layout(8, 16, False, False, False), _q6_k),
}
"""By the type's name in GGML. Layouts: bits, group, narrow, zeros, minima."""

_EXACT_IN_8 = {"IQ4_NL": Form(32, 18, Layout(8, 32, True, False, False), _iq4_nl)}
