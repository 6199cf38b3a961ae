"""Stages that compute as on a device, on the processor: filled up, at fixed addresses, and replayed
by a stand-in that holds recordings to what they promise."""

from collections.abc import Iterator

import pytest
from recorders import Replaying

from gardener.model.device.graphs import Recorder
from gardener.stages import load

PLACES = ["a processor", "a device", "a device without graphs"]
"""Where stages may compute."""


def compute_on(place: str, monkeypatch: pytest.MonkeyPatch) -> Replaying:
    """Whatever is loaded from now on computes there. Returns what records, if anything does."""
    replaying = Replaying()

    def recorder(device: object, wanted: bool = True) -> Recorder | None:
        return replaying if wanted and place == "a device" else None

    if place != PLACES[0]:
        monkeypatch.setattr(load, "on_host", lambda device: False)
        monkeypatch.setattr(load, "recorder", recorder)
    return replaying


@pytest.fixture(params=PLACES)
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Stages compute everywhere once."""
    compute_on(request.param, monkeypatch)
    yield request.param
