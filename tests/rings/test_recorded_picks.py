"""Recordings of what a model writes with noise and penalties, and which of them is played back."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import sampled
import tiny
from simulated import CONTEXT, LAYERS, PROFILE, PROMPT, recorded

from gardener.errors import LocalError, StageFailed
from gardener.model.checkpoint.slices import Slice
from gardener.model.kv_slots import SlotTable
from gardener.model.loader import load_whole
from gardener.protocol.messages import Open
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.recording import Recording, record
from gardener.rings.simulate.stage import SimulatedStage
from gardener.rings.simulate.targets import Targets
from gardener.rings.simulate.worker import Meter
from gardener.stages.forward import PlacedSegment

PROMPTS = [(3, 1, 4), (1, 5, 9, 2, 6, 5), (3,), (5, 8, 9, 7)]
NOISE = Sampling(1.0, seed=3)
HOW = {
    "noise": NOISE,
    "penalties": Sampling(repetition_penalty=1.4, frequency_penalty=0.2),
    "all": Sampling(0.9, 0.9, 30, 0.001, 1.2, 0.3, 0.2, ((5, 1.0),), 8, 4, (0, 7, 30)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return tiny.make("llama", folder)


def alone(model: Any, prompt: tuple[int, ...], sampling: Sampling, count: int) -> tuple[int, ...]:
    """Prompt and answer."""
    text = list(prompt)
    for _ in range(count):
        logits = tiny.logits(model, text)[-1].tolist()
        text.append(sampled.pick(logits, sampling, text, len(prompt)))
    return tuple(text)


@pytest.mark.parametrize("name", HOW)
def test_a_recording_is_what_the_model_alone_writes(name: str, model: Any, folder: Path) -> None:
    """In lanes that several prompts share one after the other."""
    whole = load_whole(folder, dtype="float32", device="cpu")
    made = record(whole, PROMPTS, 12, frozenset(), [1], lanes=2, sampling=HOW[name])
    for prompt, recording in zip(PROMPTS, made, strict=True):
        assert recording.tokens == alone(model, prompt, HOW[name], 12)
        assert recording.sampling == HOW[name]


@pytest.mark.usefixtures("model")
def test_each_way_to_pick_has_a_recording(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path))
    said: list[str] = []
    prompt, ways = PROMPTS[0], [GREEDY, NOISE, Sampling(1.0, seed=4), HOW["penalties"]]
    for count, way in enumerate(ways, 1):
        Targets(folder, frozenset(), (1,), said.append).prepare([prompt], 8, way)
        assert len(said) == len(list(tmp_path.rglob("*.safetensors"))) == count
    again = Targets(folder, frozenset(), (1,), said.append)
    texts = set()
    for way in (*ways, Sampling(seed=5, top_k=3, eos=(2,)), Sampling(1.0, seed=3, eos=(2,))):
        again.prepare([prompt], 8, way)
        held = again.library.get(prompt, way)
        assert held is not None
        texts.add(held.tokens)
    assert len(said) == len(texts) == len(ways)


@pytest.mark.usefixtures("model")
def test_greedy_recordings_are_named_as_they_always_were(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those on people's disks are not made anew."""
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path))
    Targets(folder, frozenset({9, 7}), (1, 4)).prepare([(1, 2)], 2, Sampling(seed=9))
    (path,) = tmp_path.rglob("*.safetensors")
    key = json.dumps(["float32", [1, 4], [7, 9], [1, 2]])
    assert path.stem == hashlib.sha256(key.encode()).hexdigest()[:32]


@pytest.mark.usefixtures("model")
def test_noise_without_a_seed_cannot_be_recorded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="noise without a seed"):
        Targets(folder, frozenset()).prepare([(1, 2)], 2, Sampling(1.0))


# --- playing back --------------------------------------------------------------------------------


def stage(held: Library) -> SimulatedStage:
    whole = Slice(0, LAYERS, LAYERS)
    return SimulatedStage(whole, held, PROFILE.stage(1, 1), Meter(), width=1)


def first_pick(stage: SimulatedStage, request: int, pieces: int) -> int:
    """After the prompt, which comes in so many pieces."""
    table, last = SlotTable(len(PROMPT), CONTEXT), len(PROMPT) - 1
    picks: tuple[int, ...] = ()
    for piece in range(pieces):
        ids = range(len(PROMPT) * piece // pieces, len(PROMPT) * (piece + 1) // pieces)
        done = stage.run(
            [
                PlacedSegment(
                    request,
                    table.place(ids, [i - 1 for i in ids], ids),
                    tokens=PROMPT[ids.start : ids.stop],
                    pick_rows=[last - ids.start] if last in ids else [],
                )
            ]
        )
        assert done is not None
        picks += done[0].picks
    (pick,) = picks
    return pick


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_request_plays_what_was_picked_as_it_wants(pieces: int) -> None:
    greedy = recorded()
    other = Recording((*PROMPT, 77, 78), len(PROMPT), greedy.features, NOISE)
    played = stage(Library([greedy, other], (LAYERS,)))
    played.open(Open(1, len(PROMPT), CONTEXT))
    played.open(Open(2, len(PROMPT), CONTEXT, sampling=NOISE))
    played.open(Open(3, len(PROMPT), CONTEXT, sampling=Sampling(1.0, seed=4, top_p=0.5)))
    assert first_pick(played, 1, pieces) == greedy.tokens[len(PROMPT)]
    assert first_pick(played, 2, pieces) == 77
    with pytest.raises(
        LocalError, match=r"for this prompt with temperature=1.0, top_p=0.5, seed=4: it must be"
    ):
        first_pick(played, 3, pieces)


def test_log_probabilities_were_not_recorded() -> None:
    with pytest.raises(StageFailed, match="a simulated ring has no log probabilities"):
        stage(Library([recorded()], (LAYERS,))).check_open(Open(1, 7, CONTEXT, logprobs=0))
