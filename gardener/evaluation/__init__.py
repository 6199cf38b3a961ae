"""`gardener eval`: every policy on the same prompts, its figures, and where the time went."""
