"""Stages that compute as on a device, on the processor: filled up, at fixed addresses, and replayed
by a stand-in that holds recordings to what they promise."""

import pytest
from recorders import Replaying

from gardener.model.device.graphs import Recorder
from gardener.model.kernels import machine
from gardener.stages import load

PLACES = ["a processor", "a device", "a device without graphs"]
"""Where stages may compute."""


def compute_on(place: str, monkeypatch: pytest.MonkeyPatch) -> Replaying:
    """Whatever is loaded from now on computes there. Returns what records, if anything does."""
    replaying = Replaying()

    def recorder(device: object, wanted: bool = True) -> Recorder | None:
        return replaying if wanted and place == "a device" else None

    if place != PLACES[0]:
        monkeypatch.setattr(machine, "has_own_kernels", lambda device: True)
        monkeypatch.setattr(load, "recorder", recorder)
    return replaying


@pytest.fixture(params=PLACES)
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Stages compute everywhere once."""
    place: str = request.param
    compute_on(place, monkeypatch)
    return place
