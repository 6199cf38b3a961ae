"""Which sizes of a pass on a device a layer keeps to, found with kernels that are planted here."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import planted
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.device.sizes import FEW, ROWS
from gardener.model.kernels import device_clock, device_trial, machine
from gardener.model.kernels.batch_invariant import Padded, batch_invariant, padded
from gardener.model.kernels.interface import Linear
from gardener.model.kernels.linear import quick_dtype
from gardener.model.kernels.plain import Plain
from gardener.model.kernels.synthetic import repeated, tile
from gardener.model.kernels.trial import Trial

CPU = torch.device("cpu")
INPUTS = 192


class Ways(Plain):
    """Gives a row the same bits at any place of passes that are computed in the same way, of which
    `way` tells the number."""

    def __call__(self, x: Tensor) -> Tensor:
        y = torch.cat([F.linear(row, self._weight) for row in torch.split(x, 1)])
        for _ in range(self.way(len(x))):
            y = torch.nextafter(y, torch.tensor(torch.inf))
        return y

    def way(self, rows: int) -> int:
        return 0


class From32(Ways):
    def way(self, rows: int) -> int:
        return int(rows >= 32)


class EverySize(Ways):
    """As in float32 on a GPU."""

    def way(self, rows: int) -> int:
        return rows.bit_length()


class From16(Ways):
    """A lone row and a few go another way."""

    def way(self, rows: int) -> int:
        return int(rows >= 16)


class By16(Ways):
    """In passes of 16, the place decides."""

    def __call__(self, x: Tensor) -> Tensor:
        y = super().__call__(x)
        if len(x) == 16:
            y[::2] = torch.nextafter(y[::2], torch.tensor(torch.inf))
        return y


class Nothing(Plain):
    """Gives no numbers."""

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight) * torch.nan


def layer(make: Callable[[Tensor, None], Linear]) -> Linear:
    return make(repeated(tile(INPUTS), 96), None)


class Clock:
    """Passes take so long by their number of rows."""

    def __init__(self, **times: float) -> None:
        self._times = {int(rows.removeprefix("of_")): time for rows, time in times.items()}

    def __call__(self, run: Callable[[], object], device: torch.device) -> float:
        assert isinstance(run, partial)
        return self._times[len(run.args[0])]


FLAT = Clock(of_16=9, of_32=9, of_64=9, of_128=9)
STEEP = Clock(of_16=1, of_32=2, of_64=4, of_128=8)


def try_out(
    make: Callable[[Tensor, None], Linear],
    clock: device_trial.Clock = FLAT,
    sizes: tuple[int, ...] = ROWS,
) -> Trial:
    return device_trial.tried(layer(make), INPUTS, torch.float32, CPU, sizes, clock)


def untimed(run: Callable[[], object], device: torch.device) -> float:
    pytest.fail("there is nothing to choose")


@pytest.mark.parametrize("sizes", [ROWS, (*FEW, *ROWS)])
def test_a_kernel_that_does_not_mind_takes_all_sizes(sizes: tuple[int, ...]) -> None:
    assert try_out(Ways, untimed, sizes) == Trial(sizes, 0.0)


@pytest.mark.parametrize(
    ("make", "clock", "taken"),
    [
        (From32, FLAT, (32, 64, 128)),  # 16 are filled up
        (From32, STEEP, (16,)),  # the others are cut
        # What float32 takes on an H100: gate and up of Llama-2-7B, and q, k and v.
        (EverySize, Clock(of_16=215, of_32=189, of_64=360, of_128=465), (32,)),
        (From32, Clock(of_16=128, of_32=156, of_64=157, of_128=301), (32, 64, 128)),
        (By16, STEEP, (32, 64, 128)),  # whatever it takes: 16 are no way out
    ],
)
def test_time_chooses_among_sizes_that_agree(
    make: Callable[[Tensor, None], Linear], clock: device_trial.Clock, taken: tuple[int, ...]
) -> None:
    assert try_out(make, clock) == Trial(taken, 0.0)


def test_few_rows_that_go_another_way_are_filled_up() -> None:
    times = {f"of_{rows}": 5.0 for rows in (*FEW, *ROWS)}
    assert try_out(From16, Clock(**times), (*FEW, *ROWS)) == Trial(ROWS, 0.0)


def test_where_the_place_decides_all_sizes_are_taken_and_it_is_said_how_far_rows_are_off() -> None:
    weight = repeated(tile(INPUTS), 96)
    found = device_trial.tried(
        planted.ByPlace(weight, None), INPUTS, torch.float32, CPU, clock=untimed
    )
    assert found.rows == ROWS
    assert 0 < found.spread < 1e-5
    assert try_out(Nothing, untimed) == Trial(ROWS, 1.0)


def test_a_pass_of_another_size_than_that_of_few_tells_too() -> None:
    """What a row is off in a pass of 128 rows only counts."""

    class Off(planted.Planted):
        def other(self, rows: int) -> Tensor:
            return torch.arange(rows) % (2 if rows < 128 else 3) == 1

    weight = repeated(tile(INPUTS), 96)
    assert device_trial.tried(Off(weight, None), INPUTS, torch.float32, CPU).spread > 0


def test_rows_of_a_trial_stand_at_addresses_like_those_of_a_pass() -> None:
    class Seen(Ways):
        def __call__(self, x: Tensor) -> Tensor:
            assert x.storage_offset() == 0
            return super().__call__(x)

    assert try_out(Seen) == Trial(ROWS, 0.0)


def test_every_size_is_run_before_one_is_timed() -> None:
    seen: list[int] = []

    class Seen(From32):
        def way(self, rows: int) -> int:
            seen.append(rows)
            return super().way(rows)

    def clock(run: Callable[[], object], device: torch.device) -> float:
        assert set(seen) >= set(ROWS)
        return 1.0

    assert try_out(Seen, clock).rows == (32, 64, 128)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU plays a device."""
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(machine, "has_own_kernels", lambda device: True)


@pytest.mark.parametrize("make", [From32, By16, EverySize])
def test_rows_have_the_same_bits_in_all_passes_of_a_device(
    make: Callable[[Tensor, Tensor | None], Linear], elsewhere: None
) -> None:
    weight, rows = torch.randn(24, 64), torch.randn(128, 64)
    made = batch_invariant(make, weight, None)
    whole = made(rows)
    for size in ROWS:
        for first in (0, 128 - size):
            part = slice(first, first + size)
            assert torch.equal(made(rows[part].clone()), whole[part])


def test_what_was_tried_is_kept_by_the_sizes_of_a_pass(elsewhere: None, tmp_path: Path) -> None:
    weight = torch.randn(24, 64)
    for few in (False, True):
        made = padded(
            Ways(weight, None),
            "ways",
            lambda part, outputs: Ways(repeated(part, outputs), None),
            24,
            64,
            torch.float32,
            CPU,
            few=few,
        )
        assert [made.keeps(rows) for rows in (1, 8, 16, 128, 129)] == [few, few, True, True, False]
    kept = (tmp_path / "home" / "kernels.json").read_text()
    assert "passes of (16, 32, 64, 128)" in kept
    assert "passes of (1, 2, 4, 8, 16, 32, 64, 128)" in kept


@pytest.mark.parametrize("rows", [1, 16, 20, 32, 64, 100, 128])
def test_filling_up_and_cutting_look_at_no_values(rows: int) -> None:
    meta = torch.device("meta")
    inner = Plain(torch.empty(8, 4, device=meta), None)
    assert Padded(inner, Trial((32, 64), 0.0))(torch.empty(rows, 4, device=meta)).shape == (rows, 8)


def test_rows_that_happen_to_agree_are_not_said_to_be_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_trial, "spread", lambda *given: 0.0)
    weight = repeated(tile(INPUTS), 96)
    found = device_trial.tried(planted.ByPlace(weight, None), INPUTS, torch.float32, CPU)
    assert found == Trial(ROWS, torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("faster", ["bfloat16", "float32"])
def test_a_device_itself_tells_in_which_dtype_it_multiplies_faster(
    faster: str, monkeypatch: pytest.MonkeyPatch, elsewhere: None
) -> None:
    def clock(run: Callable[[], object], device: torch.device) -> float:
        made = run()
        assert isinstance(made, Tensor)
        return float(made.dtype != getattr(torch, faster))

    monkeypatch.setattr(device_clock, "seconds", clock)
    assert quick_dtype.__wrapped__("cpu") == faster
