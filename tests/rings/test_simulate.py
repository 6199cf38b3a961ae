"""A simulated ring: the recorded text under every policy, exact times, faults, no chance at all."""

import asyncio
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import heads
import msgspec
import one_pass
import pytest
import tiny
import torch
from simulated import (
    LAYERS,
    PROFILE,
    PROMPT,
    TOKENS,
    end_before,
    library,
    recorded,
    run,
    with_ring,
    write,
    written,
)
from transformers import AutoModelForCausalLM

from gardener.decoding.policy import POLICIES
from gardener.decoding.tree import Guess, Node
from gardener.draft.block_drafter import BlockDrafter
from gardener.draft.block_files import load_block
from gardener.draft.calibration import Calibration
from gardener.draft.incremental import Incremental
from gardener.draft.network import DraftRows
from gardener.draft.ngram import NGram
from gardener.draft.small_model import SmallModel
from gardener.errors import LocalError, PeerLost, UserError
from gardener.model.tensors import unpack
from gardener.protocol.messages import Verdict
from gardener.protocol.tensors import Tensor
from gardener.rings import cores as core_sharing
from gardener.rings import local, remarks
from gardener.rings.settings import RingSettings
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.loop import Loop
from gardener.rings.simulate.profile import HolderTerms, Profile, names, read_profile
from gardener.rings.simulate.ring import SimulatedModel, SimulatedRing, simulated_ring
from gardener.rings.simulate.targets import Targets
from gardener.runtime import clock

JITTERY = msgspec.structs.replace(
    PROFILE, link=msgspec.structs.replace(PROFILE.link, jitter_ms=3.0), slow={2: 2.0}
)


def edge(ring: SimulatedRing) -> str:
    """All figures of an answer, and when it was there."""
    session = ring.holder.session
    assert session is not None
    decoding, stage_times = session.speculation, session.stage_times
    return (
        f"{clock.now()!r} {asdict(decoding.counts)} {asdict(stage_times)} {list(ring.holder.trace)}"
    )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("stages", [1, 2, 4, 16])
def test_the_recorded_text_under_every_policy(policy: str, stages: int) -> None:
    async def scenario(ring: SimulatedRing) -> None:
        assert await write(ring, policy) == written()
        assert await write(ring, policy, 5) == written()[:5]

    with_ring(scenario, stages, JITTERY)


def test_a_token_of_plain_decoding_takes_stages_and_links_and_nothing_else() -> None:
    async def scenario(ring: SimulatedRing) -> None:
        begin = clock.now()
        await write(ring, "plain")
        ways = [record.seconds for record in ring.holder.trace if record.what == "judged"]
        # 160 ms in all stages and 1 ms on each of 5 links, and less than 0.1 ms for some bytes.
        assert min(ways[2:]) > 0.165 - 1e-9
        assert max(ways[2:]) <= 0.1651
        # The prompt comes in 2 pieces and a bit with its root, which wait for the first together.
        assert clock.now() - begin == pytest.approx(0.04 + TOKENS * 0.165, abs=3e-3)

    with_ring(scenario, 4)


def test_the_holder_takes_time_for_what_it_handles() -> None:
    """A token of plain decoding is a verdict and a segment, with a row each; the one is handled
    before the other leaves."""
    event, node = 10.0, 1.0

    async def scenario(ring: SimulatedRing) -> float:
        begin = clock.now()
        assert await write(ring, "plain") == written()
        return clock.now() - begin

    dear = msgspec.structs.replace(PROFILE, holder=HolderTerms(event, node))
    more = with_ring(scenario, 4, dear) - with_ring(scenario, 4, PROFILE)
    # The last verdict ends the answer before anybody waits; the prompt came in two pieces more.
    assert more == pytest.approx(2 * (event + node) * 1e-3 * TOKENS, rel=0.1)


def test_a_busy_holder_hears_nothing_and_lets_nothing_leave() -> None:
    async def scenario(ring: SimulatedRing) -> None:
        times: list[float] = []
        judged = ring.holder.judged

        def noted(verdict: Verdict) -> None:
            times.append(clock.now())
            judged(verdict)

        ring.holder.judged = noted  # type: ignore[method-assign]
        for policy in ("gardener", "flowspec"):
            assert await write(ring, policy) == written()
        # Two verdicts are never handled within the time that one takes.
        assert min(b - a for a, b in pairwise(times)) >= 0.05 - 1e-9

    dear = msgspec.structs.replace(PROFILE, holder=HolderTerms(50.0, 0.0))
    with_ring(scenario, 4, dear)


def test_what_verdicts_and_cards_say_is_what_the_profile_says() -> None:
    async def scenario(ring: SimulatedRing) -> None:
        assert [card.costs for card in ring.holder.cards] == [
            ((1, 40000), (16, 40000), (32, 80000)),
            ((1, 80000), (16, 80000), (32, 160000)),
            ((1, 40000), (16, 40000), (32, 80000)),
            ((1, 40000), (16, 40000), (32, 80000)),
        ]
        await write(ring, "plain")
        assert ring.holder.session is not None
        stage_times = ring.holder.session.stage_times
        per_segment = [seconds / stage_times.segments for seconds in stage_times.compute]
        assert per_segment == pytest.approx([0.04, 0.08, 0.04, 0.04])

    with_ring(scenario, 4, JITTERY)


def test_the_costs_of_a_simulated_ring_are_those_of_its_profile() -> None:
    async def scenario(ring: SimulatedRing) -> None:
        await write(ring, "plain")
        costs = ring.holder.costs
        assert [costs.stage(k, 16) for k in range(3)] == pytest.approx([0.16 / 3] * 3, rel=1e-4)
        assert [hop.delay for hop in costs.hops] == pytest.approx([0.001] * 4, rel=0.01)
        # 1000 Mbit/s; of one measured over a hop whose frames have some bytes of their own.
        assert [hop.bandwidth for hop in costs.hops] == pytest.approx([1.25e8] * 4, rel=0.01)
        assert costs.round_trip(1) == pytest.approx(0.164, rel=1e-3)

    with_ring(scenario, 3)


def test_two_runs_are_the_same_to_the_last_digit() -> None:
    async def scenario(ring: SimulatedRing) -> str:
        found = []
        for policy in POLICIES:
            await write(ring, policy)
            found.append(edge(ring))
        return "\n".join(found)

    assert with_ring(scenario, 3, JITTERY) == with_ring(scenario, 3, JITTERY)
    other = msgspec.structs.replace(JITTERY, seed=7)
    assert with_ring(scenario, 3, JITTERY) != with_ring(scenario, 3, other)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "async_solipsism", None)
    monkeypatch.delitem(sys.modules, "gardener.rings.simulate.loop")
    with pytest.raises(UserError, match="pip install"):
        importlib.import_module("gardener.rings.simulate.loop")


def test_no_thread_is_started() -> None:
    before = threading.active_count()

    async def scenario(ring: SimulatedRing) -> int:
        await write(ring)
        return threading.active_count()

    assert with_ring(scenario, 4) == before


def test_several_prompts_with_the_same_beginning() -> None:
    other = (*PROMPT[:-1], 2)
    longer = (*PROMPT, 0, 0, 0)
    held = Library([recorded(), recorded(other), recorded(longer)], (LAYERS,))

    async def scenario(ring: SimulatedRing) -> None:
        for prompt in (other, PROMPT, longer, other):
            assert await write(ring, prompt=prompt) == written(prompt)

    with_ring(scenario, 2, held=held)


def test_what_was_not_prepared_ends_the_request_alone() -> None:
    async def scenario(ring: SimulatedRing) -> None:
        with pytest.raises(Exception, match="nothing was recorded for this prompt"):
            await write(ring, prompt=(4, 4, 4, 4))
        with pytest.raises(Exception, match="longer than the 33 tokens that were recorded"):
            await write(ring, "plain", TOKENS + 10)
        assert await write(ring) == written()

    with_ring(scenario, 2)


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [0.01 * step for step in range(0, 60, 7)])
def test_a_stage_that_dies_is_named_at_every_moment(moment: float) -> None:
    async def scenario(ring: SimulatedRing) -> None:
        def kill() -> None:
            for stage in (2, 3):
                end_before(ring, stage).reset()
            ring.seats[1].task.cancel()

        asyncio.get_running_loop().call_later(moment, kill)
        text: list[int] = []
        with pytest.raises(PeerLost, match="stage 2 at simulated:7002 was lost"):
            await write(ring, text=text)
        assert text == written()[: len(text)]

    with_ring(scenario, 3)


def test_a_cut_cable_costs_the_silence_and_nothing_else() -> None:
    async def scenario(ring: SimulatedRing) -> None:
        begin = clock.now()

        def cut() -> None:
            end = end_before(ring, 3)
            assert end.peer is not None
            end.wire.whole = end.peer.wire.whole = False

        asyncio.get_running_loop().call_later(0.5, cut)
        assert await write(ring) == written()
        assert ring.holder.totals.breaks == 1
        assert 7.5 < clock.now() - begin < 9.0  # the silence, and a run of 3.8 s

    with_ring(scenario, 3)


# --- real drafters -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model of 4 layers, 32 wide."""
    made = tmp_path_factory.mktemp("tiny")
    tiny.make("llama", made)
    return made


def test_every_pass_of_a_drafter_is_charged_and_the_ring_does_not_wait(folder: Path) -> None:
    passes: list[int] = []
    seconds: list[float] = []

    async def scenario(ring: SimulatedRing) -> None:
        assert await write(ring) == written()
        seconds.extend(r.seconds for r in ring.holder.trace if r.what == "grown")

    class Counted(SmallModel):
        def run(self, rows: DraftRows) -> torch.Tensor:
            passes.append(len(rows.embedded))
            return super().run(rows)

    profile = msgspec.structs.replace(PROFILE, drafter=((1, 5.0), (11, 15.0)))
    network = Counted(folder, folder, dtype="float32", device="cpu")
    with_ring(scenario, 2, profile, drafters=[Incremental(network, Calibration())])
    charged = sum(0.004 + 0.001 * rows for rows in passes)
    # The last expansion may not have been answered any more.
    assert 0.5 * charged < sum(seconds) <= charged + 1e-6


def test_features_come_from_the_stages_that_have_them(folder: Path) -> None:
    taps, recording = (1, 9, LAYERS), recorded(taps=3, width=2)
    told: list[torch.Tensor] = []

    class Notes:
        """Never guesses; keeps what it is told."""

        def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
            told.append(torch.cat([unpack(tensor) for tensor in features], 1))

        def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
            return [() for _ in paths]

    class Noting(Incremental):
        def open(self, prompt: Sequence[int], *_: Any, **source: Any) -> Notes:
            return Notes()

    async def scenario(ring: SimulatedRing) -> None:
        await write(ring)

    drafter = Noting(SmallModel(folder, folder, dtype="float32", device="cpu"), Calibration())
    drafter.taps = taps
    with_ring(
        scenario,
        4,
        held=Library([recording], taps),
        model=SimulatedModel(LAYERS, 2),
        drafters=[drafter, NGram()],
    )
    rows = torch.cat(told)
    assert len(PROMPT) + TOKENS - 8 < len(rows) < len(PROMPT) + TOKENS
    assert torch.equal(rows, recording.features[: len(rows)])


def test_an_unknown_slow_drafter_has_no_price() -> None:
    class Slow(NGram):
        instant = False

    async def scenario(ring: SimulatedRing) -> None:
        raise AssertionError("not reached")

    with pytest.raises(LocalError, match="nobody knows what the drafter ngram costs"):
        with_ring(scenario, 2, drafters=[Slow()])


# --- recordings ----------------------------------------------------------------------------------


def test_recordings_are_kept_and_serve_shorter_answers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path))
    prompts = [(1, 2, 3), (4, 5), (6,)]
    said: list[str] = []

    def targets() -> Targets:
        return Targets(folder, frozenset(), (2, 4), said.append)

    first = targets()
    first.prepare(prompts[:2], 6)
    assert said == ["recording what the model writes for 2 prompts, once"]
    again = targets()
    again.prepare(prompts, 4)
    again.prepare(prompts, 4)
    assert said[1:] == ["recording what the model writes for 1 prompt, once"]
    for prompt in prompts[:2]:
        old, new = first.library.get(prompt), again.library.get(prompt)
        assert old is not None
        assert new is not None
        assert old.tokens == new.tokens
        assert len(old.tokens) == len(prompt) + 7
        assert torch.equal(old.features, new.features)
        assert old.features.shape[1] == 2 * 32
    again.prepare(prompts[:1], 20)
    longer = targets()
    longer.prepare(prompts[:1], 20)
    assert len(said) == 3


def test_a_recording_tells_how_far_it_is_and_when_it_is_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path))
    told: list[str] = []
    targets = Targets(folder, frozenset(), progress=told.append)
    targets.prepare([(1, 2)], 2)
    assert told[-2:] == ["recording: 3 of at most 3 tokens written", ""]
    monkeypatch.setattr("gardener.rings.simulate.targets.GROUP", 1)
    targets.prepare([(1, 2), (3,), (4,)], 2)
    assert told[-2:] == ["recording (group 2 of 2): 3 of at most 3 tokens written", ""]


def test_a_cache_that_cannot_be_written_is_noticed_before_anything_is_recorded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file in its place")
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("gardener.rings.simulate.targets.load_whole", None)
    with pytest.raises(UserError, match=r"cannot be made or written .*: set GARDENER_HOME"):
        Targets(folder, frozenset()).prepare([(1, 2)], 2)


def test_a_damaged_recording_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path))
    Targets(folder, frozenset()).prepare([(1, 2)], 2)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="delete it"):
        Targets(folder, frozenset()).prepare([(1, 2)], 2)


def test_a_ring_writes_what_the_model_writes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path))
    targets = Targets(folder, frozenset())
    prompt = (5, 9, 30, 2)
    targets.prepare([prompt], 12)
    held = targets.library.get(prompt)
    assert held is not None
    text = list(prompt)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for _ in range(12):
        text.append(int(tiny.last_logits(model, text).argmax()))

    async def scenario(ring: SimulatedRing) -> None:
        assert await write(ring, new_tokens=12, prompt=prompt) == text[len(prompt) :]

    drafter = Incremental(SmallModel(folder, folder, dtype="float32", device="cpu"), Calibration())
    with_ring(
        scenario,
        2,
        held=targets.library,
        model=SimulatedModel(4, 32),
        drafters=[NGram(), drafter],
    )


def test_a_one_pass_head_drafts_for_a_ring(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path))
    config = one_pass.dspark(target_layer_ids=[0, 1, 2], num_target_layers=4)
    heads.write(tmp_path / "head", config, one_pass.tensors(config), pickled=False)
    network = load_block(tmp_path / "head", folder, dtype="float32", device="cpu")
    targets = Targets(folder, frozenset(), network.taps)
    prompt = (5, 9, 30, 2)
    targets.prepare([prompt], 12)
    held = targets.library.get(prompt)
    assert held is not None
    seconds: list[float] = []

    async def scenario(ring: SimulatedRing) -> None:
        assert await write(ring, new_tokens=12, prompt=prompt) == list(
            held.tokens[len(prompt) :][:12]
        )
        seconds.extend(r.seconds for r in ring.holder.trace if r.what == "grown")

    profile = msgspec.structs.replace(PROFILE, drafter=((1, 5.0), (11, 15.0)))
    with_ring(
        scenario,
        2,
        profile,
        held=targets.library,
        model=SimulatedModel(4, 32),
        drafters=[BlockDrafter(network, Calibration())],
    )
    passes = sum(seconds) / 0.008  # of four rows each, a block
    assert passes > 3
    assert passes == pytest.approx(round(passes))


# --- profiles ------------------------------------------------------------------------------------


def test_the_profiles_of_the_package_are_sound() -> None:
    assert {"loopback", "jetson-7b", "gpu", "cpu"} <= set(names())
    for name in names():
        profile = read_profile(name)
        assert profile.name == name
        assert profile.stage(1, 4)(16) > 0
        assert profile.draft()(8) > 0
    jetson = read_profile("jetson-7b")
    assert jetson.stage(1, 4)(16) == pytest.approx(0.076)
    assert jetson.draft()(16) == pytest.approx(0.23 * 0.075)
    assert read_profile("jetson-7b-slow").stage(2, 4)(16) == pytest.approx(2 * 0.076)
    assert read_profile("jetson-7b-far").link_conditions(8192).delay == 0.02


def test_the_whole_is_shared_by_the_stages_and_the_overhead_is_not() -> None:
    profile = msgspec.structs.replace(PROFILE, overhead_ms=2.0, slow={3: 1.5})
    assert profile.stage(1, 1)(1) == pytest.approx(0.162)
    assert profile.stage(1, 16)(32) == pytest.approx(0.022)
    assert profile.stage(3, 4)(64) == pytest.approx(1.5 * (0.160 + 0.002))


def test_few_bytes_stand_for_many() -> None:
    wide = msgspec.structs.replace(PROFILE, row_bytes=8192)
    assert wide.link_conditions(2048).bandwidth == 125e6 / 4


GOOD = """
model = [[1, 10.0], [8, 20]]
row_bytes = 100
link = { delay_ms = 1.0, bandwidth_mbit = 10.0 }
drafter = [[1, 1.0]]
"""


def read(tmp_path: Path, text: str) -> Profile:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return read_profile(str(path))


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD).name == "mine"
    faster = read(tmp_path, 'base = "jetson-7b"\nseed = 3\nlink = { delay_ms = 7 }')
    assert faster.link.delay_ms == 7
    assert faster.link.bandwidth_mbit == 1000
    assert faster.seed == 3
    assert faster.model == read_profile("jetson-7b").model


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (GOOD.replace("row_bytes = 100\n", ""), "`row_bytes`"),
        (GOOD + "speed = 3", "`speed`"),
        (GOOD.replace("1.0, b", '"fast", b'), "`link.delay_ms`: Expected `float`, got `str`"),
        (GOOD + "slow = { 2 = 0.0 }", "slow"),
        (GOOD + "slow = { x = 2.0 }", "slow"),
        (GOOD.replace("[8, 20]", "[1, 20]"), "`model`: .*ascending rows"),
        (GOOD.replace("[[1, 1.0]]", "[]"), "`drafter`"),
        (GOOD.replace("20", "nan"), "`model"),
        (GOOD + 'base = "nothing"', "no profile nothing"),
        (GOOD + "base = 3", "`base`"),
        (GOOD + "]", "cannot be read"),
    ],
)
def test_errors_name_the_field(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        read(tmp_path, text)


def test_a_profile_is_not_its_own_base(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'base = "{path}"')
    with pytest.raises(UserError, match="its own `base`"):
        read_profile(str(path))


def test_a_ring_needs_a_virtual_clock_and_enough_layers() -> None:
    async def real() -> None:
        async with simulated_ring(2, PROFILE, library(), SimulatedModel(4, 1), []):
            pass

    with pytest.raises(UserError, match="virtual clock"):
        asyncio.run(real())

    async def many() -> None:
        async with simulated_ring(5, PROFILE, library(), SimulatedModel(4, 1), []):
            pass

    with pytest.raises(UserError, match="4 layers cannot be cut into 5"):
        run(many)


# --- the command line ----------------------------------------------------------------------------


def settings(**given: object) -> RingSettings:
    return RingSettings(
        model="m",
        revision=None,
        listen="127.0.0.1:7000",
        dtype="float32",
        device="cpu",
        threads=None,
        quant="none",
        patience=1.0,
        **{"local": None, "peer": None, **given},  # type: ignore[arg-type]
    )


def test_a_ring_is_local_or_there_or_simulated() -> None:
    for given in ({}, {"simulate": 2, "local": 2}, {"simulate": 2, "peer": "oak:7000"}):
        with pytest.raises(UserError, match="--simulate N"):
            settings(**given)


def test_stages_of_a_local_ring_are_told_to_do_without_graphs() -> None:
    assert "--no-graphs" in settings(local=2, graphs=False).node_options()
    assert "--no-graphs" not in settings(local=2).node_options()


def test_stages_of_a_local_ring_share_the_cores_if_they_compute_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core_sharing, "cores", lambda: 4)
    monkeypatch.setattr(remarks, "cores", lambda: 4)

    def threads(**given: Any) -> str:
        options = list(settings(**given).node_options())
        return options[options.index("--threads") + 1]

    alone, others = ("plain", "serial", "alternating"), ("plain", "gardener")
    assert [settings(local=n).crowded for n in (1, 2, 3, 4, 9)] == [False, False, False, True, True]
    # One core is left to others.
    assert [threads(local=n, policies=alone) for n in (1, 2, 4, 9)] == ["3", "2", "3", "3"]
    assert [threads(local=n, policies=others) for n in (1, 2, 4, 9)] == ["3", "2", "1", "1"]
    assert threads(local=4) == "1", "who knows what will run"
    said: list[str] = []
    remarks.tell_sharing(settings(local=4, policies=alone), said.append)
    remarks.tell_sharing(replace(settings(local=4), threads=1), said.append)
    remarks.tell_sharing(replace(settings(local=4), device="cuda"), said.append)
    assert said == [
        "each stage here computes with 3 threads on 4 cores (--threads changes that)",
        "each stage here computes with 1 thread on 4 cores (as --threads says)",
    ]
    assert not settings(peer="oak:7000").crowded
    assert settings(simulate=2, profile="loopback").crowded
    assert not settings(simulate=2, profile="gpu").crowded


@pytest.mark.parametrize(
    ("cores", "stages", "threads"),
    [(1, 1, 1), (2, 1, 1), (2, 2, 1), (8, 1, 7), (8, 2, 4), (8, 9, 1)],
)
def test_no_stage_takes_the_last_core_too(
    monkeypatch: pytest.MonkeyPatch, cores: int, stages: int, threads: int
) -> None:
    monkeypatch.setattr(core_sharing, "cores", lambda: cores)
    assert core_sharing.threads_for(stages, core_sharing.SPARE) == threads
    assert core_sharing.threads_for(1) == cores, "a node that was started by hand"


def test_threads_of_a_local_ring_go_to_sleep_soon_unless_the_user_has_a_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    core_sharing.share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    core_sharing.share_cores()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    core_sharing.share_cores()
    assert local._environment()["GOMP_SPINCOUNT"] == core_sharing.SPINS


def test_a_simulation_runs_on_a_loop_of_its_own() -> None:
    made = settings(simulate=2, profile="gpu").loop()()
    assert isinstance(made, Loop)
    made.close()
    with pytest.raises(UserError, match="no profile nothing"):
        settings(simulate=2, profile="nothing").loop()
