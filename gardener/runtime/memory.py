"""What is loaded for good is left out of garbage collections."""

import gc


def keep_for_good() -> None:
    """Call it once everything is loaded. A full collection walks every object of the process, of
    which imported packages alone bring hundreds of thousands, and the event loop stands still
    meanwhile; what is frozen here is not walked again."""
    gc.collect()
    gc.freeze()
