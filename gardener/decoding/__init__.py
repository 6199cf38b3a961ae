"""One request as a pure state machine: token tree, round, and what goes into the ring next."""
