"""What kept prefixes save, and whether many requests leave something behind: on a real ring.

    python -m benchmarks.sharing --stages 2 --requests 1000

First pairs of prompts that share a long document: the time to the first token of the second one,
beside that of the first, and whether it writes what it writes without keeping. Then three turns of
a chat: the tokens that each reads. Then many short requests, some of them left in the middle, some
at once: memory of all processes, tasks and what is kept, before and after.
"""

import argparse
import asyncio
import json
import random
import statistics
import time

import psutil

import gardener
from benchmarks.machine import machine
from gardener.evaluation.datasets import read_conversations

TOKENS = 24
AT_ONCE = 20
WARM = 100
FACTS = ("cats sleep", "dogs bark", "rain falls", "snow is cold", "bread is good")


async def first_token(session: gardener.Session) -> float:
    """Seconds until it comes."""
    begin = time.perf_counter()
    async for piece in session:
        if piece.tokens:
            break
    return time.perf_counter() - begin


def document(number: int, facts: int) -> str:
    """Another one for each number."""
    rules = (f"Rule {n} says that {FACTS[n * n % len(FACTS)]}." for n in range(facts))
    return f"Document {number}. {' '.join(rules)}"


def kept_tokens(session: gardener.Session) -> int:
    """Tokens of the prompt that were taken from an earlier request."""
    prefix = session.speculation.prefix
    return prefix[1] if prefix else 0


async def pairs(ring: gardener.OpenRing, repeat: int, facts: int) -> list[list[int]]:
    """What the second prompts write."""
    ratios, wrote = [], []
    for number in range(repeat):
        text = document(number, facts)
        one = ring.ask(f"{text} What does rule 1 say?", max_new_tokens=TOKENS)
        alone = await first_token(one)
        await one.read()
        two = ring.ask(f"{text} Name rule 2, please.", max_new_tokens=TOKENS)
        shared = await first_token(two)
        await two.read()
        ratios.append(shared / alone)
        wrote.append(two.tokens)
        print(
            f"{len(two.speculation.prompt)} tokens, {kept_tokens(two)} of them kept: first token "
            f"after {shared * 1e3:.0f} ms, without {alone * 1e3:.0f} ms"
        )
    print(f"median: {statistics.median(ratios):.3f}")
    return wrote


async def chat(ring: gardener.OpenRing) -> None:
    history: list[tuple[str, str]] = []
    for question in ("Tell me about gardens.", "And about trees?", "Which do you like more?"):
        session = ring.ask(question, history=history, max_new_tokens=2 * TOKENS)
        history.append((question, await session.read()))
        prompt = len(session.speculation.prompt)
        print(f"turn {len(history)}: {prompt} tokens, {prompt - kept_tokens(session)} read")


async def many(ring: gardener.OpenRing, requests: int) -> None:
    texts = [each.turns[0] for each in read_conversations([], None)]
    chance = random.Random(0)
    me = psutil.Process()
    processes = (me, *me.children(recursive=True))

    async def ask(number: int) -> None:
        session = ring.ask(texts[number % len(texts)], max_new_tokens=chance.randrange(1, 9))
        if number % 5 == 0:
            await first_token(session)
            session.close()
        elif number % 7 == 0:
            session.close()
        else:
            await session.read()

    def tell(when: str) -> None:
        sizes = [round(each.memory_info().rss / 2**20) for each in processes]
        kept = len(ring.holder.admission.prefixes.kept)
        print(f"{when}: {sizes} MiB, {len(asyncio.all_tasks())} tasks, {kept} kept")

    for number in range(WARM):
        await ask(number)
    tell("before")
    for first in range(0, requests, AT_ONCE):
        await asyncio.gather(*(ask(first + n) for n in range(AT_ONCE)))
    tell(f"after {requests} requests")


async def measure(options: argparse.Namespace) -> None:
    settings = gardener.RingSettings(local=options.stages)
    async with gardener.open_ring(settings) as ring:
        wrote = await pairs(ring, options.repeat, options.facts)
        await chat(ring)
        await many(ring, options.requests)
    unkept = gardener.RingSettings(local=options.stages, keep_prefixes=False)
    async with gardener.open_ring(unkept) as ring:
        again = []
        for number in range(options.repeat):
            prompt = f"{document(number, options.facts)} Name rule 2, please."
            session = ring.ask(prompt, max_new_tokens=TOKENS)
            await session.read()
            again.append(session.tokens)
    print("texts are the same without keeping" if again == wrote else "THE TEXTS DIFFER")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--facts", type=int, default=110, help="about 10 tokens each")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    print(json.dumps(machine()))
    asyncio.run(measure(options))


if __name__ == "__main__":
    main()
