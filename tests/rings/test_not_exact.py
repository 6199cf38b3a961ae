"""A stage whose kernels are not batch-invariant: its card, its ring and every command say so, and a
difference at a near tie is told from a wrong text."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import planted
import pytest
import tiny
from processes import free_ports

from gardener.cli.main import app
from gardener.cli.output import finish
from gardener.cli.view.node_watch import _holds
from gardener.evaluation.near_ties import all_tied, gap
from gardener.evaluation.picking import scorer
from gardener.model.kernels import batch_invariant
from gardener.model.kernels.trial import Trial
from gardener.protocol.messages import Card
from gardener.protocol.sampling import Sampling
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings
from gardener.stages.node import StageNode
from gardener.stages.serve import serve
from gardener.stages.settings import NodeSettings

NOT_EXACT = "near ties may differ: two scores closer than "


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    tiny.make("llama", tmp_path / "model")
    tiny.name_words(tmp_path / "model")
    return tmp_path / "model"


class Standing:
    """A stage that serves: where, what it said, and its card."""

    def __init__(self) -> None:
        self.listen, self.holder = (f"127.0.0.1:{port}" for port in free_ports(2))
        self.said: list[str] = []
        self.card: Card | None = None

    @property
    def ring(self) -> tuple[str, ...]:
        """The options of a command that joins its ring."""
        return ("--peer", self.listen, "--listen", self.holder, "--draft", "ngram")


@contextmanager
def stage(model: Path, dtype: str, quant: str = "none", head: str = "auto") -> Iterator[Standing]:
    """The whole model in one stage, on a thread of this process, where kernels can be planted."""
    standing, ready = Standing(), threading.Event()

    def watch(node: StageNode) -> None:
        standing.card = node.card
        ready.set()

    settings = NodeSettings(
        stage=1,
        peer=standing.holder,
        listen=standing.listen,
        model=str(model),
        revision=None,
        stages=1,
        layers=None,
        dtype=dtype,
        device="cpu",
        threads=1,
        quant=quant,
        patience=5.0,
        quant_head=head,
    )
    loop = asyncio.new_event_loop()
    task = loop.create_task(serve(settings, standing.said.append, watch))
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])))
    thread.start()
    try:
        assert ready.wait(60), standing.said
        yield standing
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(60)
        loop.close()


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    """Its exit status, its JSON, and what else it said."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        app([*words, "--json"], exit_on_error=False)
    finish()
    said = capsys.readouterr()
    return int(end.value.code or 0), json.loads(said.out), said.err


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that succeeds says to people."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        app([*words], exit_on_error=False)
    finish()
    assert not end.value.code
    return capsys.readouterr().err


def asked(standing: Standing, model: Path) -> tuple[str, ...]:
    return (*standing.ring, "--model", str(model), "--raw", "--max-new-tokens", "24")


PARTING = "w5 w6 w5 w6"
"""After this the texts of `plain` and `serial` part where `planted.Coarse` computes."""

GENERATE = ("generate", PARTING, "--policy", "plain", "--compare", "serial")


def verifying(model: Path) -> tuple[str, ...]:
    prompts = model.parent / "prompts.txt"
    prompts.write_text(f"w1 w2 w3 w1 w2\n{PARTING}\n")
    return ("verify", "--prompts", str(prompts), "--policies", "plain,gardener,serial")


def test_a_planted_kernel_is_found_and_everybody_says_so(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted.plant(monkeypatch, planted.Coarse)
    with stage(model, "bfloat16") as standing:
        card = standing.card
        assert card is not None
        assert 1e-3 < card.spread < 0.1
        assert any(line.startswith(NOT_EXACT) for line in standing.said)
        assert "on cpu, near ties may differ, at " in _holds(card, "cpu")

        status, found, said = command(capsys, *GENERATE, *asked(standing, model))
        assert (status, found["agree"], found["near_ties"]) == (0, False, True)
        assert found["exactness"].startswith(NOT_EXACT)
        assert NOT_EXACT not in said  # once, and that is in the JSON

        status, found, said = command(capsys, *verifying(model), *asked(standing, model))
        assert (status, found["reference"], found["different"]) == (0, "plain", 0)
        assert found["exactness"].startswith(NOT_EXACT)
        tied = [each["gap"] for each in found["comparisons"] if each["outcome"] == "tie"]
        assert len(tied) == found["tie"] > 0
        assert 0 <= max(tied) < 0.5

        for words in (GENERATE, verifying(model)):
            assert told(capsys, *words, *asked(standing, model)).count(NOT_EXACT) == 1


def test_in_a_ring_that_claims_to_be_exact_every_difference_is_an_error(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted.plant(monkeypatch, planted.Coarse)
    monkeypatch.setattr(batch_invariant, "tried", lambda *what: Trial((*range(1, 65),), 0.0))
    with stage(model, "bfloat16") as standing:
        assert standing.card is not None
        assert standing.card.spread == 0.0
        status, found, _ = command(capsys, *GENERATE, *asked(standing, model))
        assert (status, found["agree"], found["near_ties"]) == (1, False, False)
        status, found, _ = command(capsys, *verifying(model), *asked(standing, model))
        assert (status, found["tie"]) == (1, 0)
        assert found["different"] > 0


def test_a_kernel_that_can_be_filled_up_is_exact(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted.plant(monkeypatch, planted.Few)
    with stage(model, "bfloat16") as standing:
        assert standing.card is not None
        assert standing.card.spread == 0.0
        status, found, said = command(capsys, *GENERATE, *asked(standing, model))
        assert (status, found["agree"], found["near_ties"]) == (0, True, False)
        assert found["exactness"].startswith("the ring is exact: ")
        assert "exact" not in said


def test_a_quantised_head_is_named_and_only_held_to_the_ring_itself(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    with stage(model, "float32", head="int8") as standing:
        assert any(" on cpu in float32, head int8, " in line for line in standing.said)
        said = told(capsys, "generate", PARTING, *asked(standing, model), "--policy", "plain")
        assert ", float32, head int8\n" in said
        status, found, _ = command(capsys, *verifying(model), *asked(standing, model))
        assert (status, found["reference"], found["different"]) == (0, "plain", 0)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, seed=3)])
def test_the_gap_between_two_tokens_is_that_of_their_scores(
    model: Path, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    planted.plant(monkeypatch, planted.ByPlace)
    prompt, agreed = [1, 2, 3], [4, 5]
    text = prompt + agreed
    logits = tiny.last_logits(tiny.make("llama", model), text)
    scores = scorer(sampling, len(prompt))(text, logits).noisy
    best, second, *_, worst = logits.argsort(descending=True).tolist()

    async def main(standing: Standing) -> None:
        settings = RingSettings(peer=standing.listen, listen=standing.holder, model=str(model))
        async with open_ring(settings) as ring:
            assert ring.exactness.startswith(f"{NOT_EXACT}0.0001 may change places, for ")
            known = ring.holder, ring.prompter, prompt, agreed
            apart = await gap(*known, (best, second), sampling)
            assert apart == pytest.approx(abs(float(scores[best] - scores[second])), abs=1e-4)
            assert await gap(*known, (best, worst), sampling) is None
            assert await gap(*known, (best, None), sampling) is None
            texts = [[*agreed, best, 7], [*agreed, second, 9]]
            told = ring.holder, ring.prompter, prompt
            assert await all_tied(*told, texts[:1] * 2, sampling)
            assert not await all_tied(*told, texts, sampling)
            monkeypatch.setattr("gardener.evaluation.near_ties.near_tie", lambda cards: 1e3)
            assert await all_tied(*told, texts, sampling)
            monkeypatch.setattr("gardener.evaluation.near_ties.near_tie", lambda cards: 0.0)
            assert not await all_tied(*told, texts, sampling)

    with stage(model, "float32") as standing:
        asyncio.run(main(standing))
