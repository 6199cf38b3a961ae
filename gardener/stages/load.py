"""Build a stage from a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import torch

from gardener.model.architecture import Architecture
from gardener.model.block import Layer
from gardener.model.checkpoint.quantised import agreed_head, agreed_quant
from gardener.model.checkpoint.slices import Slice
from gardener.model.checkpoint.tensors import fingerprint
from gardener.model.device.graphs import Graphs, recorder
from gardener.model.device.look_trial import spread_of_attention
from gardener.model.device.named import device_of
from gardener.model.device.norm_trial import norms_keep
from gardener.model.device.sizes import FEW, ROWS
from gardener.model.kernels import machine
from gardener.model.loader import Loader, check_rotary, held_slice
from gardener.model.progress import Progress, nowhere
from gardener.model.quants import of_head
from gardener.model.tensors import dtype_of
from gardener.runtime.wording import Say
from gardener.stages.device_passes import DevicePasses
from gardener.stages.device_picks import DevicePick
from gardener.stages.ends import Embed, HandOn, Intake, Outlet, Receive
from gardener.stages.executor import Executor
from gardener.stages.passes import HostPasses, Passes
from gardener.stages.picks import Pick


def load_stage(
    folder: Path,
    held: Slice | None = None,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    quant: str = "none",
    quant_head: str = "auto",
    threads: int | None = None,
    graphs: bool = True,
    progress: Progress = nowhere,
    say: Say = lambda line: None,
) -> Executor:
    """The stage that holds these layers of the model in `folder`.

    folder   a Hugging Face folder, or one written by `split`
    held     which layers; None: all that the folder has
    dtype    float32, bfloat16 or float16: weights, cache and hidden states
    device   as torch names it: cpu, cuda, cuda:1, mps
    quant    a kind in `quants.QUANTS`: the linear layers of the blocks; that of a folder which is
             stored quantised, or "none"
    quant_head  a kind in `quants.HEAD_QUANTS`: the output matrix
    threads  for torch on the CPU, process-wide; None: leave them
    graphs   record the work of passes where the device can, see `model.device.graphs`
    progress is told how many bytes of the slice have been read, of how many
    say      is told of weights that are held in another form than was asked for

    Raises UserError.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    target, quant = device_of(device), agreed_quant(folder, quant)
    architecture = Architecture.read(folder)
    check_rotary(folder, architecture)
    held = held_slice(folder, architecture, held)
    quant_head = of_head(agreed_head(folder, quant_head), quant)
    loader = Loader(folder, architecture, dtype_of(dtype), target, quant, quant_head)
    loader.tell(held, progress)
    with torch.inference_mode():
        blocks = [loader.block(layer, layer - held.first) for layer in range(held.first, held.end)]
        recorded = Graphs(recorder(target, graphs and architecture.mixture is None))
        intake, outlet = _ends(loader, architecture, held, dtype_of(dtype), target, recorded)
        sizes, apart = _sizes(loader.few, architecture, dtype_of(dtype), target)
        passes = _passes(architecture, held, blocks, sizes, dtype_of(dtype), target, recorded)
    for remark in loader.remarks:
        say(remark)
    return Executor(
        architecture,
        held,
        passes,
        intake,
        outlet,
        dtype=dtype,
        device=target,
        quant=quant,
        quant_head=quant_head,
        fingerprint=fingerprint(folder),
        spread=max(loader.spread, apart),
    )


def _sizes(
    few: bool, architecture: Architecture, dtype: torch.dtype, device: torch.device
) -> tuple[Sequence[int], float]:
    """Of passes on a device, and how far norms may be from themselves in them, as a part of their
    size. `few`: those of few rows take less time; they are left out where norms tell of them."""
    if not machine.has_own_kernels(device):
        return ROWS, 0.0
    if few and norms_keep(architecture, dtype, device, (*FEW, *ROWS)):
        return (*FEW, *ROWS), 0.0
    keep = norms_keep(architecture, dtype, device, ROWS)
    return ROWS, 0.0 if keep else torch.finfo(dtype).eps


def _passes(
    architecture: Architecture,
    held: Slice,
    blocks: Sequence[Layer],
    sizes: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    graphs: Graphs,
) -> Passes:
    """How the layers are computed there; `sizes`: of its passes, on a device."""
    if not machine.has_own_kernels(device):
        return HostPasses(architecture, held, blocks, dtype)
    a = architecture
    return DevicePasses(
        architecture,
        blocks,
        dtype=dtype,
        device=device,
        sizes=sizes,
        graphs=graphs,
        spread=spread_of_attention(
            a.kv_heads, a.heads // a.kv_heads, a.head_dim, dtype, device, a.softcap
        ),
    )


def _ends(
    loader: Loader,
    architecture: Architecture,
    held: Slice,
    dtype: torch.dtype,
    device: torch.device,
    graphs: Graphs,
) -> tuple[Intake, Outlet]:
    """What the slice starts from and ends with."""
    intake: Intake = Receive(architecture.width, dtype)
    outlet: Outlet = HandOn(device)
    if held.is_first:
        intake = Embed(loader.embedding(torch.device("cpu")))
    loader.release()
    if held.is_last:
        head, layers = loader.head(), architecture.layers
        own = machine.has_own_kernels(device)
        outlet = DevicePick(head, layers, graphs) if own else Pick(head, layers)
    loader.release()
    return intake, outlet
