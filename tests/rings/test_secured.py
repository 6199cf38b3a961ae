"""A ring of real processes whose links are secured: the same text, and no stranger gets in."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import minted
import pytest
import tiny
from processes import HandMade, Process, at, free_ports, hand_made

from gardener.errors import UserError
from gardener.evaluation.reference import plain_reference
from gardener.holder.prompter import Prompter
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings
from gardener.stages.serve import serve
from gardener.stages.settings import NodeSettings

PROMPT = "w1 w2 w3 w4 w5"
TOKENS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and keys in a folder beside it."""
    folder = tmp_path_factory.mktemp("secured")
    tiny.make("llama", folder / "model")
    tiny.name_words(folder / "model")
    minted.made(folder / "keys")
    minted.made(folder / "other")
    return folder


@pytest.fixture(scope="module")
def ring(folder: Path) -> Iterator[HandMade]:
    with hand_made(2) as made:
        for stage in (1, 2):
            options = ("--model", str(folder / "model"), "--keys", str(folder / "keys"))
            made.start(stage, *options)
        yield made


def asked(ring: HandMade, folder: Path, *options: str) -> Process:
    model = ("--model", str(folder / "model"), "--raw", "--max-new-tokens", str(TOKENS))
    return ring.generate(PROMPT, *model, "--draft", "ngram", *options)


def test_the_text_is_what_it_is_without(ring: HandMade, folder: Path) -> None:
    prompter = Prompter(folder / "model")
    ((tokens, _),) = plain_reference(
        folder / "model",
        [prompter.encode(PROMPT, raw=True)],
        TOKENS,
        prompter.context,
        prompter.eos,
        "float32",
        "cpu",
    )
    with asked(ring, folder, "--keys", str(folder / "keys"), "--json") as holder:
        assert holder.status() == 0, holder.err
        assert json.loads(holder.out)["text"].split() == [f"w{token}" for token in tokens]


@pytest.mark.parametrize(
    ("keys", "here", "there"),
    [
        (None, "this port speaks TLS: start with --keys DIR", "does not speak TLS, it was started"),
        ("other", "its certificate is of another cluster", "our certificate, stage-1 of cluster"),
    ],
)
def test_who_is_refused_and_who_refuses_say_why(
    ring: HandMade, folder: Path, keys: str | None, here: str, there: str
) -> None:
    options = ("--keys", str(folder / keys)) if keys else ()
    with asked(ring, folder, "--patience", "0.5", *options) as holder:
        assert holder.status() == 1
        assert here in holder.err
    ring.nodes[1].heard(there)


@pytest.mark.parametrize("command", ["node", "gardener"])
def test_other_machines_are_not_let_near_without(command: str) -> None:
    peer, here = free_ports(2)
    where = ("--listen", f"0.0.0.0:{here}", "--peer", at(peer))
    words = ("generate", "hello") if command == "gardener" else ("--stage", "1", "--stages", "1")
    with Process(*words, *where, entry=command) as process:
        assert process.status() == 1
        last = process.err.splitlines()[-1]
        assert last.startswith(f"error: --listen 0.0.0.0:{here} can be reached from other machines")
        assert "--insecure" in last


@pytest.mark.parametrize("who", ["node", "holder"])
def test_nor_spares_on_other_machines(who: str) -> None:
    """Nothing is dialled or loaded by then."""
    here, spares = "127.0.0.1:0", "127.0.0.1:7001,10.9.9.9:7001"

    async def start() -> None:
        if who == "node":
            place = (1, "127.0.0.1:7000", here, "no model", None, 1, None, "float32", "cpu", 1)
            await serve(NodeSettings(*place, "none", 0.0, spares=spares), print)
        else:
            peer = RingSettings(model="no model", peer="127.0.0.1:7000", listen=here, spares=spares)
            async with open_ring(peer):
                pass

    with pytest.raises(UserError, match=r"^--spares 10\.9\.9\.9:7001 is not known to be this mach"):
        asyncio.run(start())
