"""How many tokens a verified tree brings, by drafter and size of the tree, and how often guesses
are right by depth.

Trees are not split: each is verified before the next is drafted. Sizes count all rows, the root
among them, and tokens per verification count the one that the target adds itself. The first
verification, which is the prefill, is left out.

Run from the checkout: `python -m benchmarks.acceptance [--data FILE ...] [--prompts 20] [--json]`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.recorded import Drafted, Player, recordings
from gardener.cli.program import note
from gardener.decoding.policy import Bounds, Serial
from gardener.decoding.tree import Guess, Tree
from gardener.draft.calibration import expected_error
from gardener.draft.drafter import Drafter
from gardener.draft.factory import DraftSettings, drafters
from gardener.model.checkpoint.resolve import resolve
from gardener.model.tensors import pack
from gardener.rings.simulate.recording import Recording

OWN = Path(__file__).parent.parent / "gardener" / "evaluation" / "prompts.jsonl"

DEPTHS = 10


def play(made: Sequence[Recording], found: Sequence[Drafter], rows: int) -> Drafted:
    """Play all recordings with trees of this number of rows."""
    policy = Serial(Bounds(rows=rows, window=1, floor=1e-9, batch=10))
    total = Drafted()
    for recording in made:
        total.add(Player(_only(recording, found), found, policy).play())
    return total


def _only(recording: Recording, found: Sequence[Drafter]) -> Recording:
    """Without features, if nobody asks for them."""
    if any(drafter.taps for drafter in found):
        return recording
    return Recording(recording.tokens, recording.prompt, recording.features[:, :0])


def by_depth(made: Sequence[Recording], drafter: Drafter) -> list[tuple[float, float]]:
    """Share of places where the first guess was right, and one of the first four, when the last
    true feature is 1, 2, ... tokens before what is guessed."""
    ranks: list[list[int]] = [[] for _ in range(DEPTHS)]
    for recording in made:
        draft = drafter.open(recording.tokens[: recording.prompt])
        taps = len(drafter.taps)
        tokens = recording.tokens
        parts = recording.features[: recording.prompt - 1].chunk(taps, -1)
        draft.settle((), [pack(part) for part in parts])
        tree = Tree(recording.prompt - 1, tokens[recording.prompt - 1])
        for at in range(recording.prompt - 1, len(tokens) - DEPTHS - 1, DEPTHS):
            # The root is the token `at`, and its row needs the features up to the one before.
            path = [tree[tree.root]]
            for token in tokens[at + 1 : at + DEPTHS]:
                path.append(tree.graft(path[-1].id, token, 0.0))
            guesses = draft.expand([path[: end + 1] for end in range(DEPTHS)])
            for depth, said in enumerate(guesses):
                ranks[depth].append(_rank(said or (), tokens[at + 1 + depth]))
            for token in tokens[at + 1 : at + 1 + DEPTHS]:
                tree.advance(token)
            features = recording.features[at : at + DEPTHS].chunk(taps, -1)
            draft.settle([*path[1:], tree[tree.root]], [pack(part) for part in features])
    return [
        (float(np.mean([r < 1 for r in each])), float(np.mean([r < 4 for r in each])))
        for each in ranks
    ]


def _rank(said: Sequence[Guess], token: int) -> int:
    return next((rank for rank, guess in enumerate(said) if guess.token == token), len(said) + 4)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as one object."""
    model = resolve(arguments.model, None, say=note)

    def ready(kinds: str) -> list[Drafter]:
        head = arguments.head if "eagle" in kinds else None
        settings = DraftSettings(tuple(kinds.split("+")), head, dtype=arguments.draft_dtype)
        return drafters(settings, model, Path, Path)

    (eagle,) = ready("eagle")
    files = arguments.data or [OWN]
    note(f"recording what the model writes for the prompts of {len(files)} files ...")
    made = recordings(model, files, arguments.prompts, arguments.new_tokens, eagle.taps)
    trees = []
    for kinds in arguments.drafters:
        for rows in arguments.rows:
            note(f"{kinds}, trees of {rows} ...")
            found = ready(kinds)
            done = {name: play(each, found, rows) for name, each in made.items()}
            trees.append(_row(kinds, rows, done))
    note("by depth ...")
    every = [recording for each in made.values() for recording in each]
    return {
        "machine": machine(),
        "trees": trees,
        "by_depth": by_depth([r for r in every if len(r.tokens) - r.prompt > DEPTHS], eagle),
    }


def _row(kinds: str, rows: int, done: dict[str, Drafted]) -> dict[str, Any]:
    rates = {name: each.emitted / max(each.verifications, 1) for name, each in done.items()}
    total = Drafted()
    for each in done.values():
        total.add(each)
    error = {
        name: expected_error(*np.array(said, dtype=float).reshape(-1, 2).T)
        for name, said in (("paths", total.paths), ("first guesses", total.firsts))
    }
    return {
        "drafters": kinds,
        "rows": rows,
        "tokens_per_verification": rates,
        "mean": float(np.mean(list(rates.values()))),
        "calibration_error": error,
        "draft_ms_per_token": 1000 * total.growth / max(total.emitted, 1),
    }


def show(report: dict[str, Any]) -> None:
    """Tables."""
    names = list(report["trees"][0]["tokens_per_verification"])
    print(f"{'drafters':14} {'rows':>4} " + "".join(f"{name:>11}" for name in names), end="")
    print(f"{'mean':>8}{'ECE paths':>11}{'first':>7}{'ms/token':>10}")
    for row in report["trees"]:
        print(f"{row['drafters']:14} {row['rows']:4} ", end="")
        print("".join(f"{row['tokens_per_verification'][name]:11.2f}" for name in names), end="")
        paths, firsts = row["calibration_error"].values()
        print(f"{row['mean']:8.2f}{paths:11.2%}{firsts:7.2%}{row['draft_ms_per_token']:10.2f}")
    print("\ntokens since the last true feature: first guess right, one of four right")
    for depth, (first, four) in enumerate(report["by_depth"], 1):
        print(f"{depth:3}  {first:6.1%}  {four:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--head", help="a head instead of the one that is shipped")
    parser.add_argument("--data", type=Path, nargs="+", help="JSONL files with `turns`")
    parser.add_argument("--prompts", type=int, default=20, help="of each file")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 16, 32, 60])
    parser.add_argument("--drafters", nargs="+", default=["ngram", "eagle", "ngram+eagle"])
    parser.add_argument("--draft-dtype", default="float32", help="what drafters compute in")
    parser.add_argument("--json", action="store_true")
    report = measure(parser.parse_args())
    if "--json" in sys.argv:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()
