"""Which kind of quantisation a stage takes, and what it says of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.kernels import machine, quickest
from gardener.model.kernels.interface import Linear, Make
from gardener.rings.settings import RingSettings
from gardener.stages import quant, start
from gardener.stages.load import load_stage
from gardener.stages.measure import Measured
from gardener.stages.phases import Phases
from gardener.stages.quant import decided
from gardener.stages.settings import NodeSettings

CPU = torch.device("cpu")


def timed(monkeypatch: pytest.MonkeyPatch, **milliseconds: float) -> None:
    """Kinds take so long; others lack their package."""

    def seconds(kind: str, dtype: torch.dtype, device: torch.device) -> float:
        if kind.replace("-", "_") not in milliseconds:
            raise UserError(f"{kind} needs a package")
        return milliseconds[kind.replace("-", "_")] / 1000

    monkeypatch.setattr(quickest, "seconds", seconds)
    monkeypatch.setattr(quant, "seconds", seconds)


@pytest.mark.parametrize(
    ("int4", "nf4", "spread", "taken"),
    [
        (1.0, 3.0, 0.0, "int4"),
        (1.0, 0.9, 0.0, "int4"),
        (1.0, 0.5, 0.0, "nf4"),
        (1.0, 0.5, 1e-3, "int4"),
    ],
)
def test_the_fastest_exact_kind_of_4_bits_is_taken(
    int4: float, nf4: float, spread: float, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, int4=int4, nf4=nf4)
    monkeypatch.setattr(quickest, "spread", lambda kind, dtype, device: spread)
    said: list[str] = []
    assert decided("auto", "float32", "cpu", torch.get_num_threads(), said.append) == taken
    assert said == [f"--quant auto: {taken} is the fastest kind of 4 bits here"]


def test_a_kind_that_cannot_be_had_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, nf4=9.0)
    assert quickest.quickest_of_4_bits(CPU, torch.float32) == "nf4"
    timed(monkeypatch, int4=9.0)
    assert quickest.quickest_of_4_bits(CPU, torch.float32) == "int4"
    timed(monkeypatch)
    with pytest.raises(UserError, match="nf4 needs a package"):
        quickest.quickest_of_4_bits(CPU, torch.float32)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that take no time."""
    monkeypatch.setattr(quickest, "_OUTPUTS", 64)
    monkeypatch.setattr(quickest, "_OUTPUTS_THERE", 64)
    monkeypatch.setattr(quickest, "_INPUTS", 128)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU plays a device."""
    monkeypatch.setattr(machine, "has_own_kernels", lambda device: True)


@pytest.mark.parametrize(
    ("kind", "taken", "said"),
    [
        (
            "auto",
            "int4",
            ["--quant auto: int4 is the fastest kind of 4 bits here"],
        ),
        (
            "nf4",
            "nf4",
            ["nf4 takes 2.3 times what bfloat16 takes on this device: its use is to save memory"],
        ),
        ("fp4", "fp4", []),  # hardly slower
        ("llm-int8", "llm-int8", []),
        ("int8", "int8", []),  # widened, as loading says
        ("none", "none", []),
    ],
)
def test_a_device_is_told_what_is_slower_than_16_bits(
    kind: str, taken: str, said: list[str], monkeypatch: pytest.MonkeyPatch, elsewhere: None
) -> None:
    timed(monkeypatch, none=1.0, int4=0.5, nf4=2.3, fp4=1.05, llm_int8=0.9)
    lines: list[str] = []
    assert decided(kind, "bfloat16", "cpu", torch.get_num_threads(), lines.append) == taken
    assert lines == said


def test_a_device_takes_nf4_where_int4_has_no_kernel(
    monkeypatch: pytest.MonkeyPatch, elsewhere: None
) -> None:
    timed(monkeypatch, none=1.0, nf4=2.0)
    lines: list[str] = []
    assert decided("auto", "float16", "cpu", torch.get_num_threads(), lines.append) == "nf4"
    assert lines == [
        "--quant auto: nf4 is the fastest kind of 4 bits here",
        "nf4 takes 2.0 times what float16 takes on this device: its use is to save memory",
    ]


def test_a_device_on_which_bitsandbytes_does_not_work_says_so(
    monkeypatch: pytest.MonkeyPatch, elsewhere: None, small: None
) -> None:
    def fails(quant: str) -> Make:
        def make(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
            raise AssertionError("no operator for MPS\nand a long tale")

        return make

    monkeypatch.setattr(quickest, "quantised", fails)
    quickest.seconds.cache_clear()
    for kind in ("auto", "nf4"):
        with pytest.raises(UserError, match=r"nf4 does not work on cpu \(no operator for MPS\): t"):
            decided(kind, "float32", "cpu", torch.get_num_threads(), pytest.fail)
    with pytest.raises(UserError, match="--quant int4 is widened on cpu"):
        quickest.seconds("int4", torch.float32, CPU)


@pytest.mark.parametrize("kind", ["none", "nf4"])
def test_kinds_are_timed_on_a_device(kind: str, elsewhere: None, small: None) -> None:
    pytest.importorskip("bitsandbytes")
    assert quickest.seconds.__wrapped__(kind, torch.float32, CPU) > 0


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nf4", "nf4 takes 9.0 times what int4 takes on this processor"),
        ("llm-int8", "llm-int8 takes 4.0 times what int8 takes on this processor"),
        ("fp4", None),
        ("int4", None),
        ("none", None),
    ],
)
def test_kinds_that_are_slow_here_say_so(
    kind: str, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, int4=1.0, nf4=9.0, fp4=1.2, int8=2.0, llm_int8=8.0)
    lines: list[str] = []
    assert decided(kind, "float32", "cpu", torch.get_num_threads(), lines.append) == kind
    assert lines == ([said] if said else [])


def test_nothing_is_said_where_there_is_no_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, nf4=9.0)
    assert decided("nf4", "float32", "cpu", torch.get_num_threads(), pytest.fail) == "nf4"


@pytest.mark.parametrize("kind", ["int4", "int8", "nf4", "llm-int8"])
def test_every_kind_can_be_timed(kind: str, small: None) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("bitsandbytes")
    assert quickest.seconds.__wrapped__(kind, torch.float32, CPU) > 0
    assert 0.0 <= quickest.spread(kind, torch.float32, CPU) < 1e-3


def test_local_stages_are_told_both_kinds() -> None:
    told = [*RingSettings(local=2, quant="auto", quant_head="int4").node_options()]
    assert told[told.index("--quant") + 1] == "auto"
    assert told[told.index("--quant-head") + 1] == "int4"


def test_the_card_names_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    tiny.make("llama", tmp_path)
    timed(monkeypatch, int4=1.0, nf4=3.0)
    settings = NodeSettings(
        stage=2,
        peer="127.0.0.1:7002",
        listen="127.0.0.1:7001",
        model=str(tmp_path),
        revision=None,
        stages=2,
        layers=None,
        dtype="float32",
        device="cpu",
        threads=torch.get_num_threads(),
        quant="auto",
        patience=1.0,
    )
    asked, named = (
        start.load(replace(settings, quant=kind), Phases(1), lambda line: None)
        for kind in ("auto", "int4")
    )
    assert asked.quant == named.quant == "int4"
    wide = start.load(replace(settings, quant_head="none"), Phases(1), lambda line: None)
    assert asked.slice == named.slice
    assert asked.memory < wide.memory


@pytest.mark.parametrize(
    ("kind", "head", "shown"),
    [("int4", "auto", "int8"), ("int4", "none", "none"), ("none", "int4", "int4")],
)
def test_the_card_of_every_stage_names_the_kind_of_the_head(
    tmp_path: Path, kind: str, head: str, shown: str
) -> None:
    pytest.importorskip("onnxruntime")
    tiny.make("llama", tmp_path)
    for held in Architecture.read(tmp_path).balance(2):
        stage = load_stage(tmp_path, held, quant=kind, quant_head=head)
        card = start.card_of(stage, 1, Measured((), (), 0, 0, 0.0))
        assert (card.quant, card.head_quant) == (kind, shown)


@pytest.mark.parametrize(("dtype", "forbidden"), [("float32", 1), ("bfloat16", 0)])
def test_float32_has_all_its_bits_before_anything_is_tried(
    dtype: str, forbidden: int, monkeypatch: pytest.MonkeyPatch, elsewhere: None
) -> None:
    done: list[str] = []
    monkeypatch.setattr(machine, "forbid_tf32", lambda device: done.append("forbidden"))

    def seconds(kind: str, dtype: torch.dtype, device: torch.device) -> float:
        done.append("tried")
        return 1.0

    monkeypatch.setattr(quant, "seconds", seconds)
    decided("nf4", dtype, "cpu", torch.get_num_threads(), pytest.fail)
    assert done[: forbidden + 1] == ["forbidden"] * forbidden + ["tried"]


@pytest.mark.parametrize("kind", ["auto", "nf4"])
def test_a_device_without_memory_is_not_taken_for_one_without_the_kernel(
    kind: str, monkeypatch: pytest.MonkeyPatch, elsewhere: None, small: None
) -> None:
    def layer(quant: str, dtype: torch.dtype, device: torch.device) -> Linear:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(quickest, "_layer", layer)
    quickest.seconds.cache_clear()
    with pytest.raises(
        UserError, match=f"cpu has too little memory left to try out --quant {kind}"
    ):
        decided(kind, "float32", "cpu", torch.get_num_threads(), pytest.fail)
