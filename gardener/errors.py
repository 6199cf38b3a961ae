"""Errors by whose fault they are.

`LocalError`  a bug in this process: an invariant of ours does not hold.
`RemoteError` a peer sent something it must not send: its link closes, nothing else dies.
`PeerLost`    a peer went silent or its connection broke.
`StageFailed` a stage could not compute a request: that request is over, nothing else.
`UserError`   what the user asked for cannot be done: one sentence with the way out, no traceback.
"""

from typing import Self


class GardenerError(Exception):
    """Base of all errors that Gardener raises on purpose.

    over_http  the same for somebody who asks from elsewhere: without paths, commands and addresses
               of these machines, and without what can be changed only where the ring was started
    """

    def __init__(self, message: str = "", over_http: str | None = None) -> None:
        super().__init__(message)
        self.over_http = message if over_http is None else over_http

    def anew(self) -> Self:
        """The same, to be raised once more."""
        return type(self)(str(self), self.over_http)


class LocalError(GardenerError):
    """An invariant of ours does not hold; please report it."""


class RemoteError(GardenerError):
    """A peer broke the protocol."""


class PeerLost(GardenerError):
    """A peer is gone: the connection broke, or nothing was heard for too long."""


class Distrusted(PeerLost):
    """Whoever is at the other end is not believed, does not believe us, or speaks no language of
    ours: no loss, but something that people have to put right."""


class StageFailed(GardenerError):
    """A stage could not compute a request, for instance for lack of memory. The ring stands."""


class UserError(GardenerError):
    """The request cannot be carried out as given; the message says why and what to do."""


def reason(error: Exception) -> str:
    """Why reading or writing failed, without the path, which our own sentence names."""
    if isinstance(error, UnicodeDecodeError):
        wrong = error.object[error.start]
        return f"byte {error.start + 1}, {wrong:#04x}, is no text in {error.encoding}: convert it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, FileNotFoundError):
        return "no such file or directory"
    return str(error) or type(error).__name__


class Busy(UserError):
    """Too many requests run and wait already."""

    def __init__(self, running: int, waiting: int, seconds: float) -> None:
        """`seconds`: after which it is worth trying again."""
        run = "1 request runs" if running == 1 else f"{running} requests run"
        wait = "1 waits" if waiting == 1 else f"{waiting} wait"
        again = f"{run} and {wait}: try again in {seconds:.0f} s"
        super().__init__(f"{again}, or allow more (--max-requests)", again)
        self.retry_after = seconds


def our_fault(error: Exception) -> GardenerError:
    """What went wrong at the holder, for people: a bug, unless it says itself what it is."""
    if isinstance(error, GardenerError):
        return error
    kind = type(error).__name__
    fault = LocalError(f"{kind} at the holder: {error}; this is a bug, please report it")
    fault.__cause__ = error
    return fault
