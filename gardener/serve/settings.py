"""What a user says about the server."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from gardener.decoding.policy import Bounds
from gardener.errors import UserError
from gardener.holder.admission import MAX_WAITING
from gardener.net.address import is_loopback
from gardener.rings.settings import RingSettings

KEEP_ALIVE = 5.0
"""Seconds without a token after which a comment says that the answer is still under way."""

CONNECTIONS = 256
"""Connections at a time."""

GRACE = 20.0
"""Seconds that answers have to finish once the server ends."""


@dataclass(frozen=True)
class ServeSettings:
    """How the ring is served.

    host, port  where to listen; port 0: one that is free
    api_key     what clients must send as `Authorization: Bearer`; None: nothing
    tls_cert, tls_key  PEM files; both or none
    cors        origins of pages in browsers that may ask; `*`: all
    page        serve the page at /, and the feed that it shows
    connections  most of them at a time, whoever made them
    queue       most requests that wait for their turn
    grace       see `GRACE`
    keep_alive  see `KEEP_ALIVE`
    name        what the model is called; None: as `RingSettings.model` has it, without a path
    policy      of all requests; None: the one that does best
    bounds      on what is sent
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    cors: tuple[str, ...] = ()
    page: bool = True
    connections: int = CONNECTIONS
    queue: int = MAX_WAITING
    grace: float = GRACE
    keep_alive: float = KEEP_ALIVE
    name: str | None = None
    policy: str | None = None
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UserError("--tls-cert and --tls-key belong together: give both or none")
        if self.api_key is not None and not _sendable(self.api_key):
            raise UserError(
                "the API key is empty, or holds what no HTTP header can carry: take letters, "
                "digits and signs of ASCII, without spaces"
            )
        for origin in self.cors:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
                raise UserError(
                    f"--cors {origin!r} is no origin: write it as https://example.org, without a "
                    "path, or * for all"
                )
        if self.api_key is None and not self.is_local:
            raise UserError(
                f"--host {self.host} can be reached from elsewhere: say with --api-key (or "
                "GARDENER_API_KEY) who may ask, or stay on 127.0.0.1"
            )

    @property
    def is_local(self) -> bool:
        """Only programs on this machine can reach it."""
        return is_loopback(self.host)

    def model_name(self, ring: RingSettings) -> str:
        """What clients call the model."""
        if self.name is not None:
            return self.name
        path = Path(ring.model)
        if path.suffix == ".gguf":
            return path.stem
        return path.resolve().name if path.is_dir() else ring.model


def _sendable(key: str) -> bool:
    return bool(key) and key.isascii() and key.isprintable() and " " not in key
