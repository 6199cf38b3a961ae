import math
import random
import struct
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import samplings

from gardener.errors import LocalError, RemoteError
from gardener.protocol import messages as m
from gardener.protocol import reports as r
from gardener.protocol import tensors as t
from gardener.protocol.room import MOST_CONTEXT
from gardener.protocol.sampling import MAX_BEST
from gardener.protocol.sight import Look, Near, Sight
from gardener.protocol.wire import FRAME_LIMIT, MAX_ARRAYS, Decoder, decode, encode

counts = st.integers(0, 2**53)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
nonces = st.binary(min_size=16, max_size=16)
timings = st.lists(st.builds(m.Timing, counts, counts, counts), max_size=4).map(tuple)
costs = st.dictionaries(st.integers(1, 2**53), counts, max_size=7).map(
    lambda points: tuple(sorted(points.items()))
)
taps = st.lists(counts, max_size=m.MAX_TAPS, unique=True).map(sorted).map(tuple)


@st.composite
def cards(draw: st.DrawFn) -> m.Card:
    first, end, layers = sorted(draw(st.tuples(counts, counts, counts)))
    text = [draw(names) for _ in range(5)]
    shown = m.Card(
        draw(counts), text[0], text[1], first, end, layers, draw(counts), text[2], text[3], text[4],
        draw(counts), draw(costs), draw(costs), head_quant=draw(names),
    )  # fmt: skip
    more = {name: draw(counts) for name in m.fields(m.Card)[13:21]}
    return msgspec.structs.replace(shown, **more, spread=draw(st.floats(0, 1e30)))


nears = st.none() | st.builds(Near, counts, names, counts, counts, counts)
sights = st.builds(
    Sight, counts, names, nears, nears, names, names, *[counts] * 3, names, counts, names, names
)

DTYPES: tuple[t.DType, ...] = ("float32", "bfloat16", "float16")


def tensors(draw: st.DrawFn, rows: int, count: int) -> tuple[t.Tensor, ...]:
    """Of one dtype and width."""
    dtype = draw(st.sampled_from(DTYPES))
    width = draw(st.integers(0, 3))
    data = st.binary(min_size=(size := rows * width * t.ITEM_SIZE[dtype]), max_size=size)
    shape = (rows, width)
    return tuple(t.Tensor(dtype, shape, draw(data)) for _ in range(count))


@st.composite
def segments(draw: st.DrawFn) -> m.Segment:
    rows = draw(st.integers(0, 5))
    ids = st.lists(counts, min_size=rows, max_size=rows).map(tuple)
    parents = st.lists(st.integers(-1, 2**53), min_size=rows, max_size=rows).map(tuple)
    hidden = tensors(draw, rows, 1)[0] if draw(st.booleans()) else None
    return m.Segment(
        draw(counts), draw(counts), draw(ids), draw(parents), draw(ids), draw(ids), hidden,
        draw(timings), tensors(draw, rows, draw(st.integers(0, 3))), draw(st.booleans()),
    )  # fmt: skip


@st.composite
def verdicts(draw: st.DrawFn) -> m.Verdict:
    pairs = draw(st.lists(st.tuples(counts, counts), max_size=5))
    ids, picks = tuple(i for i, _ in pairs), tuple(p for _, p in pairs)
    features = tensors(draw, len(ids) + draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    logprobs, likeliest = None, b""
    if draw(st.booleans()):
        best = draw(st.integers(0, 3))
        size = 4 * len(ids)
        data = draw(st.binary(min_size=size * (1 + best), max_size=size * (1 + best)))
        logprobs = t.Tensor("float32", (len(ids), 1 + best), data)
        likeliest = draw(st.binary(min_size=size * best, max_size=size * best))
    return m.Verdict(
        draw(counts), draw(counts), ids, picks, draw(timings), features, logprobs, likeliest,
        draw(st.booleans()),
    )  # fmt: skip


@st.composite
def opens(draw: st.DrawFn) -> m.Open:
    prompt, context = draw(st.tuples(st.integers(1, MOST_CONTEXT), st.integers(1, MOST_CONTEXT)))
    kept = st.none() if prompt == 1 else st.none() | st.tuples(counts, st.integers(1, prompt - 1))
    return m.Open(
        draw(counts), prompt, context, draw(taps), draw(samplings()).seeded(),
        draw(st.none() | st.integers(0, MAX_BEST)), draw(st.integers(1, 2**16)), draw(kept),
    )  # fmt: skip


some = st.one_of(
    st.builds(m.Hello, counts, cards(), nonces),
    st.builds(m.Welcome, counts, cards(), nonces),
    st.builds(m.Survey, nonces, st.lists(cards(), max_size=3).map(tuple)),
    opens(),
    st.builds(m.Close, counts, st.booleans()),
    segments(),
    st.builds(m.Advance, counts, st.lists(counts, max_size=5).map(tuple), counts),
    verdicts(),
    st.builds(m.Ping, counts, st.binary(max_size=40)),
    st.builds(m.Pong, counts),
    st.builds(r.Lost, counts, counts, st.integers(-1, 2**53), counts, names),
    st.builds(m.Bye, names),
    st.builds(r.Failed, counts, counts, counts, names),
    st.builds(r.Waiting, counts, counts, names),
    st.builds(r.Busy, counts, counts, counts, counts, counts),
    st.builds(Look, counts),
    st.builds(m.Looked, counts, cards(), sights),
)


def frame(items: object) -> bytes:
    return raw(msgpack.packb(items))


def raw(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def segment(**changes: object) -> list[Any]:
    """A good segment of two rows as builtins, but for `changes` by field name."""
    good: dict[str, Any] = {
        "request": 1, "seq": 2, "ids": [5, 6], "parents": [4, 5], "positions": [9, 10],
        "tokens": [3, 4], "hidden": ["bfloat16", [2, 3], bytes(12)], "times": [],
    }  # fmt: skip
    return [6, *(good | changes).values()]


def verdict(**changes: object) -> list[Any]:
    """A good verdict on two rows as builtins, with log probabilities, but for `changes`."""
    good: dict[str, Any] = {
        "request": 1, "seq": 2, "ids": [5, 6], "picks": [3, 4], "times": [], "features": [],
        "logprobs": ["float32", [2, 2], bytes(16)], "likeliest": bytes(8), "more": False,
        "broken": [],
    }  # fmt: skip
    return [8, *(good | changes).values()]


def tap(*shape: int, dtype: str = "float16") -> list[Any]:
    """A feature of 16 bits per element as builtins."""
    return [dtype, list(shape), bytes(2 * math.prod(shape))]


@settings(max_examples=30)
@given(st.lists(some, max_size=6), st.integers(0, 2**32))
def test_messages_survive_the_wire_one_byte_at_a_time_and_in_random_cuts(
    sent: list[m.Message], seed: int
) -> None:
    stream, rng = b"".join(map(encode, sent)), random.Random(seed)
    decoder = Decoder()
    heard = [message for byte in stream for message in decoder.feed(bytes([byte]))]
    assert heard == sent
    decoder, heard = Decoder(), []
    while stream:
        cut = rng.randint(1, len(stream))
        heard += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert heard == sent


def test_every_kind_of_message_is_tried() -> None:
    assert len(m.MESSAGES) == 17  # and `some` above has as many


def test_a_large_frame_comes_in_pieces() -> None:
    rows, width = 64, 4096
    ids = tuple(range(rows))
    data = random.Random(0).randbytes(rows * width * 2)
    sent = m.Segment(1, 2, ids, ids, ids, ids, t.Tensor("bfloat16", (rows, width), data), ())
    stream, decoder = encode(sent) + encode(m.Ping(3)), Decoder()
    heard: list[m.Message] = []
    for start in range(0, len(stream), 65536):
        heard += decoder.feed(stream[start : start + 65536])
    assert heard == [sent, m.Ping(3)]


def test_features_survive_the_wire_each_in_its_place() -> None:
    data = random.Random(0).randbytes(3 * 2 * 5 * 4)
    features = tuple(t.Tensor("float32", (2, 5), data[at : at + 40]) for at in (0, 40, 80))
    hidden = t.Tensor("float32", (2, 1), bytes(8))
    sent: list[m.Message] = [
        m.Open(1, 2, 3, (0, 7, 30)),
        m.Segment(1, 2, (4, 5), (3, 4), (4, 5), (8, 9), hidden, (), features),
        m.Segment(1, 3, (6, 7), (5, 6), (6, 7), (1, 2), None, (), features[:1]),
        m.Verdict(1, 2, (5,), (9,), (), features),  # with a row of the prompt
        m.Verdict(1, 3, (), (), (), features[1:]),
    ]
    assert list(Decoder().feed(b"".join(map(encode, sent)))) == sent


def test_what_is_damaged_below_is_sound_before() -> None:
    for items in (
        verdict(),
        [*segment(), [], False, [[6, 1]]],
        [4, 1, 2, 9, [], [], MAX_BEST, 1, [7, 1], 0],
        [5, 1, True],
    ):
        assert len(list(Decoder().feed(frame(items)))) == 1


def test_many_small_frames_in_one_piece() -> None:
    sent: list[m.Message] = [m.Ping(i) for i in range(1000)]
    assert list(Decoder().feed(b"".join(map(encode, sent)))) == sent


MALFORMED = {
    "length zero": (raw(b""), "length zero"),
    "not msgpack": (raw(b"\xc1"), "not msgpack"),
    "cut short": (raw(b"\x92\x09"), "not msgpack"),
    "trailing bytes": (raw(msgpack.packb([9, 1]) + b"\x00"), "bytes after"),
    "nested deeply": (raw(b"\x91" * 100_000), "too deeply"),
    "nested less deeply": (raw(b"\x91" * 1000 + b"\xc0"), "not a message"),
    "array longer than the frame": (raw(b"\xdd\xff\xff\xff\xff"), "not msgpack"),
    "bytes longer than the frame": (raw(b"\xc6\xff\xff\xff\xff"), "not msgpack"),
    "too many arrays": (frame([9, [[[]] * 1024] * (MAX_ARRAYS // 1024)]), "arrays"),
    "not UTF-8": (raw(b"\x92\x0c\xa1\xff"), "not UTF-8"),
    "map": (frame({"a": 1}), "not msgpack"),
    "extension": (raw(b"\xd6\xff\x00\x00\x00\x00"), "not msgpack"),
    "not an array": (frame(5), "not a message"),
    "empty array": (frame([]), "not a message"),
    "code of a wrong type": (frame(["Ping", 1]), "not a message"),
    "boolean code": (frame([True, 1]), "not a message"),
    "unknown code": (frame([99, 1]), "no message has the code 99"),
    "huge code": (frame([2**63, 1]), "no message has the code"),
    "field missing": (frame([9]), "not a valid Ping"),
    "field too many": (frame([9, 1, b"", 2]), "not a valid Ping: 4 items instead of 3"),
    "too much padding": (frame([9, 1, bytes(m.MAX_PADDING + 1)]), "not a valid Ping"),
    "text for padding": (frame([9, 1, "AAAA"]), "not a valid Ping"),
    "costs out of order": (
        frame([3, bytes(16), [[1, "", "", 0, 1, 9, 1, "", "", "", 0, [[2, 5], [1, 5]]]]]),
        "not in ascending order",
    ),
    "costs of no rows": (
        frame([3, bytes(16), [[1, "", "", 0, 1, 9, 1, "", "", "", 0, [], [[0, 5]]]]]),
        "not in ascending order",
    ),
    "too many costs": (
        frame(
            [3, bytes(16), [[1, "", "", 0, 1, 9, 1, "", "", "", 0, [[r, 1] for r in range(1, 34)]]]]
        ),
        "not a valid Survey",
    ),
    "string for int": (frame([9, "1"]), "not a valid Ping"),
    "boolean for int": (frame([9, True]), "not a valid Ping"),
    "whole float for int": (frame([9, 1.0]), "not a valid Ping"),
    "NaN for int": (frame([9, float("nan")]), "not a valid Ping"),
    "nil for int": (frame([9, None]), "not a valid Ping"),
    "negative count": (frame([9, -1]), "not a valid Ping"),
    "count too large": (frame([9, 2**60]), "not a valid Ping"),
    "base64 for bytes": (frame([3, "A" * 24, []]), "not a valid Survey"),
    "short nonce": (frame([3, b"short", []]), "not a valid Survey"),
    "long name": (frame([12, "x" * 513]), "not a valid Bye"),
    "empty prompt": (frame([4, 1, 0, 5]), "not a valid Open"),
    "layers the wrong way round": (
        frame([3, bytes(16), [[1, "", "", 5, 4, 9, 1, "", "", "", 0]]]), "layers 5 to 4",
    ),
    "parent below -1": (frame(segment(parents=[-2, 5])), "parents|Segment"),
    "rows that disagree": (frame(segment(ids=[5])), "1 ids, 2 parents, 2 positions and 2 tokens"),
    "hidden without tokens": (frame(segment(tokens=[])), "2 positions and 0 tokens"),
    "neither": (frame(segment(hidden=None, tokens=[])), "2 positions and 0 tokens"),
    "too few tokens": (frame(segment(hidden=None, tokens=[3])), "2 positions and 1 tokens"),
    "too many tokens": (frame(segment(tokens=[3, 4, 5])), "2 positions and 3 tokens"),
    "wrong dtype": (frame(segment(hidden=["int8", [2, 3], bytes(6)])), "int8"),
    "wrong number of bytes": (
        frame(segment(hidden=["float32", [2, 3], bytes(12)])), "takes 24 bytes, got 12",
    ),
    "huge shape": (frame(segment(hidden=["float32", [2**53] * 4, b""])), "takes"),
    "negative shape": (frame(segment(hidden=["float32", [-2, -3], bytes(24)])), "Segment"),
    "too many dimensions": (frame(segment(hidden=["float32", [1] * 5, bytes(4)])), "Segment"),
    "hidden of other rows": (
        frame(segment(hidden=["bfloat16", [3, 2], bytes(12)])), "hidden states of shape",
    ),
    "a broken row with a pick": (frame(verdict(broken=[[5, 1]])), "broken that have picks"),
    "a row broken twice": (frame(verdict(broken=[[7, 1], [7, 2]])), "a row is broken twice"),
    "a broken row of a layer that cannot be": (frame(verdict(broken=[[7, -2]])), "Verdict"),
    "picks that disagree": (frame([8, 1, 2, [1], [], []]), "1 ids but 0 picks"),
    "settled too long": (frame([7, 1, [1] * 4097, 5]), "not msgpack"),
    "tensor with a field too many": (
        frame(segment(hidden=["bfloat16", [2, 3], bytes(12), 0])), "not a valid Segment",
    ),
    "timing with a field too many": (frame(segment(times=[[1, 2, 3, 4]])), "not a valid Segment"),
    "too many rows": (frame([8, 1, 2, [1] * 4097, [1] * 4097, []]), "4096"),
    "taps out of order": (frame([4, 1, 1, 5, [3, 2]]), "not in ascending order"),
    "a tap twice": (frame([4, 1, 1, 5, [2, 2]]), "not in ascending order"),
    "too many taps": (frame([4, 1, 1, 5, [*range(9)]]), "not a valid Open"),
    "features of different widths": (
        frame(segment(features=[tap(2, 3), tap(2, 4)])), "features of different kinds",
    ),
    "features of different dtypes": (
        frame(segment(features=[tap(2, 3), tap(2, 3, dtype="bfloat16")])),
        "features of different kinds",
    ),
    "features of one dimension": (frame(segment(features=[tap(2)])), "features of different kin"),
    "features of too few rows": (
        frame(segment(features=[tap(1, 3)])), r"2 ids but features of shape \(1, 3\)",
    ),
    "features of too many rows": (
        frame(segment(features=[tap(3, 3)])), r"2 ids but features of shape \(3, 3\)",
    ),
    "features of more taps than there may be": (
        frame(segment(features=[tap(2, 3)] * 9)), "not a valid Segment",
    ),
    "features without their bytes": (
        frame(segment(features=[["float16", [2, 3], bytes(11)]])), "takes 12 bytes, got 11",
    ),
    "a verdict's features of different rows": (
        frame([8, 1, 2, [1], [4], [], [tap(1, 3), tap(2, 3)]]), "features of different kinds",
    ),
    "a verdict's features of too few rows": (
        frame([8, 1, 2, [1, 2], [4, 5], [], [tap(1, 3)]]),
        r"2 ids but features of shape \(1, 3\)",
    ),
    "log probabilities of too few rows": (
        frame(verdict(logprobs=["float32", [1, 2], bytes(8)])),
        r"2 ids but log probabilities of shape \(1, 2\)",
    ),
    "log probabilities of another dtype": (
        frame(verdict(logprobs=tap(2, 2))), "2 ids but log probabilities",
    ),
    "no log probability of the pick": (
        frame(verdict(logprobs=["float32", [2, 0], b""], likeliest=b"")),
        r"2 ids but log probabilities of shape \(2, 0\)",
    ),
    "too few of the best tokens": (
        frame(verdict(likeliest=bytes(4))), "2 log probabilities of tokens in 4 bytes",
    ),
    "best tokens without log probabilities": (
        frame(verdict(logprobs=None)), "0 log probabilities of tokens in 8 bytes",
    ),
    "more that is no boolean": (frame(verdict(more=1)), "not a valid Verdict"),
    "keep that is no boolean": (frame([5, 1, 1]), "not a valid Close"),
    "noise without a seed": (
        frame(
            [4, 1, 2, 9, [], [0.5, 1.0, 0, 0.0, 1.0, 0.0, 0.0, [], None, 0, []], None, 1, None, 0]
        ),
        "not a valid Open: noise without a seed",
    ),
    "too many log probabilities": (
        frame([4, 1, 2, 9, [], [], MAX_BEST + 1, 1, None, 0]), "not a valid Open",
    ),
    "negative log probabilities": (frame([4, 1, 2, 9, [], [], -1, 1, None, 0]), "not a valid Open"),
    "no row to spare": (frame([4, 1, 2, 9, [], [], None, 0, None, 0]), "not a valid Open"),
    "too many rows to spare": (
        frame([4, 1, 2, 9, [], [], None, 2**16 + 1, None, 0]), "not a valid Open",
    ),
    "all of a prompt kept": (
        frame([4, 1, 2, 9, [], [], None, 1, [7, 2], 0]), "2 kept tokens of a prompt of 2",
    ),
    "an answer longer than the prompt": (
        frame([4, 1, 2, 9, [], [], None, 1, None, 2]), "2 tokens of the answer in a prompt of 2",
    ),
    "a prefix of nobody": (frame([4, 1, 2, 9, [], [], None, 1, [1], 0]), "not a valid Open"),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "said"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_frames_are_refused_for_good(stream: bytes, said: str) -> None:
    decoder = Decoder()
    heard: list[m.Message] = []
    with pytest.raises(RemoteError, match=said) as first:
        heard.extend(decoder.feed(encode(m.Ping(7)) + stream))
    assert heard == [m.Ping(7)]  # the good ones before it are not lost
    with pytest.raises(RemoteError) as again:
        list(decoder.feed(encode(m.Ping(8))))
    assert str(again.value) == str(first.value)


def test_the_limit_is_checked_before_the_frame_has_come() -> None:
    with pytest.raises(RemoteError, match="4294967295 bytes, the limit is 67108864"):
        list(Decoder().feed(b"\xff\xff\xff\xff"))
    assert list(Decoder(limit=100).feed(struct.pack(">I", 100))) == []
    with pytest.raises(RemoteError, match="101 bytes, the limit is 100"):
        list(Decoder(limit=100).feed(struct.pack(">I", 101)))


def test_a_greeting_may_have_grown() -> None:
    card = msgspec.to_builtins(m.Card(1, "n", "v", 0, 1, 2, 3, "m", "d", "q", 4))
    card = (*card, "something new")
    message = decode(msgpack.packb([1, 2, card, bytes(16), None, "something new"]))
    assert isinstance(message, m.Hello)
    assert message.protocol == 2


def test_what_cannot_be_sent_is_our_own_fault() -> None:
    with pytest.raises(LocalError, match="cannot encode a Bye"):
        encode(m.Bye("\ud800"))
    hidden = t.Tensor("float16", (1, FRAME_LIMIT // 2), bytes(FRAME_LIMIT))
    with pytest.raises(LocalError, match=r"a Segment of .* is over the limit"):
        encode(m.Segment(1, 1, (1,), (0,), (0,), (7,), hidden, ()))


def feed_garbage(data: bytes) -> None:
    decoder = Decoder()
    try:
        for start in range(0, len(data), 7):
            list(decoder.feed(data[start : start + 7]))
    except RemoteError:
        pass


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_remote_errors(data: bytes) -> None:
    feed_garbage(data)
    feed_garbage(raw(data))


@settings(max_examples=60)
@given(some, st.data())
def test_damaged_frames_raise_nothing_but_remote_errors(
    message: m.Message, data: st.DataObject
) -> None:
    stream = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(4, len(stream) - 1))] = data.draw(st.integers(0, 255))
    feed_garbage(bytes(stream))


builtins = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), names,
              st.binary(max_size=20)),
    lambda inner: st.lists(inner, max_size=8),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=50)
@given(st.integers(1, 14), st.lists(builtins, max_size=4))
def test_random_fields_raise_nothing_but_remote_errors(code: int, items: list[object]) -> None:
    feed_garbage(frame([code, *items]))
