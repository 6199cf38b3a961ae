"""Layers in 4 and 8 bits on a device. Its kernel is played by that of torch for the CPU, which
takes the same scales and zeros; what is packed for the device is looked at without one."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from real_stages import decoded
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.block import Block
from gardener.model.checkpoint.quantised import Quantised
from gardener.model.checkpoint.slices import parse_layers
from gardener.model.checkpoint.split import Stored, split
from gardener.model.device.sizes import FEW, ROWS
from gardener.model.kernels import int4_device, machine
from gardener.model.kernels.batch_invariant import Padded
from gardener.model.kernels.beside import Beside
from gardener.model.kernels.grouped import Grouped
from gardener.model.kernels.grouped_device import on_device
from gardener.model.kernels.int4_device import Int4Linear, Kernel, takes
from gardener.model.kernels.rounding import rounded
from gardener.model.kv_slots import SlotTable
from gardener.model.loader import Loader
from gardener.protocol.messages import Open
from gardener.stages import load
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage

CPU = torch.device("cpu")
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


def _packed_here(steps: Tensor, inner: int) -> Tensor:
    apart = torch.stack((steps & 15, steps >> 4), -1).flatten(1).int()
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(apart, inner)
    return packed


STAND_IN = Kernel(_packed_here, torch.ops.aten._weight_int4pack_mm_for_cpu)


@pytest.fixture(autouse=True)
def _device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU plays a device that has the kernel."""
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(machine, "has_own_kernels", lambda device: True)
    monkeypatch.setitem(int4_device.KERNELS, "cpu", STAND_IN)
    int4_device.works.cache_clear()
    yield
    int4_device.works.cache_clear()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights(group: int, zeros: bool = True, minima: bool = False) -> Grouped:
    made = rounded(drawn(32, 512), 4, group)
    return replace(
        made,
        zeros=made.zeros if zeros else None,
        minima=drawn(32, 512 // group, seed=1) if minima else None,
    )


@pytest.mark.parametrize("group", [32, 64, 128, 256])
@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("minima", [True, False])
def test_weights_are_those_of_the_cpu(group: int, zeros: bool, minima: bool) -> None:
    weight = weights(group, zeros, minima)
    got = Int4Linear(weight, None, CPU)(torch.eye(512).bfloat16()).T.float()
    expected = weight.widened()
    # bfloat16 rounds a scale, a zero and their sum by 2 ** -9 of each.
    size = weight.scales * 8 + (0 if weight.minima is None else weight.minima.abs())
    size = size.repeat_interleave(group, 1) + expected.abs()
    assert ((got - expected).abs() <= 2.0**-8 * size).all()
    assert not torch.equal(got, torch.zeros_like(got))


def test_a_weight_of_zero_remains_near_it() -> None:
    weight = rounded(drawn(32, 512).index_fill(1, torch.tensor([5, 40]), 0.0) + 0.0, 4, 32)
    assert not weight.widened()[:, [5, 40]].any()
    got = Int4Linear(weight, None, CPU)(torch.eye(512).bfloat16()).T.float()
    assert (got[:, [5, 40]].abs() <= 2.0**-5 * weight.scales[:, [0, 1]]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_of_all_dtypes_with_a_bias(dtype: torch.dtype) -> None:
    weight, bias, x = weights(32), drawn(32, seed=3).to(dtype), drawn(5, 512, seed=2).to(dtype)
    got = Int4Linear(weight, bias, CPU)(x)
    expected = torch.nn.functional.linear(x.float(), weight.widened(), bias.float())
    assert got.dtype == dtype
    assert (got.float() - expected).norm() < 0.01 * expected.norm()


def test_a_row_that_is_no_number_gives_none_and_leaves_others_alone() -> None:
    weight = weights(32)
    weight = replace(weight, scales=weight.scales * (torch.arange(32) % 2)[:, None])
    x = drawn(4, 512, seed=2)
    layer = Int4Linear(weight, None, CPU)
    usual = layer(x)
    x[1, 7], x[2, 300] = torch.nan, torch.inf
    got = layer(x)
    assert got[1].isnan().all()
    assert not got[2].isfinite().any()
    assert torch.equal(got[[0, 3]], usual[[0, 3]])


def test_steps_are_turned_about_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the first of two in the high half of a byte."""
    given: list[tuple[Tensor, int]] = []
    monkeypatch.setattr(
        torch.ops.aten,
        "_convert_weight_to_int4pack",
        lambda steps, inner: given.append((steps, inner)),
    )
    int4_device._packed_for_cuda(torch.tensor([[0x21, 0x43], [0xF0, 0x0F]]).to(torch.uint8), 4)
    ((steps, inner),) = given
    assert (steps.tolist(), inner) == ([[0x12, 0x34], [0x0F, 0xF0]], 4)


@pytest.mark.parametrize(("inputs", "inner"), [(512, 8), (192, 4), (96, 2)])
def test_the_device_is_given_what_its_kernel_takes(
    inputs: int, inner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shapes and types alone, by what torch knows of its operations."""
    monkeypatch.setitem(int4_device.KERNELS, "cpu", int4_device.KERNELS["cuda"])
    weight = rounded(drawn(24, inputs), 4, 32)
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = Int4Linear(weight, None, CPU)
        assert layer._packed.shape == (3, inputs // (16 * inner), 32, inner // 2)
        y = layer(torch.empty(5, inputs))
    assert (y.shape, y.dtype) == ((5, 24), torch.float32)


def test_what_the_kernel_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def weight(outputs: int, inputs: int, bits: int = 4, group: int = 32) -> Grouped:
        return rounded(torch.ones(outputs, inputs), bits, group)

    assert takes(weight(16, 64), CPU)
    assert not takes(weight(16, 64, bits=8), CPU)
    assert not takes(weight(16, 64, group=16), CPU)
    assert not takes(weight(12, 64), CPU)
    assert not takes(weight(16, 64), torch.device("mps"))
    wrong = Kernel(
        lambda steps, inner: _packed_here(steps >> 4 | steps << 4, inner), STAND_IN.multiply
    )
    monkeypatch.setitem(int4_device.KERNELS, "cpu", wrong)
    int4_device.works.cache_clear()
    assert not takes(weight(16, 64), CPU)


@pytest.mark.parametrize(("outputs", "inputs"), [(16, 64), (24, 128), (24, 32)])
def test_a_kernel_is_tried_with_tiles_like_those_of_the_weights(
    outputs: int, inputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails for such tiles is not taken for them, and is for others."""

    def pack(steps: Tensor, inner: int) -> Tensor:
        if (len(steps) % 16, inner) == (outputs % 16, inputs // 16):
            raise RuntimeError("no kernel for these")
        return torch.zeros(len(steps), steps.shape[1])

    def multiply(x: Tensor, packed: Tensor, group: int, scales: Tensor) -> Tensor:
        weight = rounded(drawn(len(packed), x.shape[1]), 4, group)
        return (x.float() @ weight.widened().T).bfloat16()

    monkeypatch.setitem(int4_device.KERNELS, "cpu", Kernel(pack, multiply))
    shapes = [(16, 64), (24, 64), (32, 128), (8, 128), (16, 32), (8, 32)]
    found = {shape: takes(rounded(torch.ones(shape), 4, 32), CPU) for shape in shapes}
    alike = [shape for shape in shapes if shape[0] % 16 == outputs % 16 and shape[1] == inputs]
    assert [shape for shape in shapes if not found[shape]] == alike


def test_a_lack_of_memory_is_not_taken_for_that_of_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(steps: Tensor, inner: int) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    weight = rounded(torch.ones(16, 64), 4, 32)
    monkeypatch.setitem(int4_device.KERNELS, "cpu", STAND_IN._replace(pack=full))
    with pytest.raises(torch.OutOfMemoryError):
        takes(weight, CPU)
    monkeypatch.setitem(int4_device.KERNELS, "cpu", STAND_IN)
    assert takes(weight, CPU)


def test_weights_are_packed_a_part_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = rounded(drawn(160, 128), 4, 32)
    whole = Int4Linear(weight, None, CPU)
    heights: list[int] = []

    def pack(steps: Tensor, inner: int) -> Tensor:
        heights.append(len(steps))
        return STAND_IN.pack(steps, inner)

    monkeypatch.setattr(int4_device, "_PART", 64)
    monkeypatch.setitem(int4_device.KERNELS, "cpu", STAND_IN._replace(pack=pack))
    layer = Int4Linear(weight, None, CPU)
    assert heights == [64, 64, 32]
    assert torch.equal(layer._packed, whole._packed)


def test_a_layer_has_the_few_sizes_and_keeps_4_bits() -> None:
    weight = weights(32)
    made = on_device("w", [weight, weight], drawn(64), torch.float32, CPU)
    assert isinstance(made.layer, Padded)
    assert (made.widened, made.few, made.layer.spread) == (0, True, 0.0)
    assert [made.layer.keeps(rows) for rows in (*FEW, *ROWS)] == [True] * 8
    assert made.layer.nbytes < 64 * 512


def test_parts_of_other_kinds_are_widened() -> None:
    parts = [weights(32), rounded(drawn(16, 512, seed=4), 8, 32), weights(16)]
    bias, x = drawn(80, seed=5), drawn(3, 512, seed=6)
    made = on_device("w", parts, bias, torch.float32, CPU)
    assert isinstance(made.layer, Beside)
    assert (made.widened, made.few) == (48 * 512, True)
    expected = torch.nn.functional.linear(x, torch.cat([w.widened() for w in parts]), bias)
    got = made.layer(x)
    assert (got - expected)[:, :32].norm() < 0.01 * expected.norm()
    torch.testing.assert_close(got[:, 32:], expected[:, 32:], rtol=1e-4, atol=1e-3)
    alone = on_device("w", parts[1:], bias[32:], torch.float32, CPU)
    assert (alone.widened, alone.few) == (48 * 512, False)
    torch.testing.assert_close(alone.layer(x), expected[:, 32:], rtol=1e-4, atol=1e-3)


def test_weights_that_are_too_large_are_refused() -> None:
    weight = rounded(drawn(16, 64) * 1e6, 8, 32)
    with pytest.raises(UserError, match=r"model\.w holds numbers that are too large for float16"):
        on_device("model.w", [weight], None, torch.float16, CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder, intermediate_size=64)
    return folder


def test_a_stage_in_4_bits_is_computed_operation_by_operation(folder: Path) -> None:
    architecture = Architecture.read(folder)
    loader = Loader(folder, architecture, torch.bfloat16, CPU, "int4", "int8")
    with torch.inference_mode():
        assert isinstance(loader.block(0, 0), Block)
        assert loader.few
        assert loader.remarks == []
        loader.head()
    assert loader.remarks == [
        "all 0.00195 million weights in int8 were widened to bfloat16, and take its memory: cpu "
        "has no kernel for them"
    ]


def test_what_trials_took_is_given_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Loader(folder, Architecture.read(folder), torch.bfloat16, CPU, "int4")
    given: list[str] = []
    module = SimpleNamespace(empty_cache=lambda: given.append("back"))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    loader.release()
    assert given == []
    monkeypatch.setattr(loader, "_device", torch.device("cuda"))
    loader.release()
    assert given == ["back"]


def test_it_says_what_it_widened(folder: Path) -> None:
    said: list[str] = []
    small = load_stage(folder, quant="int4", quant_head="none", say=said.append)
    assert said == []
    wide = load_stage(folder, quant="int8", quant_head="none", say=said.append)
    assert len(said) == 1
    assert said[0].endswith(
        "million weights in int8 were widened to float32, and take its memory: "
        "cpu has no kernel for them"
    )
    assert small.memory < wide.memory
    assert small.spread == wide.spread == 0.0


def test_a_stage_in_4_bits_writes_in_few_rows_what_it_would_in_many(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From folders that `split` wrote, of which the CPU reads the same numbers."""
    split(folder, parse_layers("0-1,2-3", 4), tmp_path, stored=Stored(quantised=Quantised("int4")))
    sizes: list[int] = []
    monkeypatch.setattr(int4_device, "KERNELS", {"cpu": STAND_IN._replace(multiply=_noted(sizes))})
    stages = [load.load_stage(tmp_path / f"stage-{number}") for number in (1, 2)]
    assert {stage.quant for stage in stages} == {"int4"}
    sizes.clear()
    text = decoded(stages, PROMPT, 12)
    assert set(sizes) == {1, 8}
    sizes.clear()
    placement = SlotTable(20, 50).place(range(20), range(-1, 19), range(20))
    placed = PlacedSegment(1, placement, [*PROMPT, *text])
    picks: tuple[int, ...] = ()
    for stage in stages:
        stage.open(Open(1, 1, 1))
        done = stage.run([placed])
        assert done is not None
        picks = done[0].picks
        placed = PlacedSegment(1, placement, hidden=done[0].hidden, pick_rows=range(7, 19))
    assert list(picks) == text
    assert set(sizes) == {32}


def _noted(sizes: list[int]) -> Callable[[Tensor, Tensor, int, Tensor], Tensor]:
    """The stand-in, which tells how many rows it was given."""

    def multiply(x: Tensor, packed: Tensor, group: int, scales: Tensor) -> Tensor:
        sizes.append(len(x))
        return STAND_IN.multiply(x, packed, group, scales)

    return multiply
