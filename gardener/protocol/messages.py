"""What peers say to each other: frozen records, without a byte of I/O.

Each message is an array on the wire, `[code, *fields]` (see `wire.py`). msgspec checks types
and ranges when one is read from a peer; `__post_init__` checks what types cannot say, for instance
that the rows agree with each other. A breach raises `ValueError`, which `wire.py` turns into a
`RemoteError`.

Peers introduce themselves with a `Card` in `Hello`, `Welcome` or `Looked`: only these may have more
fields at their end than are known here, so that a newer peer is understood as far as its version.

Words: a *segment* is a set of token-tree nodes that travels the ring together; each node is one
*row*. Stage 0 is the draft holder, stages 1..N hold the layers. Times are whole microseconds.
"""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

from gardener.protocol.names import Name
from gardener.protocol.reports import Busy, Failed, Lost, Waiting
from gardener.protocol.room import MOST_CONTEXT, slots_for
from gardener.protocol.sampling import GREEDY, MAX_BEST, Sampling
from gardener.protocol.sight import Look, Sight
from gardener.protocol.tensors import Count, Tensor

PROTOCOL = 7
"""Version of the protocol: peers with another one are refused."""

MAX_ROWS = 4096
"""Most rows a segment may carry."""

MAX_TAPS = 8
"""Most features a request may ask for, per row."""

SPARE = 512
"""Rows of a request's tree that a stage may have to keep at a time, where nothing else is said."""

MAX_PADDING = 2**20
"""Most bytes that a Ping may carry."""

Spread: TypeAlias = Annotated[float, Meta(ge=0, le=1e30)]
NodeId: TypeAlias = Annotated[int, Meta(ge=-1, le=2**53)]
Ids: TypeAlias = Annotated[tuple[Count, ...], Meta(max_length=MAX_ROWS)]
CostPoints: TypeAlias = Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=32)]
"""Points (rows, microseconds that a pass of these rows takes), in ascending order of rows."""


class Card(Struct, frozen=True, array_like=True):
    """What a peer says about itself. Layers are the half-open range [first, end)."""

    stage: Count
    name: Name
    version: Name
    first: Count
    end: Count
    layers: Count  # of the whole model
    width: Count  # hidden size
    model: Name  # fingerprint, see `cards.same_model`
    dtype: Name
    quant: Name
    memory: Count  # bytes that its weights take
    costs: CostPoints = ()  # of a pass, at a short context
    long: CostPoints = ()  # and at a long one
    delay: Count = 0  # microseconds to the next peer, one way
    bandwidth: Count = 0  # bytes/s to the next peer; 0: unknown
    context: Count = 0  # tokens of the long context
    kv_slot: Count = 0  # bytes of keys and values that one slot takes here
    kv_room: Count = 0  # bytes that keys and values may take here; 0: not bounded
    longest: Count = 0  # most tokens of one request; 0: whatever memory takes
    layer: Count = 0  # nanoseconds that a row alone takes in one layer; 0: not measured
    head: Count = 0  # and in the head, where it is here
    spread: Spread = 0.0  # how far a row may be from itself in another batch; 0: not at all
    head_quant: Name = ""  # as `quant`, of the head, whichever stage has it; "": the holder
    peer: Name = ""  # where it dials the next peer, as HOST:PORT
    command: Name = ""  # the command line that starts it; "": not known, or too long

    def __post_init__(self) -> None:
        if not self.first <= self.end <= self.layers:
            raise ValueError(
                f"layers {self.first} to {self.end} do not lie within a model of {self.layers}"
            )
        for points in (self.costs, self.long):
            rows = [point[0] for point in points]
            if rows != sorted(set(rows)) or 0 in rows:
                raise ValueError(f"costs of {rows} rows: these are not in ascending order")


class Timing(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How long one stage kept a segment waiting, and how long it computed, in microseconds.

    `rows` of the whole pass, which may have computed other segments too; 0 if there was none, or
    if it was stopped half-way, so that its time says nothing about its rows.
    """

    wait: Count
    compute: Count
    rows: Count = 0


class Broken(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A row of which the stages compute no numbers, or that follows such a row.

    `layer`: the first layer of the model whose output was none; -1: the embedding; as many as the
    model has: the logits.
    """

    row: Count
    layer: Annotated[int, Meta(ge=-1, le=2**53)]


Breaks: TypeAlias = Annotated[tuple[Broken, ...], Meta(max_length=MAX_ROWS)]


class Hello(Struct, frozen=True, array_like=True, tag=1):
    """First message of the end that dialled: who it is, and the card of the stage that it misses,
    in whose place it asks a spare to step."""

    protocol: Count
    card: Card
    nonce: Annotated[bytes, Meta(min_length=16, max_length=16)]
    missed: Card | None = None


class Welcome(Struct, frozen=True, array_like=True, tag=2):
    """Answer to `Hello`: who answers, with the nonce that was sent."""

    protocol: Count
    card: Card
    nonce: Annotated[bytes, Meta(min_length=16, max_length=16)]


class Looked(Struct, frozen=True, array_like=True, tag=16):
    """Answer to `Look`: who is there, and what it does. No link comes of it."""

    protocol: Count
    card: Card
    sight: Sight


class Survey(Struct, frozen=True, array_like=True, tag=3):
    """Goes once round the ring; each stage appends its card."""

    nonce: Annotated[bytes, Meta(min_length=16, max_length=16)]
    cards: Annotated[tuple[Card, ...], Meta(max_length=1024)]


class Open(Struct, frozen=True, array_like=True, tag=4):
    """A request begins.

    Node ids 0..prompt-1 are the prompt, a chain that is settled from the start; id prompt-1 is the
    first root. `context` is the number of tokens that prompt and answer may have together.

    `taps`: hidden states that the holder's drafter wants of every row, ascending. Tap k is what
    enters layer k; a tap as high as the model has layers is what its head reads, after the last
    norm.

    `sampling`: how the last stage picks. `logprobs`: with every pick comes its log probability, and
    those of so many of the best tokens; None: none. `spare`: rows of the tree that a stage may have
    to keep at a time, besides the text.

    `prefix`: another request, which the stages keep or compute, and how many of its first tokens
    this one begins with, too. Their rows are taken from there, and never sent.

    `written`: as many of the last tokens of the prompt are of the answer already: the ring broke
    while it was written.
    """

    request: Count
    prompt: Annotated[int, Meta(ge=1, le=MOST_CONTEXT)]
    context: Annotated[int, Meta(ge=1, le=MOST_CONTEXT)]
    taps: Annotated[tuple[Count, ...], Meta(max_length=MAX_TAPS)] = ()
    sampling: Sampling = GREEDY
    logprobs: Annotated[int, Meta(ge=0, le=MAX_BEST)] | None = None
    spare: Annotated[int, Meta(ge=1, le=2**16)] = SPARE
    prefix: tuple[Count, Count] | None = None
    written: Count = 0

    def __post_init__(self) -> None:
        if self.written >= self.prompt:
            raise ValueError(f"{self.written} tokens of the answer in a prompt of {self.prompt}")
        if list(self.taps) != sorted(set(self.taps)):
            raise ValueError(f"the taps {self.taps} are not in ascending order")
        if not self.sampling.is_greedy and self.sampling.seed is None:
            raise ValueError("noise without a seed")
        if self.prefix is not None and not 0 < self.prefix[1] < self.prompt:
            raise ValueError(f"{self.prefix[1]} kept tokens of a prompt of {self.prompt}")

    @property
    def slots(self) -> int:
        """Most slots that a stage will need for it."""
        return slots_for(self.context, self.spare)


class Close(Struct, frozen=True, array_like=True, tag=5):
    """A request ends: everything it holds at a stage is freed, or all but its settled rows if
    `keep`, for requests that begin with the same tokens, until it is closed again without."""

    request: Count
    keep: bool = False


FeatureTensors: TypeAlias = Annotated[tuple[Tensor, ...], Meta(max_length=MAX_TAPS)]
"""One tensor (rows, width) per tap, in the order of the taps."""


def _check_features(features: tuple[Tensor, ...]) -> None:
    kinds = [(tensor.dtype, tensor.shape) for tensor in features]
    if any(len(shape) != 2 or (dtype, shape) != kinds[0] for dtype, shape in kinds):
        raise ValueError(f"features of different kinds: {kinds}")


def _each_once(broken: Breaks) -> set[int]:
    rows = {each.row for each in broken}
    if len(rows) < len(broken):
        raise ValueError("a row is broken twice")
    return rows


def _check_logprobs(rows: int, logprobs: Tensor | None, likeliest: bytes) -> None:
    best = 0
    if logprobs is not None:
        shape = logprobs.shape
        if logprobs.dtype != "float32" or len(shape) != 2 or shape[0] != rows or shape[1] < 1:
            raise ValueError(f"{rows} ids but log probabilities of shape {shape}")
        best = rows * (shape[1] - 1)
    if len(likeliest) != 4 * best:
        raise ValueError(f"{best} log probabilities of tokens in {len(likeliest)} bytes")


class Segment(Struct, frozen=True, array_like=True, tag=6):
    """Rows on their way through the stages; parents come before their children.

    From stage 1 on it carries `hidden` of shape (rows, width). `tokens` go all the way, since the
    last stage may have to count them. Rows that died are left out on the way; a segment without
    rows keeps the holder's count true. `times` has one entry for every stage it has passed,
    `features` one tensor (rows, width) for every tap it has passed.

    `more`: another segment follows at once, and both are to be computed in one pass. `broken`:
    those of the rows that are no numbers; they go on, so that it is known in the end, with hidden
    states that mean nothing.
    """

    request: Count
    seq: Count
    ids: Ids
    parents: Annotated[tuple[NodeId, ...], Meta(max_length=MAX_ROWS)]
    positions: Ids
    tokens: Ids
    hidden: Tensor | None
    times: Annotated[tuple[Timing, ...], Meta(max_length=1024)]
    features: FeatureTensors = ()
    more: bool = False
    broken: Breaks = ()

    def __post_init__(self) -> None:
        rows = len(self.ids)
        if not len(self.parents) == len(self.positions) == len(self.tokens) == rows:
            raise ValueError(
                f"{rows} ids, {len(self.parents)} parents, {len(self.positions)} positions and "
                f"{len(self.tokens)} tokens"
            )
        hidden = self.hidden
        if hidden is not None and (len(hidden.shape) != 2 or hidden.shape[0] != rows):
            raise ValueError(f"{rows} ids but hidden states of shape {hidden.shape}")
        _check_features(self.features)
        if self.features and self.features[0].shape[0] != rows:
            raise ValueError(f"{rows} ids but features of shape {self.features[0].shape}")
        if self.broken and not _each_once(self.broken) <= set(self.ids):
            raise ValueError("rows are broken that are not in the segment")


class Advance(Struct, frozen=True, array_like=True, tag=7):
    """The root of a request is now `root`.

    `settled`: ids accepted since the last one, in order, the new root not among them. All that is
    neither settled, nor the root, nor below it is dead. Idempotent; overtakes queued segments, so
    it may come before the segment that brings `root`.
    """

    request: Count
    settled: Ids
    root: Count


class Verdict(Struct, frozen=True, array_like=True, tag=8):
    """The last stage's answer to a segment: for each surviving row that is judged, the target's
    own next token (`picks`). Prompt rows before the last one are not judged.

    `features`: one tensor (rows, width) for every tap of the request. Its rows are those of the
    prompt that are not judged, then those of `ids`.

    `logprobs`: where they were asked for, natural logs of what the model itself says (before bias,
    penalties and temperature), (rows, 1 + best): of the pick, then of the best tokens, which
    `likeliest` names, int32, little-endian. `more`: as in `Segment`. `broken`: other rows, of the
    prompt or of the tree, after which nothing can be picked.
    """

    request: Count
    seq: Count
    ids: Ids
    picks: Ids
    times: Annotated[tuple[Timing, ...], Meta(max_length=1024)]
    features: FeatureTensors = ()
    logprobs: Tensor | None = None
    likeliest: bytes = b""
    more: bool = False
    broken: Breaks = ()

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.picks):
            raise ValueError(f"{len(self.ids)} ids but {len(self.picks)} picks")
        _check_features(self.features)
        if self.features and self.features[0].shape[0] < len(self.ids):
            raise ValueError(f"{len(self.ids)} ids but features of shape {self.features[0].shape}")
        _check_logprobs(len(self.ids), self.logprobs, self.likeliest)
        if self.broken and not _each_once(self.broken).isdisjoint(self.ids):
            raise ValueError("rows are broken that have picks")


class Ping(Struct, frozen=True, array_like=True, tag=9):
    """Asks whether the peer is there. `stamp` is the sender's own clock and comes back untouched.
    `padding` means nothing: it shows how long bytes take."""

    stamp: Count
    padding: Annotated[bytes, Meta(max_length=MAX_PADDING)] = b""


class Pong(Struct, frozen=True, array_like=True, tag=10):
    """Answers a Ping with its stamp."""

    stamp: Count


class Bye(Struct, frozen=True, array_like=True, tag=12):
    """The sender closes the link on purpose, and says why."""

    why: Name


Message: TypeAlias = (
    Hello | Welcome | Survey | Open | Close | Segment | Advance | Verdict
    | Ping | Pong | Lost | Bye | Failed | Waiting | Look | Looked | Busy
)  # fmt: skip

MESSAGES: tuple[type[Struct], ...] = (
    Hello, Welcome, Survey, Open, Close, Segment, Advance, Verdict, Ping, Pong, Lost, Bye,
    Failed, Waiting, Look, Looked, Busy,
)  # fmt: skip


def microseconds(seconds: float) -> int:
    """Whole microseconds, as they go into a message; never negative."""
    return max(round(seconds * 1e6), 0)


def nanoseconds(seconds: float) -> int:
    """The same in nanoseconds."""
    return max(round(seconds * 1e9), 0)


def code(message: type[Struct]) -> int:
    """The number that names this kind of message on the wire."""
    tag = message.__struct_config__.tag
    assert isinstance(tag, int)
    return tag


def fields(message: type[Struct]) -> tuple[str, ...]:
    """Names of the fields, in the order of the wire."""
    return tuple(field.name for field in msgspec.structs.fields(message))
