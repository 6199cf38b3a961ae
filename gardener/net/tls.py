"""TLS of one connection, without its socket: bytes of the network in, our own bytes out, and back.

It is done here and not by the event loop's transports, of which none can end one direction of a
connection: the last words of a peer that refuses us would be lost. So deadlines, refusals and their
sentences are the same with keys and without (`protocol/certificates.py`), on any loop.
"""

import ssl
from contextlib import suppress

from gardener.net.keys import Keys, identity_of
from gardener.protocol.certificates import Identity, failure, refusal, untrusted
from gardener.protocol.strangers import HEAD

RECORD = 2**14
"""Most bytes that TLS carries in one record."""

HANDSHAKE = b"\x16"
"""The first byte of every connection with TLS, in both directions; unless it is an alert."""

ALERT = b"\x15"


class Tls:
    """One end. What it finds is in its attributes; whoever drives it looks after every `take`."""

    def __init__(self, keys: Keys, *, dials: bool) -> None:
        self.established = False
        """The handshake is done: the peer has proved to be `peer`, and what we say is private."""
        self.peer: Identity | None = None
        self.foreign = b""
        """The first bytes from the peer, if they are no TLS."""
        self.refused = ""
        """Why the peer does not believe us."""
        self.broken = ""
        """Why we do not believe the peer, or what comes from it."""
        self.ended = False
        """The peer has said that it will say no more; nothing that comes after that counts."""
        self._ours = keys.identity
        self._head: bytes | None = b""  # of what has come, until it is known to be TLS
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = keys.dialling if dials else keys.accepting
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=not dials)
        self._left = False  # we have said the same

    def begin(self) -> None:
        """There is a connection: the end that dialled has something to say at once."""
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()

    def take(self, data: bytes) -> bytes:
        """These bytes have come; returns what they carry, which may be nothing yet."""
        if self.refused or self.broken or self.foreign or self.ended:
            return b""
        if self._head is not None:
            data = self._head + data
            if data[:1] not in (HANDSHAKE, ALERT):
                self._head, self.foreign = data, data if len(data) >= HEAD else b""
                return b""
            self._head = None
        self._incoming.write(data)
        try:
            if not self.established:
                self._tls.do_handshake()
                self.established, self.peer = True, identity_of(self._tls.getpeercert())
        except ssl.SSLError as error:
            self._failed(error)
            return b""
        return self._read()

    def give(self, data: bytes) -> bytes:
        """Bytes to send now: `data`, sealed, and what TLS has to say itself."""
        if data and self.established and not self._left:
            self._tls.write(data)
        return self._outgoing.read() if self._outgoing.pending else b""

    def end(self) -> bytes:
        """We shall say no more: the last bytes to send, which tell the peer that. Only once."""
        if self._left:
            return b""
        self._left = True
        if self.established:
            with suppress(ssl.SSLError):
                self._tls.unwrap()  # to wait for its answer is not for us
        return self.give(b"")

    def _read(self) -> bytes:
        """All that is complete of what has come."""
        parts = []
        try:
            while self._incoming.pending and not self.ended:
                parts.append(self._tls.read(RECORD))
                self.ended = not parts[-1]
        except ssl.SSLError as error:
            self._failed(error)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _failed(self, error: ssl.SSLError) -> None:
        """Take note of what is wrong; that more bytes are needed is not."""
        if isinstance(error, ssl.SSLWantReadError):
            return
        if isinstance(error, ssl.SSLZeroReturnError):
            self.ended = True
            return
        reason = error.reason or str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            self.broken = untrusted(error.verify_code, str(error.verify_message))
        elif refusal_of_ours := refusal(reason, self._ours):
            self.refused = refusal_of_ours
        else:
            self.broken = failure(reason)
