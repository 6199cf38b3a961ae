"""The commands as real processes on the real default model: the same text as transformers, and
what becomes of a stream when something in the ring is killed, stopped or interrupted."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import heads
import pytest
import torch
from asked import Question, answers, counts
from processes import HandMade, Process, at, go_on, gone, hand_made, model_folder, pause

from gardener.decoding.policy import MAIN, Bounds
from gardener.draft.eagle_config import TAPS
from gardener.draft.factory import DraftSettings
from gardener.evaluation.reference import plain_reference
from gardener.holder.prompter import Prompter
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.rings.settings import RingSettings

PROMISED = 5.0
"""Seconds within which the holder names a lost stage."""

SLACK = 4
"""How many times slower than promised a machine that does other things too may be."""

STORY = "Write a story about a gardener who teaches a robot to grow tomatoes."
PROMPTS = (
    STORY,
    "Repeat this three times: a rose is a rose is a rose is a rose.",
    "What is the capital of France?",
)
NEW_TOKENS = 24


@pytest.fixture(scope="module")
def truth() -> dict[str, list[int]]:
    """What transformers writes, by prompt."""
    folder = model_folder()
    prompter = Prompter(folder)
    prompts = [prompter.encode(prompt) for prompt in PROMPTS]
    texts = plain_reference(
        folder, prompts, NEW_TOKENS, prompter.context, prompter.eos, "float32", "cpu"
    )
    return {prompt: tokens for prompt, (tokens, _) in zip(PROMPTS, texts, strict=True)}


@pytest.fixture(scope="module")
def ring() -> Iterator[HandMade]:
    """Three nodes that stay; each test leaves the ring whole."""
    with hand_made(3) as made:
        for stage in (3, 1, 2):
            made.start(stage)
        yield made


@pytest.fixture(scope="module")
def story(ring: HandMade) -> str:
    """What the ring writes while nothing is wrong."""
    return whole(ring)


def whole(ring: HandMade) -> str:
    """The start of the story; whatever happened before, the ring must write it."""
    (answer,) = answers(ring.settings(), Question(STORY, 48))
    assert answer.error is None
    return answer.text


def last_line(process: Process) -> str:
    return process.err.strip().splitlines()[-1]


# --- the text ------------------------------------------------------------------------------------


def reference(prompt: str, how: Sampling) -> list[int]:
    """What transformers writes at these settings."""
    folder = model_folder()
    prompter = Prompter(folder)
    tokens, context, eos = prompter.encode(prompt), prompter.context, prompter.eos
    ((expected, _),) = plain_reference(
        folder, [tokens], NEW_TOKENS, context, eos, "float32", "cpu", how
    )
    return expected


@pytest.mark.parametrize(
    ("stages", "prompt", "rows", "how"),
    [
        (1, PROMPTS[2], None, Sampling(1.0, seed=5)),
        (2, PROMPTS[0], 1, Sampling(0.7, top_p=0.9, seed=5)),
    ],
    ids=["1-warm", "2-one-row-top-p"],
)
def test_every_policy_writes_what_transformers_writes(
    stages: int, prompt: str, rows: int | None, how: Sampling, truth: dict[str, list[int]]
) -> None:
    """The likeliest tokens, and those that a seed picks."""
    bounds = Bounds(rows=rows)
    greedy, drawn = ("gardener", "plain", "serial"), ("gardener", "plain", "serial", "flowspec")
    found = answers(
        RingSettings(local=stages, policies=drawn),
        *(Question(prompt, NEW_TOKENS, name, bounds=bounds) for name in greedy),
        *(Question(PROMPTS[1], NEW_TOKENS, name, how) for name in drawn),
    )
    expected = [truth[prompt]] * len(greedy) + [reference(PROMPTS[1], how)] * len(drawn)
    assert [each.error for each in found] == [None] * len(expected)
    assert [each.tokens for each in found] == expected


@pytest.mark.parametrize(
    ("how", "options"),
    [
        (GREEDY, ()),
        (
            Sampling(1.0, repetition_penalty=1.3, seed=5),
            ("--temperature", "1", "--repetition-penalty", "1.3", "--seed", "5"),
        ),
    ],
    ids=["greedy", "penalty"],
)
def test_the_command_compares_policies(
    how: Sampling, options: tuple[str, ...], ring: HandMade
) -> None:
    with ring.generate(
        *(PROMPTS[1], "--max-new-tokens", str(NEW_TOKENS)),
        *("--policy", "gardener", "--compare", "plain,serial,flowspec", "--json", *options),
    ) as holder:
        assert holder.status() == 0, holder.err
        found = json.loads(holder.out)
    assert found["token_ids"] == reference(PROMPTS[1], how)
    assert found["agree"]
    assert set(found["policies"]) == {"gardener", "plain", "serial", "flowspec"}
    assert found["error"] is None
    assert found["sampling"]["seed"] == how.seed


# --- a ring made by hand -------------------------------------------------------------------------


def test_killed_stages_are_named_and_may_come_back(ring: HandMade, story: str) -> None:
    """Each stream shows too that the ring is whole again after the kill before it."""
    for victim in (1, 2, 3):
        others = [node for stage, node in ring.nodes.items() if stage != victim]
        impatient = ("--patience-lost", "0")
        with ring.generate(STORY, "--max-new-tokens", "400", *impatient) as holder:
            holder.words(12)
            ring.nodes[victim].signal(signal.SIGKILL)
            assert holder.heard("error: .*\n") < PROMISED * SLACK
            ring.start(victim)
            assert holder.status() == 1
        said = re.fullmatch(
            rf"error: stage {victim} at \S+ was lost while it (computed|waited for) segment \d+ "
            r"\(\d+ rows?\), last heard \d\.\d s before: the connection broke; (\d+) tokens were "
            rf"written; start stage {victim} again on \S+ with `gardener-node [^`]*"
            rf"--stage {victim} [^`]*`, then repeat the request",
            last_line(holder),
        )
        assert said, holder.err
        assert int(said[2]) >= 12
        kept = holder.out.strip()
        assert len(kept.split()) >= 12
        assert kept.startswith(story.strip()[: len(kept)])
        assert all(node.alive for node in others)
    assert whole(ring) == story


def test_a_stage_that_stands_still_is_lost_and_recovers(ring: HandMade, story: str) -> None:
    with ring.generate(STORY, "--max-new-tokens", "48") as holder:
        holder.words(8)
        pause(ring.nodes[2])
        try:
            assert holder.heard(r"stage 2 at \S+ was lost while it .*\n") < PROMISED * SLACK
        finally:
            go_on(ring.nodes[2])
        assert holder.status() == 0, holder.err
        assert "before: it went silent; " in holder.err
        assert re.search(r"the ring stands again after \d+\.\d s: the request goes on", holder.err)
        assert holder.out == story + "\n"


def test_a_holder_that_stood_still_blames_no_stage(ring: HandMade, story: str) -> None:
    with ring.generate(STORY, "--max-new-tokens", "48") as holder:
        holder.words(8)
        before = {stage: ring.nodes[stage].err.count("went silent") for stage in (1, 3)}
        pause(holder)
        try:
            for stage, count in before.items():
                node = ring.nodes[stage]
                node.until(lambda node=node, c=count: node.err.count("went silent") > c)  # type: ignore[misc]
        finally:
            go_on(holder)
        assert holder.status() == 0, holder.err
        assert re.search(
            r"this process stood still for \d+ s, so the stages next to it gave it up; "
            r"\d+ tokens were written; the stages are up: up to 120 s are waited",
            holder.err,
        ), holder.err
        assert holder.out == story + "\n"


def test_a_short_stop_and_garbage_at_the_ports_change_nothing(ring: HandMade, story: str) -> None:
    with ring.generate(STORY, "--max-new-tokens", "48") as holder:
        holder.words(8)
        pause(ring.nodes[3])
        for port in ring.ports:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(b"\xff\xff\xff\xff" + os.urandom(512))
        go_on(ring.nodes[3])
        assert holder.status() == 0, holder.err
        assert holder.out == story + "\n"


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["kill", "ctrl-c", "term"],
)
def test_the_stages_outlive_the_holder(
    ring: HandMade, story: str, number: int, status: int
) -> None:
    with ring.generate(STORY, "--max-new-tokens", "400") as holder:
        holder.words(8)
        holder.signal(number)
        assert holder.status() == status
        assert "Traceback" not in holder.err
    if number == signal.SIGKILL:
        assert whole(ring) == story
    assert all(node.alive for node in ring.nodes.values())


def test_a_node_ends_when_it_is_told_to(ring: HandMade) -> None:
    busy = ring.nodes[1]
    with Process(
        *("--stage", "1", "--stages", "3", "--listen", at(ring.ports[1]), "--peer", "127.0.0.1:9"),
        entry="node",
    ) as late:
        assert late.status() == 1
        assert last_line(late) == (
            f"error: {at(ring.ports[1])} is in use: stop what listens there, or choose another "
            "port and start the holder anew with that as its --peer"
        )
    busy.signal(signal.SIGTERM)
    assert busy.status() == 0
    assert last_line(busy) == "stage 1 ends"
    ring.start(1)


# --- a local ring --------------------------------------------------------------------------------


def test_a_local_ring_tells_how_it_comes_to_stand_and_goes_on_after_a_loss(story: str) -> None:
    with Process("generate", STORY, "--local", "3", "--max-new-tokens", "48") as holder:
        holder.heard(r"(?m)^starting 3 stages of smollm2-135m here")
        for stage in (1, 2, 3):
            holder.heard(f"stage {stage} of 3 has loaded its layers")
        holder.heard("the ring stands")
        holder.words(8)
        stages = holder.stages()
        assert sorted(stages) == [1, 2, 3]
        stages[2].kill()
        assert holder.heard("stage 2 was lost .*\n") < PROMISED * SLACK
        holder.heard("; the request goes on|: the request goes on")
        assert holder.status() == 0, holder.err
        assert (
            "its process was killed by SIGKILL (the system does that when memory runs out); "
            "it is started again: up to 120 s are waited" in holder.err
        )
        assert holder.out == story + "\n"
        assert gone(list(stages.values()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_a_local_ring_ends_with_its_holder(number: int) -> None:
    with Process("generate", STORY, "--local", "1", "--max-new-tokens", "400") as holder:
        holder.words(8)
        stages = list(holder.stages().values())
        assert len(stages) == 1
        holder.signal(number)
        assert holder.status() == (130 if number == signal.SIGINT else -9)
        assert gone(stages)
        assert "Traceback" not in holder.err


def test_an_interrupt_while_the_command_still_imports() -> None:
    with Process("generate", STORY, "--local", "2", "--policy", "plain") as holder:
        holder.until(lambda: "libtorch" in mapped(holder))
        holder.signal(signal.SIGINT)
        assert holder.status() == 130
        starting, *said = holder.err.splitlines()
        assert starting.startswith("starting 2 stages of smollm2-135m here")
        assert said == ["interrupted"]


def mapped(process: Process) -> str:
    """Names of the libraries that a process has loaded so far."""
    return " ".join(library.path for library in process.family()[-1].memory_maps())


def test_a_stage_that_cannot_start_is_told_at_once() -> None:
    with Process("generate", STORY, "--local", "2", "--device", "nonsense") as holder:
        assert holder.status() == 1
        said = last_line(holder)
        assert re.match(r"error: stage [12] ended with status 1: error: .*nonsense", said)
        assert holder.out == ""


# --- drafters ------------------------------------------------------------------------------------

HEADS: dict[str, tuple[int, ...]] = {"one-tap": (30,), "three-taps": (2, 15, 27), "eagle-1": ()}
"""Taps of EAGLE-3 heads for the default model; the last one is no EAGLE-3."""


def random_head(kind: str, folder: Path, tokens: Sequence[int]) -> Path:
    """It knows nothing. But an EAGLE-3 names no other tokens than these, so some come true."""
    config = heads.config(
        49152, 576, num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192
    )
    taps = HEADS[kind]
    if not taps:
        tensors = heads.eagle1_tensors(config)
        del tensors["embed_tokens.weight"]  # 113 MB; it takes the model's
        return heads.write(folder, config, tensors, pickled=True)
    kept = torch.tensor(sorted(set(tokens)))
    config |= {"draft_vocab_size": len(kept), TAPS: taps, "target_fingerprint": "0:0"}
    tensors = heads.eagle3_tensors(config, len(taps), lm_head=len(taps) > 1)
    del tensors["t2d"]
    tensors["d2t"] = kept - torch.arange(len(kept))
    return heads.write(folder, config, tensors, pickled=False)


def policies(
    ring: HandMade,
    draft: DraftSettings,
    prompt: str,
    expected: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """The counts of every policy, all of which wrote what was expected."""
    bounds = Bounds(floor=0.001)
    questions = [Question(prompt, NEW_TOKENS, name, bounds=bounds) for name in MAIN]
    found = answers(ring.settings(draft=draft), *questions)
    assert [each.tokens for each in found] == [list(expected)] * len(MAIN)
    return {each.figures.policy: counts(each) for each in found}


@pytest.mark.parametrize(
    ("kind", "draft", "prompt"),
    [
        ("one-tap", "eagle", PROMPTS[0]),
        ("three-taps", "ngram,eagle", PROMPTS[1]),
        ("eagle-1", "eagle", PROMPTS[2]),
    ],
)
def test_heads_change_no_text(
    ring: HandMade,
    tmp_path: Path,
    kind: str,
    draft: str,
    prompt: str,
    truth: dict[str, list[int]],
) -> None:
    head = random_head(kind, tmp_path, truth[prompt])
    kinds = tuple(draft.split(","))
    found = policies(ring, DraftSettings(kinds, head=str(head)), prompt, truth[prompt])
    assert found["plain"]["drafted"] == 0
    serial = found["serial"]  # which waits for its drafters
    assert serial["rows"] > serial["segments"]
    assert serial["wasted"] > 0
    if HEADS[kind]:
        assert serial["named"][str(kinds.index("eagle"))] > 0
        assert serial["missed"] > 0


def test_a_prompt_of_many_segments_with_the_default_drafters(ring: HandMade) -> None:
    """The shipped head and n-gram: the head is asked about n-gram's guesses before the prompt is
    computed to its end."""
    notes = " ".join(
        f"Bed {bed} has {3 * bed} rows of {crop}, which are watered on day {bed % 7}."
        for bed, crop in enumerate(("beans", "leeks", "beets", "kale", "peas") * 7, 1)
    )
    prompt = f"{notes} Summarise these notes."
    names = ("plain", "gardener", "pipedec", "serial", "chunked-80")
    found = answers(ring.settings(), *(Question(prompt, 16, name) for name in names))
    assert found[0].figures.prompt_tokens > 3 * 128
    assert [each.error for each in found] == [None] * len(names)
    assert len(found[0].tokens) == 16
    assert [each.tokens for each in found] == [found[0].tokens] * len(names)
    # This one alone asks the head whatever that costs on this machine.
    assert counts(found[-1])["named"].keys() >= {"1"}


def test_a_model_that_drafts_for_itself_is_right(
    ring: HandMade, truth: dict[str, list[int]]
) -> None:
    with ring.generate(
        *(STORY, "--max-new-tokens", str(NEW_TOKENS), "--policy", "gardener"),
        *("--compare", "plain,serial,chunked,pipedec,flowspec", "--json"),
        *("--draft", "model", "--draft-model", str(model_folder())),
    ) as holder:
        assert holder.status() == 0, holder.err
        found = json.loads(holder.out)
    assert found["error"] is None
    assert found["token_ids"] == truth[STORY]
    assert found["agree"]
    assert set(found["policies"]) == set(MAIN)
    accepted = {name: each["counts"]["accepted"] for name, each in found["policies"].items()}
    assert accepted["plain"] == 0
    # The others may find that drafting, which takes as long as the target, is not worth it.
    assert accepted["flowspec"] > NEW_TOKENS // 2


@pytest.mark.parametrize("draft", ["ngram", "none"])
def test_a_ring_serves_holders_with_other_drafters(
    ring: HandMade, draft: str, truth: dict[str, list[int]]
) -> None:
    prompt = PROMPTS[1]
    kinds = (draft,) if draft != "none" else ()
    found = policies(ring, DraftSettings(kinds), prompt, truth[prompt])
    for name in ("gardener", "serial"):
        assert (found[name]["accepted"] > 0) == (draft == "ngram")
        assert (found[name]["drafted"] > 0) == (draft == "ngram")
