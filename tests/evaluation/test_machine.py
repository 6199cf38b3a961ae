"""What is kept with the figures of an evaluation."""

from importlib.metadata import version

import pytest

from gardener.evaluation.machine import versions


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "onnx", "bitsandbytes", "gguf"])
def test_what_computes_a_stage_is_kept_with_its_version(name: str) -> None:
    pytest.importorskip(name)
    assert versions()[name] == version(name)
