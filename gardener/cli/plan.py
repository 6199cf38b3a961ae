"""`gardener plan`: who should hold what, how fast a ring should be, and what limits it."""

import json
from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli import options as o
from gardener.cli.cluster_options import ClusterFile
from gardener.cli.groups import DRAFTING
from gardener.cli.plan_file import silent, tell_file
from gardener.cli.plan_look import Wish
from gardener.cli.plan_report import report
from gardener.cli.planning import planned
from gardener.cli.program import Misuse, flag, note, result
from gardener.cli.program import run as run_loop
from gardener.cluster.file import read_cluster
from gardener.decoding.policy import SHARING, default_policy
from gardener.evaluation.datasets import read_conversations

PROMPTS = 3
"""Prompts that are tried where nobody says how many."""

PromptsOption = Annotated[
    int,
    Parameter(
        env_var="GARDENER_PROMPTS",
        validator=Number(gte=1, lte=100),
        metavar="N",
        help="How many of the package's prompts are tried, each of another kind.",
    ),
]
AcceptanceOption = Annotated[
    float | None,
    Parameter(
        group=DRAFTING,
        env_var="GARDENER_ACCEPTANCE",
        validator=Number(gt=0.0, lt=1.0),
        metavar="SHARE",
        help="Assume that the drafter's best guess is right so often, instead of trying it on what "
        "the model writes. That is done where the model is too large to be computed here, too.",
    ),
]
RunOption = Annotated[
    bool, flag("--run", help="Ask the ring the same prompts, and say how far off the plan is.")
]


def plan(
    *,
    ring: o.RingOptions = o.RingOptions(),
    draft: o.Draft = "auto",
    holder: o.HolderOptions = o.HolderOptions(),
    policy: o.Policy = None,
    max_new_tokens: o.NewTokens = 64,
    prompts: PromptsOption = PROMPTS,
    raw: o.Raw = False,
    acceptance: AcceptanceOption = None,
    run: RunOption = False,
    cluster: ClusterFile = None,
    output: o.OutputOptions = o.OutputOptions(),
    config: o.Config = None,
) -> None:
    """Say which layers each machine should hold, how fast the ring should be, and what limits it.

    gardener plan --peer HOST:PORT
    """
    holder.chat.tell_raw(raw)
    settings = holder.settings(ring, holder.drafting.settings(draft))
    if cluster is not None and settings.peer is not None:
        described = read_cluster(cluster)
        if missing := run_loop(silent(described, settings.keys)):
            tell_file(described, missing, settings, output.as_json)
            return
    name = _guessing(policy, default_policy(settings.crowded, holder.bounds.window))
    conversations = read_conversations((), 1)[:prompts]
    wish = Wish(
        replace(settings, policies=("plain", name)),
        [each.turns[0] for each in conversations],
        raw,
        max_new_tokens,
        name,
        holder.bounds.bounds(),
        acceptance,
        run,
        output.verbose,
    )
    found = planned(wish)
    if output.as_json:
        result(json.dumps(found.facts()) + "\n")
    else:
        report(found)


def _guessing(policy: str | None, usual: str) -> str:
    """The policy that is compared with plain decoding. Raises Misuse."""
    if policy == "plain":
        raise Misuse("--policy plain is always reckoned: name one that guesses, beside it")
    if policy is None and usual == "alternating":
        note(f"policy {usual}, because {SHARING} (--policy changes that)")
    return policy or usual
