"""A simulated ring writes what a real one does, for models that are not computed as Llama is."""

from pathlib import Path

import pytest
import tiny
from simulated import with_ring, write

from gardener.draft.ngram import NGram
from gardener.rings.simulate.ring import SimulatedModel, SimulatedRing
from gardener.rings.simulate.targets import Targets

PROMPT = (3, 1, 4, 1, 5, 9, 3, 1, 4, 1, 5, 9)
COUNT = 16


@pytest.mark.parametrize(
    "kind", ["mistral", "gemma2", "gemma3", "granite", "phi4-mini", "mixtral", "qwen3-moe"]
)
def test_the_text_of_the_model_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    model = tiny.make(kind, tmp_path)
    text = list(PROMPT)
    for _ in range(COUNT):
        text.append(int(tiny.last_logits(model, text).argmax()))
    targets = Targets(tmp_path, frozenset())
    targets.prepare([PROMPT], COUNT)

    async def scenario(ring: SimulatedRing) -> None:
        for policy in ("plain", "serial", "gardener"):
            assert await write(ring, policy, COUNT, PROMPT) == text[len(PROMPT) :]

    shape = SimulatedModel(tiny.LAYERS, targets.shape.width)
    with_ring(scenario, 2, held=targets.library, model=shape, drafters=[NGram()])
