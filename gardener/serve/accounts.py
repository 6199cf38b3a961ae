"""What an answer cost, and what speculation did for it."""

import hashlib
from dataclasses import dataclass
from typing import Any, Self

from gardener.protocol.cards import near_tie
from gardener.serve.asked import Asked, Ring


@dataclass(frozen=True)
class Standing:
    """What is the same for all answers of a ring.

    exactness    in a sentence, see `OpenRing.exactness`
    near_ties    tokens whose scores are as good as tied may change places, with what is computed
                 beside them
    fingerprint  changes with the weights, and with what they are computed in
    """

    exactness: str
    near_ties: bool
    fingerprint: str

    @classmethod
    def of(cls, ring: Ring) -> Self:
        """Of a ring that stands."""
        computed = [(card.model, card.dtype, card.quant, card.head_quant) for card in ring.stages]
        known = hashlib.sha256(repr(sorted(set(computed))).encode()).hexdigest()
        return cls(ring.exactness, near_tie(ring.stages) > 0, f"fp_{known[:12]}")


def usage(asked: Asked, tokens: int) -> dict[str, Any]:
    """OpenAI's `usage` of an answer of so many tokens. Its predictions are texts that a client
    sends along, which are not taken here: none is accepted or rejected."""
    prompt = asked.speculation.asked
    return {
        "prompt_tokens": prompt,
        "completion_tokens": tokens,
        "total_tokens": prompt + tokens,
        "prompt_tokens_details": {"cached_tokens": asked.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def account(asked: Asked, standing: Standing, note: str = "") -> dict[str, Any]:
    """The field `gardener` of an answer that ended.

    policy              by which it was guessed
    drafted, accepted   tokens that the drafters guessed; tokens of the answer that had been guessed
    segments            passes through the ring with tokens of the answer or guesses
    tokens_per_segment  tokens of the answer to each of these: 1 is what a ring does without guesses
    plain_tokens        tokens of the answer before which guessing had been turned off
    guessing            why it was turned off, in a sentence; null: it was not
    exactness, near_ties  see `Standing`
    interruptions       how often the ring broke while it was written, and it went on
    seed                with which the same request gives the same answer; null: any
    finish              why it ended: eos, stop, length (`max_tokens`), context (it is full), failed
                        (a stage), lost (the ring), abandoned
    note                what the asker should know beside all this, in a sentence; null: nothing
    """
    speculation = asked.speculation
    counts, policy = speculation.counts, speculation.policy.name
    return {
        "policy": policy,
        "drafted": counts.drafted,
        "accepted": counts.accepted,
        "segments": counts.segments,
        "tokens_per_segment": round(counts.emitted / max(counts.segments, 1), 3),
        "plain_tokens": counts.plain,
        "guessing": _turned_down(policy, counts.plain, counts.emitted, speculation.moment.dearer),
        "exactness": standing.exactness,
        "near_ties": standing.near_ties,
        "interruptions": asked.interruptions,
        "seed": asked.sampling.seed,
        "finish": asked.finish_reason or "abandoned",
        "note": note or None,
    }


def _turned_down(policy: str, plain: int, emitted: int, dearer: float) -> str | None:
    if policy == "plain":
        return "the policy of this request, plain, does not guess"
    if not plain:
        return None
    found = f": with them a token took {dearer:.2f} times as long" if dearer else ""
    return f"{plain} of {emitted} tokens were written without guesses{found}"
