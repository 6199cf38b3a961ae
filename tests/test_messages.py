import subprocess
import sys

import pytest

from gardener import messages as m


def test_codes_are_distinct_and_stay() -> None:
    assert {kind.__name__: m.code(kind) for kind in m.MESSAGES} == {
        "Hello": 1, "Welcome": 2, "Survey": 3, "Open": 4, "Close": 5, "Segment": 6,
        "Advance": 7, "Verdict": 8, "Ping": 9, "Pong": 10, "Lost": 11, "Bye": 12,
        "Failed": 13, "Waiting": 14,
    }  # fmt: skip


def test_fields_come_in_the_order_of_the_wire() -> None:
    assert m.fields(m.Lost) == ("stage", "request", "seq", "silent", "why")


def test_a_tensor_has_the_bytes_that_its_shape_takes() -> None:
    assert m.Tensor("bfloat16", (2, 3), bytes(12)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"float32 tensor of shape \(2, 3\) takes 24 bytes"):
        m.Tensor("float32", (2, 3), bytes(12))


def test_a_card_holds_layers_of_its_model() -> None:
    m.Card(0, "holder", "v", 0, 0, 8, 4, "m", "float32", "none", 0)
    with pytest.raises(ValueError, match="layers 4 to 9 do not lie within a model of 8"):
        m.Card(1, "oak", "v", 4, 9, 8, 4, "m", "float32", "none", 0)


def test_the_rows_of_a_segment_agree() -> None:
    hidden = m.Tensor("float16", (2, 1), bytes(4))
    m.Segment(1, 1, (1, 2), (0, 1), (1, 2), (), hidden, ())
    m.Segment(1, 1, (1, 2), (0, 1), (1, 2), (7, 8), None, ())
    with pytest.raises(ValueError, match="2 ids, 1 parents and 2 positions"):
        m.Segment(1, 1, (1, 2), (0,), (1, 2), (7, 8), None, ())
    with pytest.raises(ValueError, match="2 ids but 1 tokens"):
        m.Segment(1, 1, (1, 2), (0, 1), (1, 2), (7,), None, ())
    with pytest.raises(ValueError, match="tokens and hidden states"):
        m.Segment(1, 1, (1, 2), (0, 1), (1, 2), (7, 8), hidden, ())
    with pytest.raises(ValueError, match="1 ids but hidden states of shape"):
        m.Segment(1, 1, (1,), (0,), (1,), (), hidden, ())


def test_every_judged_row_has_a_pick() -> None:
    with pytest.raises(ValueError, match="1 ids but 2 picks"):
        m.Verdict(1, 1, (1,), (7, 8), ())


def test_what_is_printed_cannot_steer_a_terminal() -> None:
    assert m.printable("stage 2\x1b[2J left:\r\n bye\x07\u202e\ud800 \u00e9") == (
        "stage 2?[2J left: bye??? \u00e9"
    )


def test_messages_are_frozen_and_compare_by_value() -> None:
    ping: m.Message = m.Ping(1)
    assert ping == m.Ping(1)
    assert ping not in (m.Ping(2), m.Pong(1))
    with pytest.raises(AttributeError):
        ping.stamp = 2  # type: ignore[misc]


def test_messages_need_neither_torch_nor_asyncio() -> None:
    code = (
        "import sys, gardener.messages;"
        "sys.exit(', '.join({'torch', 'asyncio', 'msgpack'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
