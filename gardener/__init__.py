"""Gardener: one large language model across several machines, one request made fast.

    import asyncio, gardener

    async def main():
        async with gardener.open_ring(gardener.RingSettings(local=2)) as ring:
            async with ring.ask("Why is the sky blue?") as answer:
                async for piece in answer:
                    print(piece.text, end="", flush=True)

    asyncio.run(main())

The names below are all that a program needs. They are imported when they are first used, so that
`import gardener` costs nothing.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gardener.decoding.policy import POLICIES, Bounds
    from gardener.draft.factory import DraftSettings
    from gardener.errors import (
        Busy,
        GardenerError,
        LocalError,
        PeerLost,
        RemoteError,
        StageFailed,
        UserError,
    )
    from gardener.holder.piece import Piece
    from gardener.holder.session import Session
    from gardener.protocol.logprobs import TokenLogprobs
    from gardener.protocol.sampling import Sampling
    from gardener.rings.open import open_ring
    from gardener.rings.opened import OpenRing
    from gardener.rings.settings import RingSettings

try:
    __version__ = version("gardener-node")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

_WHERE = {
    "Bounds": "decoding.policy",
    "Busy": "errors",
    "DraftSettings": "draft.factory",
    "GardenerError": "errors",
    "LocalError": "errors",
    "OpenRing": "rings.opened",
    "POLICIES": "decoding.policy",
    "PeerLost": "errors",
    "Piece": "holder.session",
    "RemoteError": "errors",
    "RingSettings": "rings.settings",
    "Sampling": "protocol.sampling",
    "Session": "holder.session",
    "StageFailed": "errors",
    "TokenLogprobs": "protocol.logprobs",
    "UserError": "errors",
    "open_ring": "rings.open",
}

__all__ = [
    "POLICIES",
    "Bounds",
    "Busy",
    "DraftSettings",
    "GardenerError",
    "LocalError",
    "OpenRing",
    "PeerLost",
    "Piece",
    "RemoteError",
    "RingSettings",
    "Sampling",
    "Session",
    "StageFailed",
    "TokenLogprobs",
    "UserError",
    "__version__",
    "open_ring",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gardener' has no attribute '{name}'")
    return getattr(import_module(f"gardener.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
