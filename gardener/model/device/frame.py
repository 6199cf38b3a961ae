"""What a pass of one size reads, at fixed addresses: filled in here, and copied there in one go."""

import torch

from gardener.model.device.parcel import Parcel, Part
from gardener.model.device.sizes import TAIL
from gardener.model.placement import Ints

POSITION, SLOT, CUT, FIRST_OF_TAIL = range(4)
"""Columns of `Frame.ints`. The tail of a row begins with the slot of the row at position `cut`, and
ends with its own; what follows is not looked at, but must be slots."""

COLUMNS = FIRST_OF_TAIL + TAIL


class Frame:
    """Room for `rows` rows.

    hidden  [rows, width], on the device
    ints    [rows, COLUMNS] int64, on the device
    own_hidden, own_ints  the same in this machine's memory, to be written to after `wait`
    """

    def __init__(self, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        parts = {"hidden": Part(dtype, (rows, width)), "ints": Part(torch.int64, (rows, COLUMNS))}
        parcel = Parcel(parts, device)
        self.wait, self.send = parcel.wait, parcel.send
        self.hidden, self.ints = parcel.there["hidden"], parcel.there["ints"]
        self.own_hidden = parcel.here["hidden"]
        self.own_ints: Ints = parcel.here["ints"].numpy()
