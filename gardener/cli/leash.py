"""A stage of a local ring is on a leash, its standard input: when that closes, the stage ends.

It ends with the process that started it, however that one ended, and whatever the stage is doing.
"""

import asyncio
import os
import threading
import time

GRACE = 4.0
"""Seconds to end properly, once the leash is dropped; a model that loads cannot be interrupted."""


def wear() -> None:
    """Cancel the present task once standard input closes; end the process if that is not enough."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()

    def watch() -> None:
        while os.read(0, 4096):
            pass
        try:
            loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:  # the loop is closed: it ends already
            return
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="leash", daemon=True).start()
