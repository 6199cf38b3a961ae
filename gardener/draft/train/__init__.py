"""How a draft head is made: the target talks to itself, and the head learns what it would say."""
