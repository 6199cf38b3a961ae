"""One request at a stage, from its Open until its Close, and what is kept of it after that."""

from collections.abc import Sequence

from gardener.errors import LocalError, RemoteError
from gardener.model.kv_slots import SlotTable
from gardener.model.placement import Ints
from gardener.model.sampler import Picking, Sampler
from gardener.protocol.messages import Advance, Open, Segment
from gardener.stages.forward import PlacedSegment
from gardener.stages.segments import keep_rows
from gardener.stages.text import Text


class Request:
    """What a stage knows of a request: which rows it holds, with their tokens, which of them still
    live, and how it picks.

    A request number may be used again once it is closed. That is another `Request`, so whatever
    still refers to the old one, such as a batch that is being computed, cannot confuse them.
    """

    def __init__(self, message: Open) -> None:
        self.number = message.request
        self._taps = message.taps
        self._first_root = message.prompt - 1
        shared = message.prefix[1] if message.prefix else 0
        self._slots: SlotTable | None = SlotTable(
            message.prompt, message.context, message.spare, shared
        )
        self._reserved = message.slots
        self._kept = False
        self._text = Text(message.prompt)
        self._reads_text = message.sampling.reads_text
        self._sampler: Sampler | None = None
        if not message.sampling.changes_nothing or message.logprobs is not None:
            asked = message.prompt - message.written
            self._sampler = Sampler(message.sampling, asked, message.logprobs)

    @property
    def is_live(self) -> bool:
        """Whether its segments still count: no longer once it was given up or closed."""
        return self._slots is not None and not self._kept

    @property
    def is_kept(self) -> bool:
        """Whether it has ended, but others may still begin with its certain rows."""
        return self._kept

    @property
    def slots(self) -> int:
        """Slots whose memory it has, or may come to need."""
        if self._kept:
            return self._table.certain
        return self._reserved if self.is_live else 0

    def end(self) -> None:
        """The request was given up or closed: free what it holds."""
        self._slots = self._sampler = None
        self._kept, self._text = False, Text(1)

    def keep(self) -> Ints:
        """The request has ended, but its certain rows are kept, in slots 0, 1 and so on. Returns
        the slots in which they stood."""
        self._kept, self._sampler = True, None
        self._text.keep()
        return self._table.keep_certain()

    @property
    def certain(self) -> int:
        """Rows with which another request may begin."""
        return 0 if self._slots is None else self._slots.certain

    def begin_with(self, source: "Request", count: int) -> Ints:
        """The first `count` tokens are those of another request. Returns where their rows stand
        there."""
        self._text = Text(self._first_root + 1, source.prefix(count))
        return source._table.first(count)

    def advance(self, message: Advance) -> None:
        """Settle rows and free those that died. Raises RemoteError for rows that never came."""
        self._table.advance(message.settled, message.root)
        self._text.advance(message.settled, message.root)

    def prefix(self, count: int) -> Sequence[int]:
        """The first tokens of the text, for a request that begins with them, too. Raises LocalError
        if not as many are certain."""
        return self._text.prefix(count)

    def check_features(self, segment: Segment, first_layer: int) -> None:
        """Raise RemoteError unless every stage before this one has added its taps, and no other."""
        taps = self._taps if segment.ids else ()
        due = sum(tap < first_layer for tap in taps)
        if len(segment.features) != due:
            raise RemoteError(
                f"segment {segment.seq} brings {len(segment.features)} features, due are {due}"
            )

    def arriving(self, segment: Segment) -> Segment:
        """The segment without the rows that died before they were placed."""
        return keep_rows(segment, self._table.alive(segment.ids, segment.parents))

    def place(self, segment: Segment) -> PlacedSegment:
        """Give slots to the rows of the segment. Raises RemoteError for rows that do not fit."""
        placement = self._table.place(segment.ids, segment.parents, segment.positions)
        self._text.place(segment.ids, segment.parents, segment.tokens)
        pick_rows = [row for row, node in enumerate(segment.ids) if node >= self._first_root]
        return PlacedSegment(
            request=self.number,
            placement=placement,
            tokens=segment.tokens,
            hidden=segment.hidden,
            pick_rows=pick_rows,
            picking=self._picking(segment, pick_rows),
            taps=self._taps,
            broken={segment.ids.index(each.row): each.layer for each in segment.broken},
        )

    def _picking(self, segment: Segment, rows: Sequence[int]) -> Picking | None:
        if self._sampler is None:
            return None
        text = self._text
        positions = [segment.positions[row] + 1 for row in rows]
        paths = [text.path(segment.ids[row]) for row in rows] if self._reads_text else ()
        return Picking(self._sampler, positions, text.certain, len(text.certain), paths)

    def living(self, segment: Segment) -> Sequence[int]:
        """Indices of the placed rows that live now; none once the request has ended."""
        if self._slots is None:
            return ()
        return [row for row, lives in enumerate(self._slots.living(segment.ids)) if lives]

    @property
    def _table(self) -> SlotTable:
        if self._slots is None:
            raise LocalError(f"request {self.number} has ended: it has no slots any more")
        return self._slots
