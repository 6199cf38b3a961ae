"""Which machine should hold what, what that should bring, and what limits it. No I/O."""
