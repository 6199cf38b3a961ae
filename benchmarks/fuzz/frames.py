"""Real frames, and how they are spoilt."""

import random
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import msgpack  # type: ignore[import-untyped]

from gardener.protocol import messages as m
from gardener.protocol import reports as r
from gardener.protocol.sampling import Sampling
from gardener.protocol.sight import Look, Near, Sight
from gardener.protocol.tensors import Tensor
from gardener.protocol.wire import LENGTH, encode

NONCE = bytes(range(16))

NUMBERS = (
    *(-1, 0, 1, 2, 3, 7, 63, 64, 255, 511, 512, 4095, 4096, 4097, 2**16, 2**24, 2**24 + 1),
    *(2**31 - 1, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63)),
)
ODDITIES: tuple[Any, ...] = (
    *(None, True, False, 0.0, -0.5, 1e308, float("nan"), float("inf"), "", "x", "\x1b[2J", b""),
    *("float32", "float16", "bfloat16", "int8", "\u202e" * 3, "n" * 513, [], [[]], {}, {"a": 1}),
    *(b"\xff" * 16, bytes(15), [0] * 4097, [-1, 0], [[0, 0]], [None] * 5),
)


def card(stage: int, stages: int = 2) -> m.Card:
    """Of a stage with one layer, or of the holder."""
    first, end = (stage - 1, stage) if stage else (0, 0)
    costs = ((1, 1000), (8, 1500), (64, 4000))
    return m.Card(
        stage, f"oak{stage}", "0.1", first, end, stages, 4, "m", "float32", "none", 9, costs, costs
    )


def tensor(rows: int, width: int = 4) -> Tensor:
    """Of zeros."""
    return Tensor("float32", (rows, width), bytes(4 * rows * width))


def samples() -> list[m.Message]:
    """Of every message at least one, with all that it may hold."""
    noisy = Sampling(
        0.7, 0.9, 40, 0.05, 1.1, 0.5, 0.5, logit_bias=((3, 1.5), (4, -2.0)), seed=7, eos=(2, 5)
    )
    times = (m.Timing(3, 900, 2), m.Timing(4, 800, 2))
    ids, tokens = (3, 4, 5), (11, 12, 13)
    return [
        m.Hello(m.PROTOCOL, card(1), NONCE),
        m.Welcome(m.PROTOCOL, card(2), NONCE),
        m.Survey(NONCE, (card(0), card(1), card(2))),
        m.Open(9, 3, 64),
        m.Open(9, 6, 64, (0, 1), noisy, 3, 32, (8, 3)),
        m.Close(9),
        m.Close(9, True),
        m.Segment(9, 0, (0, 1, 2), (-1, 0, 1), (0, 1, 2), tokens, None, ()),
        m.Segment(9, 1, ids, (2, 3, 3), (3, 4, 4), tokens, tensor(3), times, (tensor(3),) * 2),
        m.Segment(9, 2, ids, (2, 3, 3), (3, 4, 4), tokens, tensor(3), times, (), True,
                  (m.Broken(4, 1),)),
        m.Segment(9, 3, (), (), (), (), None, times),
        m.Advance(9, (2, 3), 4),
        m.Verdict(9, 1, ids, tokens, times, (tensor(4),), tensor(3, 3), bytes(24), True),
        m.Verdict(9, 2, (3, 4), (1, 2), times, broken=(m.Broken(5, 0),)),
        m.Ping(123, bytes(20)),
        m.Pong(123),
        r.Lost(2, 9, -1, 400_000, "it went silent"),
        m.Bye("the holder is done"),
        r.Failed(2, 9, 1, "MemoryError: no"),
        r.Busy(2, 9, 1, 1, 5_000_000),
        Look(m.PROTOCOL),
        m.Looked(m.PROTOCOL, card(1), Sight(1, "", Near(0, "h:1"), Near(2, "h:2", 3, 4, 5), "h:2")),
        r.Waiting(1, 2, "waiting for stage 2 at 10.0.0.2:7000: no answer"),
    ]  # fmt: skip


def body(message: m.Message) -> bytes:
    """Its frame without the length."""
    return encode(message)[LENGTH:]


def framed(content: bytes) -> bytes:
    """With its length."""
    return len(content).to_bytes(LENGTH, "big") + content


def nested(value: Any, depth: int) -> list[Any]:
    """In so many lists."""
    for _ in range(depth):
        value = [value]
    return [value]


class Spoiler:
    """Changes frames, as its generator of chance has it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def spoilt(self, content: bytes, others: Sequence[bytes]) -> bytes:
        """A frame like this body, with something wrong; parts may come from `others`."""
        chance = self.chance
        try:
            items = msgpack.unpackb(content, strict_map_key=False)
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                if isinstance(items, list) and items:
                    self._change(items, others)
            content = msgpack.packb(items)
        except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException):
            content = self.damaged(content)  # what cannot be read or written: bytes can be spoilt
        if chance.random() < 0.2:
            content = self.damaged(content)
        return self._with_length(content)

    def damaged(self, content: bytes) -> bytes:
        """Bits flipped, bytes cut out, doubled or put in."""
        chance, spoilt = self.chance, bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(len(spoilt) + 1)
            match chance.randrange(5):
                case 0 if at < len(spoilt):
                    spoilt[at] ^= 1 << chance.randrange(8)
                case 1:
                    del spoilt[at:]
                case 2:
                    del spoilt[at : at + chance.randrange(1, 9)]
                case 3:
                    spoilt[at:at] = chance.randbytes(chance.randrange(1, 9))
                case _:
                    spoilt[at:at] = spoilt[at : at + chance.randrange(1, 40)]
        return bytes(spoilt)

    def _with_length(self, content: bytes) -> bytes:
        """With its length, which may lie."""
        chance, length = self.chance, len(content)
        if chance.random() < 0.05:
            wrong = (0, 1, length - 1, length + 1, 2 * length, 2**14 + 1, 2**26 + 1, 2**32 - 1)
            length = max(chance.choice(wrong), 0)
        return length.to_bytes(LENGTH, "big") + content

    def _change(self, items: Any, others: Sequence[bytes]) -> None:
        """Change one place of a tree of lists, which has one."""
        chance, parent = self.chance, items
        at = chance.randrange(len(parent))
        while isinstance(parent[at], list) and parent[at] and chance.random() < 0.8:
            parent = parent[at]
            at = chance.randrange(len(parent))
        match chance.randrange(10):
            case 0:
                del parent[at]
            case 1:
                parent.insert(at, parent[at])
            case 2:
                parent[at] = self._from(others)
            case 3:
                parent[at] = deepcopy(chance.choice(ODDITIES))
            case 4:
                parent[at] = nested(parent[at], chance.choice((*range(1, 10), 400)))
            case 5:
                parent.append(parent.pop(at))
            case 6 if isinstance(parent[at], list):
                parent[at] *= chance.choice((*range(10), 300))
            case _:
                parent[at] = self._like(parent[at])

    def _like(self, value: Any) -> Any:
        """Another value of the same kind: most get past the checks of types."""
        chance = self.chance
        match value:
            case bool():
                return not value
            case int() if chance.random() < 0.6:
                return value + chance.choice((-2, -1, 1, 2, 5, 64))
            case int():
                return chance.choice(NUMBERS)
            case float():
                return chance.choice((-1.0, 0.0, 0.5, 1.0, 2.0, 1e-300, 1e300, float("nan"), -0.0))
            case str():
                return chance.choice(("", value * 2, value[:-1], "none", "int4", "it\nwent"))
            case bytes():
                return self.damaged(value)
            case list():
                return value[: chance.randrange(len(value) + 1)]
        return chance.choice(NUMBERS)

    def _from(self, others: Sequence[bytes]) -> Any:
        """A part of another message, or all of it."""
        try:
            items = msgpack.unpackb(self.chance.choice(others), strict_map_key=False)
        except (ValueError, msgpack.UnpackException):
            return None
        if isinstance(items, list) and items and self.chance.random() < 0.9:
            return self.chance.choice(items)
        return items
