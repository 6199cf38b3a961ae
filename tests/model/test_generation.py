"""Settings that a model brings for its own sampling, from files that anybody may have written."""

import json
from pathlib import Path
from typing import Any

import pytest

from gardener.errors import UserError
from gardener.model.checkpoint.generation import own_sampling
from gardener.protocol.sampling import Sampling


def brought(folder: Path, **fields: Any) -> Sampling | None:
    (folder / "generation_config.json").write_text(json.dumps(fields))
    return own_sampling(folder)


def test_all_that_is_said_is_taken(tmp_path: Path) -> None:
    said: dict[str, Any] = {
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
        "min_p": 0.01,
        "repetition_penalty": 1.05,
    }
    found = brought(tmp_path, do_sample=True, eos_token_id=[2, 3], bos_token_id=1, **said)
    assert found == Sampling(**said)


def test_what_is_not_said_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    """But temperature 1: and no top-k of 50, which transformers would take."""
    assert brought(tmp_path, do_sample=True) == Sampling(temperature=1.0)
    assert brought(tmp_path, do_sample=True, top_k=None, top_p=0.9) == Sampling(1.0, 0.9)


@pytest.mark.parametrize("fields", [{}, {"do_sample": False}])
def test_without_do_sample_it_is_the_likeliest_token(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    """What goes with another temperature is kept."""
    found = brought(tmp_path, temperature=0.9, top_p=0.6, **fields)
    assert found == Sampling(0.0, 0.6)


def test_a_file_that_says_nothing_of_it_or_is_not_there(tmp_path: Path) -> None:
    assert own_sampling(tmp_path) is None
    assert brought(tmp_path, eos_token_id=2, temperature=None) is None


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("temperature", "hot", "expected float"),
        ("temperature", -1, "temperature is -1.0: it lies between 0 and 100"),
        ("temperature", float("nan"), "temperature is nan: it lies between"),
        ("top_p", 1.5, "top_p is 1.5: it lies between 0 and 1"),
        ("top_k", 2.5, "expected int"),
        ("top_k", -2, "top_k is -2"),
        ("min_p", [0.1], "expected float"),
        ("repetition_penalty", 0, "repetition_penalty is 0.0: it lies between 0.01 and 100"),
        ("do_sample", "yes", "expected bool"),
    ],
)
def test_what_cannot_be_is_refused_by_name_with_the_way_out(
    tmp_path: Path, field: str, value: object, why: str
) -> None:
    with pytest.raises(UserError, match="mend the file, or give the settings as options") as found:
        brought(tmp_path, **{"do_sample": True, field: value})
    assert str(found.value).startswith(f"{tmp_path / 'generation_config.json'}: {field} is ")
    assert why in str(found.value)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(UserError, match=r"generation_config\.json cannot be read"):
        own_sampling(tmp_path)
