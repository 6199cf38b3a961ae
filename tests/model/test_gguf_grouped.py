"""Quantised tensors of GGUF files as `Grouped` weights and as rows: what the package makes of
them, bit for bit."""

import subprocess
import sys
from pathlib import Path

import gguf
import gguf_models
import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from gardener.errors import UserError
from gardener.model.checkpoint import resolve as models
from gardener.model.checkpoint.gguf_grouped import FORMS, form_of, grouped
from gardener.model.checkpoint.gguf_types import dequantised
from gardener.model.checkpoint.table import GGUFTable
from gardener.model.checkpoint.tensors import EMBEDDING, Checkpoint

LARGE = gguf_models.SIZES | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1}
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))


def checkpoint(path: Path, kind: str) -> tuple[Checkpoint, gguf_models.Written]:
    written = gguf_models.make(path, LlamaConfig(**LARGE), kind)
    return Checkpoint(models.resolve(str(path))), written


@pytest.mark.parametrize("quant", ["int4", "int8"])
@pytest.mark.parametrize("kind", [*FORMS, "IQ4_NL"])
def test_random_bytes_say_what_they_say_to_the_package(kind: str, quant: str) -> None:
    form = form_of(kind, quant)
    if form is None:
        assert (kind, quant) == ("IQ4_NL", "int4")
        return
    size = 3 * 256 // form.block * form.size
    raw = np.random.default_rng(7).integers(0, 256, (24, size), dtype=np.uint8)
    order = np.arange(24).reshape(2, 6, 2).swapaxes(1, 2).reshape(-1)
    found = grouped(raw, order, form)
    assert (found.bits, found.group) == (form.layout.bits, form.layout.group)
    with np.errstate(all="ignore"):
        due = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])[order]
    assert np.array_equal(found.widened().numpy(), due, equal_nan=True)


@pytest.mark.parametrize("kind", list(FORMS))
def test_matrices_of_a_model_are_its_own(tmp_path: Path, kind: str) -> None:
    """Those of q and k, too, whose rows are interleaved in the file."""
    found, written = checkpoint(tmp_path / "a.gguf", kind)
    matrices = {name: value for name, value in written.values.items() if value.ndim == 2}
    assert len(matrices) == 9
    for name, value in matrices.items():
        outputs, inputs = value.shape
        whole = found.grouped(name, "int4", (outputs, inputs))
        assert whole is not None
        assert torch.equal(whole.widened(), value), name
    assert found.grouped("model.norm.weight", "int4") is None
    with pytest.raises(UserError, match=r"shape \(512, 256\), config\.json says \(512, 255\)"):
        found.grouped(UP, "int4", (512, 255))


def test_floats_are_left_to_whoever_asks(tmp_path: Path) -> None:
    found, _ = checkpoint(tmp_path / "a.gguf", "F16")
    assert found.grouped(UP, "int4") is None


def test_scales_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    _, written = checkpoint(tmp_path / "a.gguf", "Q4_0")
    raw = written.tensors["blk.0.ffn_up.weight"][0]
    raw[7, :2] = np.array([np.inf], np.float16).view(np.uint8)
    gguf_models.write(tmp_path / "b.gguf", written.metadata, written.tensors)
    odd = Checkpoint(models.resolve(str(tmp_path / "b.gguf")))
    with pytest.raises(UserError, match=r"up_proj\.weight holds values that are not numbers"):
        odd.grouped(UP, "int4")


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_1", "Q6_K"])
def test_rows_of_an_embedding_are_read_alone(tmp_path: Path, kind: str) -> None:
    found, written = checkpoint(tmp_path / "a.gguf", kind)
    due = written.values[EMBEDDING]
    table = found.table(EMBEDDING, (due.shape[0], due.shape[1]))
    found.release()
    tokens = torch.tensor([5, 0, len(due) - 1, 5])
    assert torch.equal(table.rows(tokens).float(), due[tokens])
    assert table.nbytes < due.nbytes
    for odd in (-1, len(due)):
        with pytest.raises(IndexError):
            table.rows(torch.tensor([odd]))
    with pytest.raises(UserError, match=r"has shape .*, config\.json says \(3, 256\)"):
        found.table(EMBEDDING, (3, 256))


def test_a_row_is_what_it_is_among_all(tmp_path: Path) -> None:
    raw = np.random.default_rng(1).integers(0, 120, (40, 2 * 144)).astype(np.uint8)
    rows = GGUFTable(raw, "Q4_K").rows(torch.arange(40))
    assert np.array_equal(rows.numpy(), dequantised(raw, "Q4_K"))


_PEAK = """
import resource, sys
import numpy as np
from gardener.model.checkpoint.gguf_grouped import FORMS, grouped
raw, small = np.full((8192, 4608), 3, np.uint8), np.full((64, 4608), 3, np.uint8)
held = grouped(small, np.arange(64), FORMS["Q4_0"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
held = grouped(raw, np.arange(8192), FORMS["Q4_0"])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 - held.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted otherwise elsewhere")
def test_no_more_is_held_than_comes_out() -> None:
    """The matrix has 67 million numbers: 268 MB in float32."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 30e6
