"""Draft heads from files: EAGLE-1 and EAGLE-3 as they are published, and our own.

The tensors tell which of the two it is, the config in which form (`eagle_config`).
"""

from pathlib import Path

import torch

from gardener.draft.eagle import Eagle1, Eagle3
from gardener.draft.eagle1_files import eagle1
from gardener.draft.eagle3_files import eagle3
from gardener.draft.eagle_reader import EagleReader
from gardener.model.kernels.interface import Make
from gardener.model.kernels.linear import untried_linear
from gardener.model.tensors import dtype_of


def load_eagle(
    folder: Path, model: Path, *, dtype: str, device: str, make: Make = untried_linear
) -> Eagle1 | Eagle3:
    """The head in `folder`, for the target in the folder `model`.

    make: for its linear layers, but for `fc`, which reads things of very different size at once.

    Raises UserError.
    """
    reader = EagleReader(folder, model, dtype_of(dtype), torch.device(device), make)
    with torch.inference_mode():
        return eagle3(reader) if reader.is_eagle3 else eagle1(reader)
