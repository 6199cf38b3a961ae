"""What the tests ask for on a device, on "cuda"."""

import functools
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gardener.model.device.graphs import CudaRecorder, Recorder, Recording

DEVICE = torch.device("cuda")

where = SimpleNamespace(module="")
"""Which module of tests is run."""

ALL_STAGES = {"test_mixtures", "test_picks", "test_stage"}
"""Modules whose stages compute on the device though they do not ask for one."""

ALL_DRAFTS = {
    "test_draft_model",
    "test_eagle",
    "test_one_pass",
    "test_ranking",
    "test_shared_rows",
    "test_speculators",
}
"""Modules whose drafts are recorded though they do not ask for it."""

ALL_TENSORS = {"test_look_trial"}
"""Modules whose own tensors are on the device, in place of their `CPU`."""


class Recorded:
    """A `CudaRecorder` that counts, as `recorders.Replaying` does."""

    def __init__(self) -> None:
        self.recordings = self.replays = 0
        self._recorder: CudaRecorder | None = None

    def record(self, work: Callable[[], Any]) -> Recording:
        """See `Recorder`."""
        self.recordings += 1
        if self._recorder is None:
            self._recorder = CudaRecorder(DEVICE)
        made = self._recorder.record(work)

        def replay() -> None:
            self.replays += 1
            made.replay()

        return made._replace(replay=replay)


def compute_on(place: str, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """In place of `device_stages.compute_on`."""
    from gardener.stages import load

    recorded = Recorded()

    def recorder(device: object, wanted: bool = True) -> Recorder | None:
        return recorded if wanted and place == "a device" else None

    if place != "a processor":
        monkeypatch.setattr(load, "device_of", lambda name: DEVICE)
        monkeypatch.setattr(load, "recorder", recorder)
    return recorded


def move_to_device() -> None:
    """From now on; before modules of tests are imported, which keep what they import."""
    import device_stages
    import recorders

    from gardener.draft import block_drafter, block_files, eagle_files, incremental, small_model
    from gardener.stages import load

    for module, name, other in (
        (recorders, "Replaying", Recorded),
        (device_stages, "compute_on", compute_on),
        (eagle_files, "load_eagle", _on_device(eagle_files.load_eagle)),
        (block_files, "load_block", _on_device(block_files.load_block)),
        (small_model.SmallModel, "__init__", _on_device(small_model.SmallModel.__init__)),
        (load, "load_stage", _on_device(load.load_stage, ALL_STAGES)),
        (incremental.Incremental, "__init__", _recorded(incremental.Incremental.__init__)),
        (block_drafter.BlockDrafter, "__init__", _recorded(block_drafter.BlockDrafter.__init__)),
    ):
        setattr(module, name, other)


def change_modules() -> None:
    """Once they are imported."""
    for name in ALL_TENSORS & sys.modules.keys():
        vars(sys.modules[name])["CPU"] = DEVICE
    # It notes tokens as a list, for which it would wait in recorded work.
    if module := sys.modules.get("test_draft_model"):
        vars(module)["Play"]._counted = lambda play, embed: embed


def _on_device(load: Callable[..., Any], modules: set[str] | None = None) -> Callable[..., Any]:
    """Loads on the device what is to be loaded on the processor, in these modules or in all."""

    @functools.wraps(load)
    def loads(*args: Any, **kwargs: Any) -> Any:
        wanted = modules is None or where.module in modules
        if wanted and str(kwargs.get("device", "cpu")) == "cpu":
            kwargs["device"] = "cuda"
        return load(*args, **kwargs)

    return loads


def _recorded(make: Callable[..., None]) -> Callable[..., None]:
    """Makes a drafter whose work is recorded."""

    @functools.wraps(make)
    def makes(drafter: Any, network: Any, *args: Any, recorder: Any = None, **kwargs: Any) -> None:
        can = network.shape.mixture is None and network.device.type == "cuda"
        if recorder is None and can and where.module in ALL_DRAFTS:
            recorder = Recorded()
        make(drafter, network, *args, recorder=recorder, **kwargs)

    return makes
