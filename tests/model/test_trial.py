"""What a trial finds in kernels that add up rows in several orders, and what is made of it."""

from pathlib import Path

import planted
import pytest
import torch
import torch.nn.functional as F

from gardener.model.kernels import trial, trials_kept
from gardener.model.kernels.batch_invariant import batch_invariant
from gardener.model.kernels.interface import UNTRIED, Make
from gardener.model.kernels.plain import Plain
from gardener.model.kernels.synthetic import TILE, cancelling, ordinary, repeated, tile
from gardener.model.kernels.trial import Trial, tried

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is planted here is tried here, and nothing else is known."""
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))


def try_out(make: Make, outputs: int, dtype: torch.dtype = torch.bfloat16) -> Trial:
    weight = repeated(tile(576).to(dtype), outputs)
    return tried(make(weight, None), 576, dtype, CPU)


def unlike(make: Make, dtype: torch.dtype, outputs: int = 256, most: int = 40) -> list[int]:
    """The numbers of rows of which some differ from what they are in a pass of `most`."""
    torch.manual_seed(0)
    half, rows = torch.randn(outputs, 288), torch.randn(most, 288)
    layer = batch_invariant(make, torch.cat((half, half), 1).to(dtype), None)
    rows = torch.cat((rows, -1.004 * rows), 1).to(dtype)
    whole = layer(rows)
    return [n for n in range(1, most) if not torch.equal(layer(rows[:n]), whole[:n])]


def test_no_number_of_rows_helps_where_the_place_decides() -> None:
    found = try_out(planted.ByPlace, 128)
    assert 0 < found.spread < 1e-2
    layer = batch_invariant(planted.ByPlace, torch.randn(128, 576).bfloat16(), None)
    assert layer.spread == pytest.approx(found.spread, rel=1e-3)
    assert Plain(torch.eye(2), None).spread == UNTRIED


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_few_rows_in_another_order_are_filled_up(dtype: torch.dtype) -> None:
    good = (*range(4, 18), 20, 24, 28, 32, 40, 48, 56, 64)
    assert try_out(planted.Few, 128, dtype) == Trial(good, 0.0)
    assert unlike(planted.Few, dtype) == []


def test_a_trial_of_64_outputs_would_miss_what_many_do() -> None:
    assert try_out(planted.FewOfMany, 64).rows[0] == 1
    assert try_out(planted.FewOfMany, 65).rows[0] == 4
    assert unlike(planted.FewOfMany, torch.bfloat16) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_row_alone_is_tried_with_sums_of_all_kinds(dtype: torch.dtype) -> None:
    assert try_out(planted.Halves, 128, dtype) == Trial(
        (*range(2, 18), 20, 24, 28, 32, 40, 48, 56, 64), 0.0
    )
    assert unlike(planted.Halves, dtype) == []


def test_passes_of_more_rows_than_keep_to_the_order_are_cut() -> None:
    found = try_out(planted.Large, 128)
    assert (found.rows[0], found.most, found.spread) == (1, 40, 0.0)
    assert unlike(planted.Large, torch.bfloat16, most=150) == []


@pytest.mark.parametrize(("dear", "step"), [(2.0, 1), (1.05, 4)])
def test_in_float32_rows_are_filled_up_only_where_that_costs_little(
    dear: float, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_seconds", lambda layer, x: 1e-6 * (dear if len(x) > 1 else 1))
    found = try_out(planted.Few, 128, torch.float32)
    assert found.rows[0] == step
    assert (0 < found.spread < 1e-5) is (step == 1)


def test_a_slow_kernel_is_tried_with_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_seconds", lambda layer, x: 1.0)
    found = try_out(planted.Few, 128)
    assert (found.rows[0], found.most) == (4, 20)
    assert unlike(planted.Few, torch.bfloat16) == []


@pytest.mark.parametrize("inputs", [1, 2, 63, 64, 70, 127, 128, 576, 1000])
def test_sums_of_a_trial_cancel_out(inputs: int) -> None:
    weight, rows = tile(inputs), cancelling(9, inputs)
    assert (weight.shape, rows.shape) == ((TILE, inputs), (9, inputs))
    assert torch.equal(weight.bfloat16().float(), weight)
    assert torch.equal(weight.half().float()[weight.abs() > 1e-4], weight[weight.abs() > 1e-4])
    left = F.linear(rows.double(), weight.double()).abs().max()
    size = F.linear(ordinary(9, inputs).double(), weight.double()).abs().max()
    assert left < 1e-12 * size
    assert inputs < 2 or rows.abs().sum(1).min() > 0


def test_outputs_repeat_those_of_a_tile() -> None:
    part = torch.arange(6).view(3, 2)
    assert repeated(part, 7)[:, 0].tolist() == [0, 2, 4, 0, 2, 4, 0]


class Counting(Plain):
    """Counts how many were made."""

    made = 0

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight, bias)
        Counting.made += 1


def made_for(outputs: int, dtype: torch.dtype = torch.bfloat16, bias: bool = False) -> int:
    """How many layers are made for one: 1, or 2 if it is tried."""
    before = Counting.made
    weight = torch.ones(outputs, 64, dtype=dtype)
    batch_invariant(Counting, weight, torch.ones(outputs, dtype=dtype) if bias else None)
    return Counting.made - before


def test_each_kind_shape_and_dtype_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [made_for(8), made_for(8), made_for(9), made_for(8, torch.float32)] == [2, 1, 2, 2]
    assert [made_for(8, bias=True), made_for(8, bias=True)] == [2, 1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert [made_for(8), made_for(8)] == [2, 1]


def forget() -> None:
    """As a new process does."""
    trials_kept._in.cache_clear()


def test_what_was_found_is_kept_for_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made_for(8) == 2
    forget()
    assert made_for(8) == 1
    monkeypatch.setattr(trials_kept, "fingerprint", lambda: "another machine")
    forget()
    assert made_for(8) == 2


def test_a_kept_trial_is_what_was_found(tmp_path: Path) -> None:
    file, found, other = tmp_path / "kernels.json", Trial((3, 4, 48), 1e-3), Trial((1,), 0.0)
    assert trials_kept.Trials(file).of("a", lambda: found) == found
    again = trials_kept.Trials(file)
    assert again.of("a", lambda: other) == found
    assert again.of("b", lambda: other) == other


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x80",
        b'{"format":2,"trials":{"a":3}}',
        b'{"format":2,"trials":{}}',
        b'{"format":2,"trials":{"a":{"rows":[],"spread":0}}}',
    ],
)
def test_a_damaged_file_is_written_anew(damage: bytes, tmp_path: Path) -> None:
    file = tmp_path / "home" / "kernels.json"
    assert made_for(8) == 2
    good = file.read_bytes()
    file.write_bytes(damage)
    forget()
    assert made_for(8) == 2
    assert file.read_bytes() == good
    assert [path.name for path in file.parent.iterdir()] == ["kernels.json"]


def test_without_a_file_all_is_tried_once_a_process(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    assert [made_for(8), made_for(8)] == [2, 1]
    forget()
    assert made_for(8) == 2


def test_a_kind_that_has_no_name_is_refused() -> None:
    from functools import partial

    with pytest.raises(ValueError, match="say what kind of kernel"):
        batch_invariant(partial(Plain), torch.eye(4), None)
