"""How long a text may be in a ring: what the model was made for, or what was asked for, as far as
every stage goes along."""

from collections.abc import Sequence

from gardener.draft.drafter import Drafter
from gardener.errors import UserError
from gardener.protocol.cards import memory_problem
from gardener.protocol.messages import Card
from gardener.runtime.wording import Say


def agreed_context(asked: int | None, made_for: int, cards: Sequence[Card], say: Say) -> int:
    """Most tokens of prompt and answer together in this ring.

    asked     by the user; None: what the model was made for, and the stages take
    made_for  the model's own
    cards     of the stages

    `say` is told where more is asked than the model was made for. Raises UserError if it is more
    than a stage takes, or has memory for.
    """
    limits = [(card.longest, card.stage) for card in cards if card.longest]
    most, stage = min(limits, default=(asked or made_for, 0))
    if asked is None:  # memory is looked at for each request: few are as long as a model can read
        return min(made_for, most)
    if asked > most:
        raise UserError(
            f"--context is {asked}, and stage {stage} takes requests of up to {most} tokens: ask "
            "for less, or start that stage with a larger --context"
        )
    if problem := memory_problem(asked, cards):
        raise UserError(problem)
    if asked > made_for:
        say(
            f"--context is {asked}, and this model was made for texts of {made_for} tokens: what "
            "it writes beyond that may be worth little"
        )
    return asked


def tell_short_drafters(drafters: Sequence[Drafter], context: int, say: Say) -> None:
    """Name the drafters that were made for shorter texts than this ring takes."""
    for drafter in drafters:
        if drafter.context is not None and drafter.context < context:
            say(
                f"the {drafter.name} drafter was made for texts of {drafter.context} tokens, and "
                f"here they may have {context}: beyond that it may guess worse, and as much less "
                "of what it guesses is sent"
            )
