"""Log probabilities that a verdict brings, where they were asked for."""

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

from gardener.errors import RemoteError
from gardener.protocol.messages import Verdict
from gardener.protocol.tensors import Tensor


class TokenLogprobs(NamedTuple):
    """What the model itself says of a token that it was about to pick: natural logs.

    pick  of the token that was picked
    best  of the likeliest tokens, in this order
    """

    pick: float
    best: tuple[tuple[int, float], ...] = ()


def packed(rows: Sequence[TokenLogprobs]) -> tuple[Tensor, bytes]:
    """The fields `logprobs` and `likeliest` of a verdict. Each row has the same number of best
    tokens."""
    best = len(rows[0].best) if rows else 0
    values = [value for row in rows for value in (row.pick, *(log for _, log in row.best))]
    tokens = [token for row in rows for token, _ in row.best]
    data = struct.pack(f"<{len(values)}f", *values)
    return Tensor("float32", (len(rows), 1 + best), data), struct.pack(f"<{len(tokens)}i", *tokens)


def brought(verdict: Verdict, best: int | None) -> tuple[TokenLogprobs, ...]:
    """What the verdict says of its picks, one for each of them; () where nothing was asked for.

    best: what was asked for, see `messages.Open.logprobs`. Raises RemoteError if it is not that.
    """
    rows = len(verdict.ids)
    shape = None if verdict.logprobs is None else verdict.logprobs.shape
    if not _is_due(shape, rows, best):
        due = "none" if best is None else (rows, 1 + best)
        raise RemoteError(
            f"segment {verdict.seq} came back with log probabilities {shape}, due are {due}"
        )
    if best is None or verdict.logprobs is None or not rows:
        return ()
    values = struct.unpack(f"<{rows * (1 + best)}f", verdict.logprobs.data)
    tokens = struct.unpack(f"<{rows * best}i", verdict.likeliest)
    if min(tokens, default=0) < 0 or any(map(math.isnan, values)):
        raise RemoteError(
            f"segment {verdict.seq} came back with log probabilities {values} of tokens {tokens}"
        )
    found = []
    for row in range(rows):
        at = row * (1 + best)
        named = tokens[row * best : (row + 1) * best]
        logs = values[at + 1 : at + 1 + best]
        found.append(TokenLogprobs(values[at], tuple(zip(named, logs, strict=True))))
    return tuple(found)


def _is_due(shape: tuple[int, ...] | None, rows: int, best: int | None) -> bool:
    """Whether log probabilities of this shape may come; None: whether they may be missing."""
    if best is None:
        return shape is None
    if not rows:  # all of them died, or belong to the prompt: there is nothing to tell
        return True
    return shape == (rows, 1 + best)
