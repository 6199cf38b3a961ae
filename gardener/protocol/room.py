"""How much memory keys and values need, in slots: one holds the row of one token at every layer of
a stage."""

SLOT_BLOCK = 64
"""Slots are set aside in blocks of so many."""


def slots_for(context: int, spare: int) -> int:
    """Slots to set aside for a request of `context` tokens, prompt and answer together, and of
    `spare` rows of the tree."""
    return -(-(context + spare) // SLOT_BLOCK) * SLOT_BLOCK
