import math

import pytest

from gardener.protocol import messages as m
from gardener.protocol import reports as r
from gardener.protocol import tensors as t
from gardener.protocol.names import MAX_NAME, as_name
from gardener.protocol.sampling import Sampling


def test_codes_are_distinct_and_stay() -> None:
    assert {kind.__name__: m.code(kind) for kind in m.MESSAGES} == {
        "Hello": 1, "Welcome": 2, "Survey": 3, "Open": 4, "Close": 5, "Segment": 6,
        "Advance": 7, "Verdict": 8, "Ping": 9, "Pong": 10, "Lost": 11, "Bye": 12,
        "Failed": 13, "Waiting": 14, "Look": 15, "Looked": 16, "Busy": 17,
    }  # fmt: skip


def test_fields_come_in_the_order_of_the_wire() -> None:
    assert m.fields(r.Lost) == ("stage", "request", "seq", "silent", "why")


def test_a_tensor_has_the_bytes_that_its_shape_takes() -> None:
    assert t.Tensor("bfloat16", (2, 3), bytes(12)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"float32 tensor of shape \(2, 3\) takes 24 bytes"):
        t.Tensor("float32", (2, 3), bytes(12))


def test_a_card_holds_layers_of_its_model() -> None:
    m.Card(0, "holder", "v", 0, 0, 8, 4, "m", "float32", "none", 0)
    with pytest.raises(ValueError, match="layers 4 to 9 do not lie within a model of 8"):
        m.Card(1, "oak", "v", 4, 9, 8, 4, "m", "float32", "none", 0)


def test_the_rows_of_a_segment_agree() -> None:
    hidden = t.Tensor("float16", (2, 1), bytes(4))
    for states in (None, hidden):  # tokens go all the way, beside the hidden states
        m.Segment(1, 1, (1, 2), (0, 1), (1, 2), (7, 8), states, ())
        for tokens in ((), (7,), (7, 8, 9)):
            said = f"2 ids, 2 parents, 2 positions and {len(tokens)} tokens"
            with pytest.raises(ValueError, match=said):
                m.Segment(1, 1, (1, 2), (0, 1), (1, 2), tokens, states, ())
    with pytest.raises(ValueError, match="2 ids, 1 parents, 2 positions and 2 tokens"):
        m.Segment(1, 1, (1, 2), (0,), (1, 2), (7, 8), None, ())
    with pytest.raises(ValueError, match="2 ids, 2 parents, 1 positions and 2 tokens"):
        m.Segment(1, 1, (1, 2), (0, 1), (1,), (7, 8), None, ())
    with pytest.raises(ValueError, match="1 ids but hidden states of shape"):
        m.Segment(1, 1, (1,), (0,), (1,), (7,), hidden, ())


def test_every_judged_row_has_a_pick() -> None:
    with pytest.raises(ValueError, match="1 ids but 2 picks"):
        m.Verdict(1, 1, (1,), (7, 8), ())


def test_what_goes_into_a_message_is_printable_and_short() -> None:
    assert as_name("a\x1b" + "b" * 600) == "a?" + "b" * (MAX_NAME - 2)


def test_messages_are_frozen_and_compare_by_value() -> None:
    ping: m.Message = m.Ping(1)
    assert ping == m.Ping(1)
    assert ping not in (m.Ping(2), m.Pong(1))
    with pytest.raises(AttributeError):
        ping.stamp = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ((1, 2), b"cdef"),
        ((0, 1, 2, 3), b"abcdefgh"),
        ((3,), b"gh"),
        ((0, 2, 3), b"abefgh"),
        ((2, 0), b"efab"),
        ((3, 2, 1, 0), b"ghefcdab"),
        ((1, 1), b"cdcd"),
        ((), b""),
    ],
)
@pytest.mark.parametrize("shape", [(4, 1), (4,), (4, 1, 1)])
def test_rows_are_taken_out_of_a_tensor(
    shape: tuple[int, ...], rows: tuple[int, ...], kept: bytes
) -> None:
    tensor = t.Tensor("float16", shape, b"abcdefgh")
    taken = t.Tensor("float16", (len(rows), *shape[1:]), kept)
    assert tensor.take(rows) == tensor.take(list(rows)) == taken


def test_a_tensor_without_elements_has_rows_all_the_same() -> None:
    assert t.Tensor("float32", (3, 0), b"").take((2, 0)) == t.Tensor("float32", (2, 0), b"")
    assert t.Tensor("float32", (0, 5), b"").take(()) == t.Tensor("float32", (0, 5), b"")
    whole = t.Tensor("float32", (2, 1), bytes(8))
    assert whole.take(range(2)) is whole  # nothing is copied


def half(*shape: int, dtype: t.DType = "float16") -> t.Tensor:
    return t.Tensor(dtype, shape, bytes(2 * math.prod(shape)))


def test_the_features_of_a_segment_are_of_one_kind_and_have_its_rows() -> None:
    def make(*features: t.Tensor) -> m.Segment:
        return m.Segment(1, 1, (1, 2), (0, 1), (1, 2), (7, 8), half(2, 3), (), features)

    assert make(half(2, 3), half(2, 3)).features == (half(2, 3),) * 2
    with pytest.raises(ValueError, match="features of different kinds"):
        make(half(2, 3), half(2, 4))
    with pytest.raises(ValueError, match="features of different kinds"):
        make(half(2, 3), half(2, 3, dtype="bfloat16"))
    with pytest.raises(ValueError, match="features of different kinds"):
        make(half(2))
    for rows in (1, 3):
        with pytest.raises(ValueError, match="2 ids but features of shape"):
            make(half(rows, 3))


def test_the_features_of_a_verdict_are_of_one_kind_and_have_its_rows() -> None:
    def make(*features: t.Tensor) -> m.Verdict:
        return m.Verdict(1, 1, (1, 2), (7, 8), (), features)

    for rows in (2, 5):  # with rows of the prompt before them
        assert make(half(rows, 3)).features == (half(rows, 3),)
    assert m.Verdict(1, 1, (), (), (), (half(2, 3),)).features == (half(2, 3),)
    with pytest.raises(ValueError, match="features of different kinds"):
        make(half(2, 3), half(3, 3))
    with pytest.raises(ValueError, match="features of different kinds"):
        make(half(2, 3), half(2, 3, dtype="bfloat16"))
    with pytest.raises(ValueError, match="2 ids but features of shape"):
        make(half(1, 3))


def test_a_verdict_has_log_probabilities_of_every_pick_and_names_the_best_tokens() -> None:
    def make(logprobs: t.Tensor | None, named: int = 0) -> m.Verdict:
        return m.Verdict(1, 1, (1, 2), (7, 8), (), (), logprobs, bytes(named))

    def logs(*shape: int) -> t.Tensor:
        return t.Tensor("float32", shape, bytes(4 * math.prod(shape)))

    for best in (0, 1, 5):
        assert make(logs(2, 1 + best), 2 * 4 * best).logprobs == logs(2, 1 + best)
    for wrong in (logs(1, 1), logs(3, 1), logs(2, 0), logs(2), logs(2, 1, 1), half(2, 1)):
        with pytest.raises(ValueError, match="2 ids but log probabilities"):
            make(wrong)
    for named in (0, 4, 23, 25, 28):
        with pytest.raises(ValueError, match=f"6 log probabilities of tokens in {named} bytes"):
            make(logs(2, 4), named)
    with pytest.raises(ValueError, match="0 log probabilities of tokens in 4 bytes"):
        make(None, 4)


def test_noise_needs_a_seed_before_a_request_opens() -> None:
    noisy = Sampling(temperature=0.7)
    with pytest.raises(ValueError, match="noise without a seed"):
        m.Open(1, 2, 3, sampling=noisy)
    assert m.Open(1, 2, 3, sampling=noisy.seeded()).sampling.seed is not None
    assert m.Open(1, 2, 3, sampling=Sampling(top_k=3)).sampling.seed is None


def test_a_request_begins_with_less_than_its_prompt() -> None:
    """Its last token is judged anew: its pick is not kept."""
    assert m.Open(1, 3, 9, prefix=(7, 2)).prefix == (7, 2)
    for kept in (0, 3, 4):
        with pytest.raises(ValueError, match=f"{kept} kept tokens of a prompt of 3"):
            m.Open(1, 3, 9, prefix=(7, kept))


def test_taps_ascend() -> None:
    assert m.Open(1, 2, 3, (0, 4, 30)).taps == (0, 4, 30)
    for taps in ((4, 0), (4, 4)):
        with pytest.raises(ValueError, match="are not in ascending order"):
            m.Open(1, 2, 3, taps)
