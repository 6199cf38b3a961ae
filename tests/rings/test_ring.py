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
from processes import HandMade, Process, at, go_on, gone, hand_made, model_folder, pause

from gardener.decoding.policy import MAIN
from gardener.draft.eagle_config import TAPS
from gardener.evaluation.reference import plain_reference
from gardener.holder.prompter import Prompter
from gardener.protocol.sampling import Sampling

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
    with ring.generate(STORY, "--max-new-tokens", "48") as holder:
        assert holder.status() == 0, holder.err
        return holder.out


def last_line(process: Process) -> str:
    return process.err.strip().splitlines()[-1]


# --- the text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "prompt", "options"),
    [(1, PROMPTS[2], ()), (2, PROMPTS[0], ("--rows", "1")), (3, PROMPTS[1], ())],
    ids=["1", "2-one-row", "3"],
)
def test_every_policy_writes_what_transformers_writes(
    stages: int, prompt: str, options: tuple[str, ...], truth: dict[str, list[int]]
) -> None:
    with Process(
        *("generate", prompt, "--local", str(stages), "--max-new-tokens", str(NEW_TOKENS)),
        *("--policy", "gardener", "--compare", "plain,serial", "--json", *options),
    ) as holder:
        assert holder.status() == 0, holder.err
        found = json.loads(holder.out)
    assert found["token_ids"] == truth[prompt]
    assert found["agree"]
    assert set(found["policies"]) == {"gardener", "plain", "serial"}
    assert found["error"] is None


@pytest.mark.parametrize(
    ("stages", "how", "options"),
    [
        (1, Sampling(1.0, seed=5), ("--temperature", "1")),
        (2, Sampling(0.7, top_p=0.9, seed=5), ("--temperature", "0.7", "--top-p", "0.9")),
        (
            3,
            Sampling(1.0, repetition_penalty=1.3, seed=5),
            ("--temperature", "1", "--repetition-penalty", "1.3"),
        ),
    ],
    ids=["1-warm", "2-top-p", "3-penalty"],
)
def test_a_seed_gives_the_same_text_under_every_policy(
    stages: int, how: Sampling, options: tuple[str, ...]
) -> None:
    folder, prompt = model_folder(), PROMPTS[1]
    prompter = Prompter(folder)
    tokens, context, eos = prompter.encode(prompt), prompter.context, prompter.eos
    ((expected, _),) = plain_reference(
        folder, [tokens], NEW_TOKENS, context, eos, "float32", "cpu", how
    )
    with Process(
        *("generate", prompt, "--local", str(stages), "--max-new-tokens", str(NEW_TOKENS)),
        *("--policy", "gardener", "--compare", "plain,serial,flowspec", "--json"),
        *("--seed", "5", *options),
    ) as holder:
        assert holder.status() == 0, holder.err
        found = json.loads(holder.out)
    assert found["token_ids"] == expected
    assert found["agree"]
    assert found["sampling"]["seed"] == 5


# --- a ring made by hand -------------------------------------------------------------------------


def test_killed_stages_are_named_and_may_come_back(ring: HandMade, story: str) -> None:
    """Each stream shows too that the ring is whole again after the kill before it."""
    for victim in (1, 2, 3):
        others = [node for stage, node in ring.nodes.items() if stage != victim]
        with ring.generate(STORY, "--max-new-tokens", "400") as holder:
            holder.words(12)
            ring.nodes[victim].signal(signal.SIGKILL)
            assert holder.heard("error: .*\n") < PROMISED * SLACK
            ring.start(victim)
            assert holder.status() == 1
        said = re.fullmatch(
            rf"error: stage {victim} was lost while it (computed|waited for) segment \d+ "
            r"\(\d+ rows?\), last heard \d\.\d s before: the connection broke; (\d+) tokens are "
            rf"kept; start stage {victim} again, then repeat the request",
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
    with ring.generate(STORY, "--max-new-tokens", "400") as holder:
        holder.words(12)
        pause(ring.nodes[2])
        try:
            assert holder.heard("error: .*\n") < PROMISED * SLACK
        finally:
            go_on(ring.nodes[2])
        assert holder.status() == 1
        assert "error: stage 2 was lost while it " in holder.err
        assert "before: it went silent; " in holder.err
    assert whole(ring) == story


def test_a_holder_that_stood_still_blames_no_stage(ring: HandMade, story: str) -> None:
    with ring.generate(STORY, "--max-new-tokens", "400") as holder:
        holder.words(12)
        before = {stage: ring.nodes[stage].err.count("went silent") for stage in (1, 3)}
        pause(holder)
        try:
            for stage, count in before.items():
                node = ring.nodes[stage]
                node.until(lambda node=node, c=count: node.err.count("went silent") > c)  # type: ignore[misc]
        finally:
            go_on(holder)
        assert holder.status() == 1
        assert re.fullmatch(
            r"error: this process stood still for \d+ s, so the stages next to it gave it up; "
            r"\d+ tokens are kept; the stages are up: repeat the request",
            last_line(holder),
        ), holder.err
    assert whole(ring) == story


def test_a_short_stop_and_garbage_at_the_ports_change_nothing(ring: HandMade, story: str) -> None:
    with ring.generate(STORY, "--max-new-tokens", "48") as holder:
        holder.words(8)
        pause(ring.nodes[3])
        for port in ring.ports:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(b"\xff\xff\xff\xff" + os.urandom(512))
        go_on(ring.nodes[3])
        assert holder.status() == 0, holder.err
        assert holder.out == story


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


def test_a_local_ring_tells_how_it_comes_to_stand() -> None:
    options = ("--local", "2", "--policy", "plain", "--draft", "none", "--max-new-tokens", "2")
    with Process("generate", "Hello", *options) as holder:
        holder.until(lambda: holder.err.startswith("starting 2 stages of smollm2-135m here"))
        holder.heard("stage 1 of 2 has loaded its layers")
        holder.heard("stage 2 of 2 has loaded its layers")
        holder.heard("the ring stands")
        assert holder.status() == 0


def test_a_stage_of_a_local_ring_is_killed() -> None:
    with Process("generate", STORY, "--local", "3", "--max-new-tokens", "400") as holder:
        holder.words(12)
        stages = holder.stages()
        assert sorted(stages) == [1, 2, 3]
        stages[2].kill()
        assert holder.heard("error: .*\n") < PROMISED * SLACK
        assert holder.status() == 1
        said = last_line(holder)
        assert said.startswith("error: stage 2 was lost while it ")
        assert said.endswith(
            "its process was killed by SIGKILL (the system does that when memory runs out); "
            "repeat the command, it starts all stages anew"
        )
        assert len(holder.out.split()) >= 12
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


def policies(holder: Process, expected: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The counts of every policy, all of which wrote what was expected."""
    assert holder.status() == 0, holder.err
    found = json.loads(holder.out)
    assert found["error"] is None
    assert found["token_ids"] == expected
    assert found["agree"]
    return {name: figures["counts"] for name, figures in found["policies"].items()}


ALL = (
    *("--policy", "gardener", "--compare", "plain,serial,chunked,pipedec,flowspec"),
    "--json",
)


@pytest.mark.parametrize(
    ("kind", "draft", "stages", "prompt"),
    [
        ("one-tap", "eagle", 2, PROMPTS[0]),
        ("three-taps", "ngram,eagle", 3, PROMPTS[1]),
        ("eagle-1", "eagle", 2, PROMPTS[2]),
    ],
)
def test_heads_change_no_text(
    tmp_path: Path, kind: str, draft: str, stages: int, prompt: str, truth: dict[str, list[int]]
) -> None:
    head = random_head(kind, tmp_path, truth[prompt])
    with Process(
        *("generate", prompt, "--local", str(stages), "--max-new-tokens", str(NEW_TOKENS)),
        *("--draft", draft, "--head", str(head), "--floor", "0.001", *ALL),
    ) as holder:
        counts = policies(holder, truth[prompt])
    assert set(counts) == set(MAIN)
    assert counts["plain"]["drafted"] == 0
    serial = counts["serial"]  # which waits for its drafters
    assert serial["rows"] > serial["segments"]
    assert serial["wasted"] > 0
    if HEADS[kind]:
        eagle = str(draft.split(",").index("eagle"))
        assert serial["named"][eagle] > 0
        assert serial["missed"] > 0


def test_a_prompt_of_many_segments_with_the_default_drafters() -> None:
    """The shipped head and n-gram: the head is asked about n-gram's guesses before the prompt is
    computed to its end."""
    notes = " ".join(
        f"Bed {bed} has {3 * bed} rows of {crop}, which are watered on day {bed % 7}."
        for bed, crop in enumerate(("beans", "leeks", "beets", "kale", "peas") * 7, 1)
    )
    with Process(
        *("generate", f"{notes} Summarise these notes.", "--local", "2"),
        *("--max-new-tokens", "16", "--policy", "plain"),
        *("--compare", "gardener,pipedec,serial,chunked-80", "--json"),
    ) as holder:
        assert holder.status() == 0, holder.err
        found = json.loads(holder.out)
    assert found["prompt_tokens"] > 3 * 128
    assert found["error"] is None
    assert found["agree"]
    # This one alone asks the head whatever that costs on this machine.
    assert found["policies"]["chunked-80"]["counts"]["named"].keys() >= {"1"}


def test_a_model_that_drafts_for_itself_is_right(truth: dict[str, list[int]]) -> None:
    with Process(
        *("generate", STORY, "--local", "2", "--max-new-tokens", str(NEW_TOKENS)),
        *("--draft", "model", "--draft-model", str(model_folder()), *ALL),
    ) as holder:
        counts = policies(holder, truth[STORY])
    assert counts["plain"]["accepted"] == 0
    # The others may find that drafting, which takes as long as the target, is not worth it.
    assert counts["flowspec"]["accepted"] > NEW_TOKENS // 2


@pytest.mark.parametrize("draft", ["ngram", "none"])
def test_a_ring_serves_holders_with_other_drafters(
    ring: HandMade, draft: str, truth: dict[str, list[int]]
) -> None:
    prompt = PROMPTS[1]
    with ring.generate(
        *(prompt, "--max-new-tokens", str(NEW_TOKENS), "--draft", draft, *ALL)
    ) as holder:
        counts = policies(holder, truth[prompt])
    for name in ("gardener", "serial"):
        assert (counts[name]["accepted"] > 0) == (draft == "ngram")
        assert (counts[name]["drafted"] > 0) == (draft == "ngram")
