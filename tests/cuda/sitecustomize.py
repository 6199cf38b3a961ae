"""Python imports this when it starts, so every process of a ring that `run` starts has it."""

import os

if os.environ.get("STAND_IN"):
    from stand_in.install import install

    install()
