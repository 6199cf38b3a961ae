"""Makes the pictures of the terminal view from runs of a real ring on this machine.

One request alone, then several at once; what is seen is recorded as `--record` does, and drawn as
`gardener replay` does, at a moment when much goes on. From the
checkout: `python -m benchmarks.captures [--stages N] [--out FOLDER] [--keep FOLDER]`.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from gardener.cli.program import ignore, note
from gardener.cli.view.holder_frame import draw
from gardener.cli.view.holder_watch import HolderWatch
from gardener.cli.view.picture import as_svg, as_text
from gardener.decoding.policy import Bounds
from gardener.holder.answer import collect
from gardener.rings.open import open_ring
from gardener.rings.opened import OpenRing
from gardener.rings.settings import RingSettings
from gardener.watch.record import Recorder, header
from gardener.watch.recording import Recording, read
from gardener.watch.status import HolderStatus

QUESTIONS = (
    "Write a story about a gardener who plants a tree of tokens.",
    "Explain to a child why the sky is blue in the day and red in the evening.",
    "List ten vegetables that grow well in a cold garden, with a line about each.",
    "Why do leaves fall?",
)
"""The last one waits: it is one more than run at once."""

PICTURES = (
    ("view.svg", 1, (100, 30)),
    ("view-80x24.svg", len(QUESTIONS), (80, 24)),
    ("view-160x50.svg", len(QUESTIONS), (160, 50)),
    ("holder-80x24.txt", 1, (80, 24)),
    ("holder-160x50.txt", 1, (160, 50)),
)
"""File, requests at once, columns and lines."""

LIKELY = 0.03
"""Probability from which on a node is worth being shown."""

BEGUN = 150
"""Tokens after which a request is well under way."""

HEAD_START = 0.6
"""Seconds between two requests, so that they do not all do the same at the same time."""


async def ask(ring: OpenRing, question: str, options: argparse.Namespace) -> None:
    """One request; policies that keep several segments under way are what there is to see."""
    await collect(
        ring.ask(
            question,
            max_new_tokens=options.tokens,
            policy=options.policy,
            bounds=Bounds(rows=16, floor=0.2),
            ignore_eos=True,  # else some end before the picture is taken
        ),
        ignore,
    )


async def recorded(
    ring: OpenRing, path: Path, questions: Sequence[str], options: argparse.Namespace
) -> Recording:
    """What is seen while these are asked at once."""
    recorder = Recorder(path, header(ring.settings.model, None), note)
    watch = HolderWatch("", recorder=recorder, shown=False)
    watch.begin(ring.holder, ring.prompter.backend)
    async with watch, asyncio.TaskGroup() as group:
        for question in questions:
            group.create_task(ask(ring, question, options))
            await asyncio.sleep(HEAD_START)
    return read(path)


def best(recording: Recording, requests: int) -> HolderStatus:
    """A picture in which as many requests write as can, the large one is well under way and at work
    at all stages, and much is likely."""

    def worth(status: HolderStatus) -> tuple[bool, bool, int, int]:
        writing = [each for each in status.others if each.state == "writing"]
        likely = sum(each.probability > LIKELY for each in status.tree)
        stages = {each.stage for each in status.segments if each.request == status.request}
        begun = status.figures.counts.emitted > BEGUN
        return len(writing) == max(requests - 2, 0), begun, len(stages), min(likely, 12)

    return max(map(recording.status, range(len(recording.times))), key=worth)


async def make(options: argparse.Namespace, folder: Path, say: Callable[[str], None]) -> None:
    """All pictures."""
    settings = RingSettings(local=options.stages, max_requests=len(QUESTIONS) - 1)
    async with open_ring(settings, say) as ring:
        seen: dict[int, HolderStatus] = {}
        for count in (len(QUESTIONS), 1):
            path = folder / f"requests-{count}.jsonl.gz"
            seen[count] = best(await recorded(ring, path, QUESTIONS[:count], options), count)
    for name, count, size in PICTURES:
        picture = draw(seen[count], *size)
        if name.endswith(".svg"):
            text = as_svg(picture, *size, f"gardener, {settings.model}")
        else:
            text = as_text(picture, *size)
        (options.out / name).write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=320, help="of each answer")
    parser.add_argument("--policy", default="gardener")
    parser.add_argument("--out", type=Path, default=Path("docs/captures"))
    parser.add_argument("--keep", type=Path, help="a folder for the recordings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(make(options, options.keep or Path(folder), note))


if __name__ == "__main__":
    main()
