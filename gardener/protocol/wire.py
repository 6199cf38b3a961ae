"""Bytes to messages and back, without I/O.

A frame is a length (4 bytes, big-endian) and that many bytes of msgpack: `[code, *fields]`.
Everything that comes from a peer is checked here, once: sizes before anything is kept, then types,
ranges and shapes. The rest of the house may trust a message that it gets.
"""

from collections.abc import Callable, Generator, Iterator
from itertools import count
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec

from gardener.errors import LocalError, RemoteError
from gardener.protocol.messages import (
    MAX_ROWS,
    MESSAGES,
    Hello,
    Looked,
    Message,
    Welcome,
    code,
    fields,
)
from gardener.protocol.sight import Look

FRAME_LIMIT = 64 * 2**20
"""Most bytes a frame may have after its length, unless a `Decoder` is told otherwise."""

MAX_ITEMS = MAX_ROWS
"""Longest array in a frame: nothing is longer than the rows of a segment."""

MAX_ARRAYS = 2**14
"""Most arrays in a frame: no message has more (the cards of 1024 stages with their costs), and an
empty one takes 64 times its byte."""

LENGTH = 4  # bytes of the length before each frame

# The greeting may grow fields at its end: a newer peer must be understood as far as its version.
_MAY_GROW = (Hello, Welcome, Look, Looked)
_ARITY = {code(kind): 1 + len(fields(kind)) for kind in MESSAGES if kind not in _MAY_GROW}


def encode(message: Message) -> bytes:
    """The frame that carries `message`. Raises LocalError if it cannot be packed."""
    try:
        body: bytes = msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)))
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalError(f"cannot encode a {type(message).__name__}: {error}") from error
    if len(body) > FRAME_LIMIT:
        raise LocalError(
            f"a {type(message).__name__} of {len(body)} bytes is over the limit of {FRAME_LIMIT}"
        )
    return b"".join((len(body).to_bytes(LENGTH, "big"), body))


def decode(frame: bytes | memoryview) -> Message:
    """The message in one frame (without its length). Raises RemoteError, and nothing else."""
    try:
        items = msgpack.unpackb(
            frame,
            max_array_len=min(len(frame), MAX_ITEMS),
            max_map_len=0,
            max_ext_len=0,
            list_hook=_array_budget(),
        )
    except msgpack.StackError as error:
        raise RemoteError("a frame is nested too deeply") from error
    except msgpack.ExtraData as error:
        raise RemoteError("a frame has bytes after its message") from error
    except UnicodeDecodeError as error:
        raise RemoteError("a frame has a string that is not UTF-8") from error
    except (ValueError, RecursionError, MemoryError, msgpack.UnpackException) as error:
        raise RemoteError(f"a frame is not msgpack: {error or type(error).__name__}") from error
    return _checked(items)


class Decoder:
    """Cuts a stream of bytes into frames and yields their messages.

    After a RemoteError the stream cannot be trusted any more: every further `feed` raises it again.
    """

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self.limit = limit
        self._rest = bytearray()  # the beginning of a frame whose end has not come yet
        self._error: str | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Message]:
        """Yield the messages that `data` completes; run it to its end, or drop the decoder.

        Raises RemoteError at the first frame that is wrong, after the good ones before it.
        """
        if self._error is not None:
            raise RemoteError(self._error)
        try:
            if self._rest:
                self._rest += data
                # bytearray forgets bytes at its front without moving the others.
                with memoryview(self._rest) as view:
                    used = yield from self._messages(view)
                del self._rest[:used]
            else:
                with memoryview(data) as view:
                    used = yield from self._messages(view)
                    self._rest += view[used:]
        except RemoteError as error:
            self._error = str(error)
            self._rest = bytearray()
            raise

    def _messages(self, view: memoryview) -> Generator[Message, None, int]:
        """Yield what is complete in `view`; the value is the number of bytes used up."""
        start = 0
        while len(view) - start >= LENGTH:
            body = start + LENGTH
            size = int.from_bytes(view[start:body], "big")
            if size == 0:
                raise RemoteError("a frame of length zero")
            if size > self.limit:
                raise RemoteError(f"a frame of {size} bytes, the limit is {self.limit}")
            if len(view) - body < size:
                break
            start = body + size
            yield decode(view[body:start])
        return start


def _array_budget() -> Callable[[list[Any]], list[Any]]:
    """A hook for the unpacker that gives up on a frame with absurdly many arrays."""
    seen = count(1)

    def hook(items: list[Any]) -> list[Any]:
        if next(seen) > MAX_ARRAYS:
            raise ValueError(f"more than {MAX_ARRAYS} arrays")
        return items

    return hook


def _checked(items: object) -> Message:
    """Builtins to a message, or RemoteError with what is wrong and where."""
    try:
        message: Message = msgspec.convert(items, Message, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise RemoteError(f"{_kind(items)}: {error}") from error
    except (RecursionError, OverflowError) as error:
        raise RemoteError(f"{_kind(items)}: {type(error).__name__}") from error
    assert isinstance(items, list)
    expected = _ARITY.get(items[0])
    if expected is not None and len(items) != expected:
        raise RemoteError(f"{_kind(items)}: {len(items)} items instead of {expected}")
    return message


_NAMES = {code(kind): kind.__name__ for kind in MESSAGES}


def _kind(items: object) -> str:
    """`not a valid Ping`, as far as the kind can be told."""
    if isinstance(items, list) and items and type(items[0]) is int:
        if items[0] in _NAMES:
            return f"not a valid {_NAMES[items[0]]}"
        return f"no message has the code {items[0]}"
    return "not a message"
