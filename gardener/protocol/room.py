"""How much memory keys and values need, in slots: one holds the row of one token at every layer of
a stage."""

MOST_CONTEXT = 2**24
"""Most tokens of prompt and answer together: float32, in which rows are rotated, tells no more
positions apart."""

SLOT_BLOCK = 64
"""Slots are set aside in blocks of so many."""


def slots_for(context: int, spare: int) -> int:
    """Slots to set aside for a request of `context` tokens, prompt and answer together, and of
    `spare` rows of the tree."""
    return -(-(context + spare) // SLOT_BLOCK) * SLOT_BLOCK


def longest_in(slots: int, spare: int) -> int:
    """Most tokens of a request, prompt and answer together, for which so many slots are enough;
    less than 1: they are for none."""
    return slots // SLOT_BLOCK * SLOT_BLOCK - spare
