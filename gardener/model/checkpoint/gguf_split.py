"""Part of a model in GGUF, as `gardener split` writes it: the tensors as they lie in the file.

The file is a GGUF file, too, though one for Gardener alone: its tensors have the names of the hub,
and the index beside it says what is to be undone when they are read.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gardener.model.checkpoint.gguf_header import read_header
from gardener.model.checkpoint.gguf_tensors import FileState, write_index
from gardener.model.checkpoint.tensors import Checkpoint

FILE = "model.gguf"

_ARCHITECTURE = "gardener-part"


def write_part(checkpoint: Checkpoint, names: Sequence[str], folder: Path) -> None:
    """Write these tensors to `folder`, as bytes out of the mapped files: none is held in memory."""
    from gguf import GGMLQuantizationType, GGUFWriter

    logging.getLogger("gguf.gguf_writer").setLevel(logging.WARNING)  # it tells of each step
    writer = GGUFWriter(folder / FILE, _ARCHITECTURE)
    stored = {}
    for name in names:
        stored[name], rows = checkpoint.stored(name)
        writer.add_tensor(name, rows, raw_dtype=GGMLQuantizationType[stored[name].type])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint.release()
    written = read_header(folder / FILE).tensors
    moved = {
        name: msgspec.structs.replace(old, file=FILE, offset=written[name].offset)
        for name, old in stored.items()
    }
    write_index(folder, {FILE: FileState((folder / FILE).stat().st_size)}, moved)
