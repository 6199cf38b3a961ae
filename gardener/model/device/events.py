"""Events and streams of CUDA devices: of a given one, whichever is this thread's current one."""

import torch


def event(timed: bool = False) -> torch.cuda.Event:
    """One that can be recorded, and waited for; and if `timed`, compared with others."""
    made: torch.cuda.Event = torch.cuda.Event(enable_timing=timed)  # type: ignore[no-untyped-call]
    return made


def record(marked: torch.cuda.Event, device: torch.device) -> None:
    """It happens once the device has done all that it was told so far."""
    marked.record(torch.cuda.current_stream(device))


def stream(device: torch.device) -> torch.cuda.Stream:
    """A new one there."""
    made: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return made


def keep_until_read(tensor: torch.Tensor) -> None:
    """Before it is given up: what this thread's stream has been told to read of it is read before
    its memory is anybody's, also where it was made on another stream."""
    if tensor.is_cuda:
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
