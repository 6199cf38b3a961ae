"""Has the values of everything computed, in each thread of this process."""

import threading
from typing import Any

import torch
from torch import Tensor

from stand_in.aliases import on_device
from stand_in.mode import Values


def install() -> None:
    """From now on. Modes of torch belong to a thread, so each new one begins with its own."""
    begin = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def begin_with_values(thread: threading.Thread) -> None:
        with Values():  # type: ignore[no-untyped-call]
            begin(thread)

    threading.Thread._bootstrap_inner = begin_with_values  # type: ignore[attr-defined]
    _show_values()
    Values().__enter__()  # type: ignore[no-untyped-call]


def _show_values() -> None:
    """Tensors are printed with all modes switched off, where kernels would have no values."""
    show: Any = torch._tensor_str._str

    def show_here(tensor: Tensor, **how: Any) -> Any:
        return show(tensor.cpu() if on_device(tensor) else tensor, **how)

    torch._tensor_str._str = show_here  # type: ignore[assignment]
