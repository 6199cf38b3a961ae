"""Gardener beside llama.cpp: the same GGUF file, greedy, in one run, taking turns.

llama.cpp is that of a Python which has `llama-cpp-python` (`--llama-python`), built on this machine
(with GGML_RPC=ON for rings). A case is `STAGESxTHREADS`: `1x2` is one process with two threads on
either side; `2x1` a ring of two stages of one thread, beside two RPC servers of llama.cpp of one
thread each, which share the layers, over loopback. A rate is that of decoding alone: tokens after
the first one, over the time after the prompt. Every prompt is answered by each in turn, in an order
that turns too, so a ratio is of two answers that stand next to each other.

The default model is its own GGUF file (Q4_1), and its answers end where it ends them; the others
have random weights in Q4_0, are made for this, and write a fixed number of tokens.

    python -m benchmarks.llama_cpp --llama-python PYTHON [--models ...] [--cases 1x1 1x2 2x1]
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.gguf import write
from benchmarks.machine import machine
from benchmarks.shapes import SHAPES
from benchmarks.told import Told
from gardener.cli.program import ignore, note
from gardener.decoding.policy import Bounds, make
from gardener.evaluation.datasets import read_conversations
from gardener.holder.answer import Answer, Wanted, answer
from gardener.holder.rates import prefill
from gardener.model.checkpoint.resolve import home, resolve
from gardener.rings.open import open_ring
from gardener.rings.opened import OpenRing
from gardener.rings.settings import RingSettings

DEFAULT = "smollm2-135m"
CHILD = Path(__file__).parent / "llama_child.py"
LAYERS = {"llama-3.2-1b": 16, "llama-2-7b": 8}
RANDOM_PROMPT = range(300, 332)
"""Tokens that a model of random weights goes on from."""

LLAMA = "llama.cpp"


@dataclass(frozen=True)
class Case:
    """Processes that share the model, and the threads of each."""

    stages: int
    threads: int

    @classmethod
    def read(cls, text: str) -> "Case":
        stages, _, threads = text.partition("x")
        try:
            return cls(int(stages), int(threads))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text} is no STAGESxTHREADS") from error

    def __str__(self) -> str:
        return f"{self.stages}x{self.threads}"


@dataclass
class Compared:
    """One model in one case: tokens per second of each answer, by who wrote it.

    agreed  of each prompt, how many tokens are the same in llama.cpp's text and in that of `plain`
            before the first that is not, and how many there are
    same    whether every policy wrote the same text as `plain`
    """

    model: str
    case: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    agreed: list[tuple[int, int]] = field(default_factory=list)
    same: bool = True

    def ratios(self, policy: str) -> list[float]:
        """To the answer of llama.cpp that stands beside it."""
        return [own / its for own, its in zip(self.rates[policy], self.rates[LLAMA], strict=True)]


@contextmanager
def llama(python: str, file: Path, case: Case) -> Iterator[Told]:
    """llama.cpp with the model loaded, in one process, or over RPC servers."""
    with ExitStack() as stack:
        several = case.stages if case.stages > 1 else 0
        servers = [stack.enter_context(_server(python, case.threads)) for _ in range(several)]
        child = stack.enter_context(Told(LLAMA, (python, "-P", str(CHILD)), {}))
        child.ask("load", path=str(file), threads=case.threads, servers=servers)
        yield child


@contextmanager
def _server(python: str, threads: int) -> Iterator[str]:
    """An RPC server of llama.cpp, by its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = (python, "-P", str(CHILD), "serve", str(port), str(threads))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until it listens there. Ends this program if it does not."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.1)
        if process.poll() is not None:
            break
    raise SystemExit("error: llama.cpp's RPC server does not start: was it built with GGML_RPC=ON?")


@asynccontextmanager
async def ring(options: argparse.Namespace, model: str, case: Case) -> AsyncIterator[OpenRing]:
    """A ring of this machine's own."""
    known: dict[str, Any] = {} if options.quant_head is None else {"quant_head": options.quant_head}
    settings = RingSettings(
        local=case.stages,
        model=model,
        dtype=options.dtype,
        quant=options.quant,
        threads=case.threads,
        keep_prefixes=False,
        policies=tuple(options.policies if model == DEFAULT else ["plain"]),
        **known,
    )
    async with open_ring(settings, note, ignore, ignore) as opened:
        yield opened


async def compare(options: argparse.Namespace, model: str, file: Path, case: Case) -> Compared:
    """All answers of one model in one case."""
    name = DEFAULT if model == DEFAULT else str(file)
    found = Compared(model, str(case))
    with llama(options.llama_python, file, case) as child:
        async with ring(options, name, case) as opened:
            writers = [LLAMA, *opened.settings.policies]
            for prompt in _prompts(options, model, opened):
                await _prompt(options, child, opened, prompt, writers, found)
    return found


def _prompts(options: argparse.Namespace, model: str, opened: OpenRing) -> list[list[int]]:
    if model != DEFAULT:
        return [list(RANDOM_PROMPT)]
    # Every so many, so that all categories are met.
    rows = read_conversations([], None)
    chosen = rows[:: max(len(rows) // options.prompts, 1)][: options.prompts]
    return [list(opened.prompter.encode(row.turns[0])) for row in chosen]


async def _prompt(
    options: argparse.Namespace,
    child: Told,
    opened: OpenRing,
    prompt: Sequence[int],
    writers: Sequence[str],
    found: Compared,
) -> None:
    """One prompt, answered by each writer in every repetition; the first time is not counted."""
    ended = opened.settings.model == DEFAULT  # a random model has no end to come to
    wanted = Wanted(prompt, options.tokens, ignore_eos=not ended)
    plain = await _written(opened, "plain", wanted)
    own: dict[str, list[Answer]] = {name: [] for name in writers if name != LLAMA}
    for repetition in range(options.repeats + 1):
        turn = repetition % len(writers)
        for name in (*writers[turn:], *writers[:turn]):
            if name == LLAMA:
                theirs = await asyncio.to_thread(
                    child.ask, "decode", prompt=list(prompt), count=len(plain.tokens)
                )
                rate = (len(plain.tokens) - 1) / theirs["seconds"]
                found.rates.setdefault(LLAMA, []).extend([rate] if repetition else [])
            else:
                own[name].append(await _written(opened, name, wanted))
    begun = prefill({name: [each.figures.first_token for each in own[name][1:]] for name in own})
    for name, answers in own.items():
        rates = [each.figures.rate(begun.seconds) or 0.0 for each in answers[1:]]
        if name == "plain":  # nothing of it is under way before its first token
            rates = [each.figures.own_rate for each in answers[1:]]
        found.rates.setdefault(name, []).extend(rates)
        found.same &= all(each.tokens == plain.tokens for each in answers)
    found.agreed.append((_common(plain.tokens, theirs["tokens"]), len(plain.tokens)))


async def _written(opened: OpenRing, policy: str, wanted: Wanted) -> Answer:
    got = await answer(opened.holder, opened.prompter, make(policy, Bounds()), wanted)
    if got.error:
        raise SystemExit(f"error: {got.error}")
    return got


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def show(found: Compared) -> None:
    """Medians, and ratios with their spread."""
    print(f"{found.model}, {found.case}:")
    for name, rates in found.rates.items():
        line = f"  {name:12} {statistics.median(rates):7.1f} tokens/s"
        if name != LLAMA:
            ratios = found.ratios(name)
            line += (
                f", {statistics.median(ratios):.2f} times llama.cpp "
                f"({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} answers)"
            )
        print(line)
    texts = ", ".join(f"{same} of {tokens}" for same, tokens in found.agreed)
    print(f"  tokens before llama.cpp's text and plain's part: {texts}")
    if not found.same:
        print("  THE POLICIES' TEXTS DIFFER")
    sys.stdout.flush()


@contextmanager
def files(options: argparse.Namespace) -> Iterator[Iterator[tuple[str, Path]]]:
    """Each model that is asked for, with its GGUF file; those that are made are deleted."""

    def made(scratch: Path) -> Iterator[tuple[str, Path]]:
        for name in options.models:
            if name == DEFAULT:
                resolve(DEFAULT, say=note)
                yield name, home() / "models" / f"{DEFAULT}.gguf"
                continue
            file = scratch / f"{name}.gguf"
            note(f"writing {file}")
            write(file, SHAPES[name].with_layers(options.layers or LAYERS[name]), "Q4_0")
            with _home(scratch / "home"):
                yield name, file
            file.unlink()

    with tempfile.TemporaryDirectory(prefix="gardener-", dir=options.folder) as scratch:
        yield made(Path(scratch))


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """Gardener keeps what it makes of a model in this folder meanwhile."""
    before = os.environ.get("GARDENER_HOME")
    os.environ["GARDENER_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["GARDENER_HOME"]
        if before is not None:
            os.environ["GARDENER_HOME"] = before


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama-python", required=True, metavar="PYTHON")
    names = [DEFAULT, *LAYERS]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--layers", type=int, help="of the random models; default: 16 and 8")
    cases = [Case(1, 1), Case(1, 2), Case(2, 1)]
    parser.add_argument("--cases", nargs="+", type=Case.read, default=cases)
    parser.add_argument(
        "--policies", nargs="+", default=["plain", "gardener"], help="of the default model"
    )
    parser.add_argument("--quant", default="int4")
    parser.add_argument("--quant-head", help="weights of the head; default: as Gardener has them")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int, default=128, help="of an answer, at most")
    parser.add_argument("--prompts", type=int, default=4, help="of the default model")
    parser.add_argument("--repeats", type=int, default=3, help="answers to each prompt")
    parser.add_argument("--folder", type=Path, help="where models are written for a while")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rates there too")
    options = parser.parse_args()
    if "plain" not in options.policies:
        parser.error("--policies needs plain, which the others are held against")
    print(machine(), flush=True)
    done: list[Compared] = []
    with files(options) as models:
        for name, file in models:
            for case in options.cases:
                done.append(uvloop.run(compare(options, name, file, case)))
                show(done[-1])
    if options.json:
        report = {"machine": machine(), "compared": [asdict(each) for each in done]}
        options.json.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
