"""Devices by the names that people give them, and what memory they have left."""

import psutil
import torch

from gardener.errors import UserError


def device_of(name: str) -> torch.device:
    """Raises UserError if this machine does not have it, or this build of torch no kernels for it:
    something is computed there, for memory alone can be had where nothing can be computed."""
    try:
        device = torch.device(name)
        torch.ones(1, device=device).add(1).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"device '{name}' cannot be used here: {reason}") from error
    return device


def free_memory(device: torch.device) -> int:
    """Bytes of this device that nobody uses now.

    Of memory that a GPU shares with the processor, as on a Jetson, CUDA takes what caches files for
    used (a model that was just read, for one), and it is not.
    """
    if device.type == "cuda" and not torch.cuda.get_device_properties(device).is_integrated:
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
