"""The public face: what a Python program does with `import gardener`."""

import asyncio
import gc
import re
import subprocess
import sys
import tomllib
import weakref
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from processes import model_folder

import gardener
from gardener.evaluation.reference import plain_reference
from gardener.holder.prompter import Prompter
from gardener.model.checkpoint.resolve import home

README = Path(__file__).parents[1] / "README.md"
QUESTION = "Why is the sky blue?"


def programs() -> list[str]:
    """The Python programs in the README."""
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@cache
def reference() -> list[int]:
    """What transformers writes."""
    prompter = Prompter(model_folder())
    prompt = prompter.encode(QUESTION)
    ((tokens, _),) = plain_reference(
        model_folder(), [prompt], 64, prompter.context, prompter.eos, "float32", "cpu"
    )
    return tokens


def truth(new_tokens: int) -> str:
    """The start of it."""
    assert new_tokens <= len(reference())
    return Prompter(model_folder()).backend.decode(reference()[:new_tokens])


def test_the_program_in_the_readme_streams_an_answer() -> None:
    (program,) = programs()
    assert len([line for line in program.splitlines() if line.strip()]) < 15
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == truth(64).strip()


def test_tests_leave_the_cache_of_the_user_alone() -> None:
    """Neither we nor our children see it; the model is the one that the user has, or our own."""
    own = home()
    assert own != Path(platformdirs.user_cache_dir("gardener"))
    program = "from gardener.model.checkpoint.resolve import home; print(home())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(own)
    assert model_folder().parent == own / "models"


def test_every_package_that_is_installed_has_a_version_that_was_tested() -> None:
    """What the project asks for, with all extras, and what that asks for in turn here."""
    text = (README.parent / "constraints.txt").read_text(encoding="utf-8")
    tested = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    project = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = [
        each
        for key, part in project["project"]["optional-dependencies"].items()
        if key != "all"
        for each in part
    ]
    due = [Requirement(each) for each in (*project["project"]["dependencies"], *extras)]
    seen: set[str] = set()
    while due:
        name = canonicalize_name(due.pop().name)
        if name in seen:
            continue
        seen.add(name)
        asked = map(Requirement, metadata.requires(name) or ())
        due += [e for e in asked if e.marker is None or e.marker.evaluate({"extra": ""})]
    # torch asks for setuptools, which pip brings; one of our extras asks for another.
    assert sorted(seen - tested - {"setuptools", "gardener-node"}) == []


def test_importing_it_costs_nothing_and_every_name_is_there() -> None:
    program = (
        "import sys, gardener; "
        "assert not {'torch', 'asyncio', 'rich', 'transformers'} & sys.modules.keys(); "
        "assert all(getattr(gardener, name) is not None for name in gardener.__all__); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert sorted(gardener.__all__) == sorted({*gardener._WHERE, "__version__"})
    with pytest.raises(AttributeError, match="no attribute 'ring'"):
        gardener.ring  # noqa: B018


def test_a_simulated_ring_answers_writes_the_same_and_says_why_it_ends() -> None:
    settings = gardener.RingSettings(
        simulate=3, profile="loopback", model=str(model_folder()), draft=NO_HEAD
    )

    async def main() -> None:
        async with gardener.open_ring(settings) as ring:
            assert [card.stage for card in ring.stages] == [1, 2, 3]
            async with ring.ask(QUESTION, max_new_tokens=12) as session:
                pieces = [piece async for piece in session]
            assert sum(len(piece.tokens) for piece in pieces) == 12
            assert "".join(piece.text for piece in pieces) == truth(12)
            assert session.finish_reason == "length"
            other = ring.ask(QUESTION, max_new_tokens=12, policy="plain")
            assert await other.read() == truth(12)
            stopped = ring.ask(QUESTION, max_new_tokens=12, stop=[truth(12)[5:8]])
            assert await stopped.read() == truth(12)[:5]
            assert stopped.finish_reason == "stop"

    with asyncio.Runner(loop_factory=settings.loop()) as runner:
        runner.run(main())


def test_a_request_tells_the_settings_that_it_runs_with() -> None:
    settings = gardener.RingSettings(simulate=1, model=str(model_folder()), draft=NO_HEAD)

    async def main() -> None:
        async with gardener.open_ring(settings) as ring:
            usual = ring.ask(QUESTION, max_new_tokens=3)
            assert usual.sampling == gardener.Sampling()
            asked = gardener.Sampling(temperature=0.7, top_p=0.9)
            drawn = ring.ask(QUESTION, max_new_tokens=3, sampling=asked).sampling
            assert drawn == gardener.Sampling(temperature=0.7, top_p=0.9, seed=drawn.seed)
            assert drawn.seed is not None
            again = ring.ask(QUESTION, max_new_tokens=3, sampling=drawn)
            assert again.sampling == drawn
            least = gardener.Sampling(min_tokens=2)
            assert ring.ask(QUESTION, max_new_tokens=3, sampling=least).sampling.eos == (0, 2)

    with asyncio.Runner(loop_factory=settings.loop()) as runner:
        runner.run(main())


def test_several_questions_at_once_are_answered_as_each_alone_at_any_temperature() -> None:
    settings = gardener.RingSettings(
        simulate=2, model=str(model_folder()), draft=NO_HEAD, max_requests=2
    )
    questions = (QUESTION, "Name three rivers.", "What is a rose?")
    sampling = gardener.Sampling(temperature=0.8, top_p=0.95, seed=5)

    async def main() -> None:
        async with gardener.open_ring(settings) as ring:

            def ask(question: str) -> gardener.Session:
                return ring.ask(question, max_new_tokens=8, sampling=sampling)

            alone = [await ask(question).read() for question in questions]
            together = await asyncio.gather(*[ask(question).read() for question in questions])
            assert together == alone
            assert alone[0] != truth(8)

    with asyncio.Runner(loop_factory=settings.loop()) as runner:
        runner.run(main())


NO_HEAD = gardener.DraftSettings(kinds=("ngram",))


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"max_new_tokens": 0}, "at least"),
    ({"stop": [""]}, "some text"),
    ({"policy": "gardner"}, "no policy gardner"),
    ({"raw": True, "prompt": ""}, "empty"),
    ({"sampling": gardener.Sampling(min_tokens=300)}, "min_tokens is 300, more than"),
    ({"sampling": gardener.Sampling(logit_bias=((10**6, 1.0),))}, "names token 1000000"),
    ({"ignore_eos": True}, "a simulated ring .* leave ignore_eos out"),
    ({"logprobs": 2}, "a simulated ring .* without log probabilities"),
)


def test_what_cannot_be_asked_is_refused_and_the_ring_goes_on() -> None:
    settings = gardener.RingSettings(simulate=1, model=str(model_folder()), draft=NO_HEAD)

    async def main() -> None:
        async with gardener.open_ring(settings) as ring:
            for more, complaint in REFUSED:
                with pytest.raises(gardener.UserError, match=complaint):
                    ring.ask(**{"prompt": QUESTION, **more})
                assert await ring.ask(QUESTION, max_new_tokens=3).read() == truth(3)

    with asyncio.Runner(loop_factory=settings.loop()) as runner:
        runner.run(main())


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "say where the stages are"),
        ({"local": 2, "peer": "here:1"}, "say where the stages are"),
        ({"local": 0}, "local is 0, and starts at 1"),
        ({"simulate": -1}, "simulate is -1, and starts at 1"),
        ({"local": 2, "dtype": "floaty"}, "dtype floaty is unknown: take float32"),
        ({"local": 2, "quant": "int3"}, "quant int3 is unknown: take none"),
        ({"local": 2, "quant_head": "nf4"}, "quant_head nf4 is unknown: take auto, none, int4"),
    ],
)
def test_settings_that_make_no_ring_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(gardener.UserError, match=complaint):
        gardener.RingSettings(**settings)


def test_a_simulated_ring_on_an_ordinary_loop_is_refused_with_the_way_out() -> None:
    async def main() -> None:
        settings = gardener.RingSettings(simulate=1, model=str(model_folder()), draft=NO_HEAD)
        async with gardener.open_ring(settings):
            """It is not reached."""

    with pytest.raises(gardener.UserError, match=r"on a loop that RingSettings\.loop\(\) makes"):
        asyncio.run(main())


def test_of_a_ring_that_was_left_nothing_is_kept() -> None:
    settings = gardener.RingSettings(simulate=1, model=str(model_folder()), draft=NO_HEAD)

    async def main() -> "weakref.ref[gardener.Session]":
        async with gardener.open_ring(settings) as ring:
            session = ring.ask(QUESTION, max_new_tokens=3)
            assert await session.read() == truth(3)
            return weakref.ref(session)

    with asyncio.Runner(loop_factory=settings.loop()) as runner:
        session = runner.run(main())
    gc.collect()
    assert session() is None


def test_a_ring_that_was_left_takes_no_question() -> None:
    settings = gardener.RingSettings(simulate=1, model=str(model_folder()), draft=NO_HEAD)

    async def main() -> None:
        async with gardener.open_ring(settings) as ring:
            pass
        with pytest.raises(gardener.UserError, match="this ring was closed"):
            ring.ask(QUESTION, max_new_tokens=3)

    with asyncio.Runner(loop_factory=settings.loop()) as runner:
        runner.run(main())
