"""Events and streams of CUDA devices, of which torch does not tell the types."""

import torch


def event(timed: bool = False) -> torch.cuda.Event:
    """One that can be recorded, and waited for; and if `timed`, compared with others."""
    made: torch.cuda.Event = torch.cuda.Event(enable_timing=timed)  # type: ignore[no-untyped-call]
    return made


def stream(device: torch.device) -> torch.cuda.Stream:
    """A new one there."""
    made: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return made
