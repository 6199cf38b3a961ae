"""One request as a state machine: `handle(event) -> commands`. No socket, clock or tensor.

Whoever drives it carries out the commands in order and feeds back what happened:

* every `Grow` is answered by exactly one `Grown` of that drafter, sooner or later, empty if need
  be;
* every segment sent is answered by exactly one `Judged`, in the order of sending;
* `Room` says that the ring can take a segment; it is worth asking again after every event.

The tokens emitted equal those of plain decoding whatever the drafter proposes and whenever events
come: a token is only ever emitted when it is the target's own pick after the root.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gardener.decoding.depths import Depths
from gardener.decoding.events import (
    Abort,
    Command,
    Emit,
    Feed,
    Finish,
    Grow,
    Grown,
    Judged,
    Moment,
    Room,
    Send,
)
from gardener.decoding.flights import Flight, Flights
from gardener.decoding.judgements import Judgements
from gardener.decoding.limits import Counts, Limits
from gardener.decoding.outgoing import outgoing
from gardener.decoding.pacing import verdict_in
from gardener.decoding.policy import Policy, SharingPolicy, View
from gardener.decoding.tree import Node, Opinion, Tree
from gardener.errors import LocalError
from gardener.protocol.messages import SPARE, Advance, Close, Open
from gardener.protocol.room import slots_for
from gardener.protocol.sampling import GREEDY, Sampling

IDLE = 0.001
"""Guesses less likely than this are left out: no policy sends them, whatever floor a user sets."""

ROOM = Room()  # there is room, and nobody has waited for it


@dataclass(slots=True)
class Speculation:
    """The token tree of one request: what was sent, judged, accepted, and is being drafted.

    Several drafters may grow the tree, each at its own pace. `sources` says of each whether it is
    asked again about a node once that is the root, because its features have come by then;
    `instant`, whether it answers at once. `taps` are the features that one of them wants.
    `sampling`, `logprobs`, `prefix` and `written` are those of `messages.Open`: the limits and the
    counts are those of the whole answer, with what was written before.

    Raises ValueError if the prompt is empty or leaves no room for an answer.
    """

    request: int
    prompt: Sequence[int]
    policy: Policy
    limits: Limits
    chunk: int = 128  # prompt rows in one segment
    sources: tuple[bool, ...] = (False,)
    taps: tuple[int, ...] = ()
    instant: tuple[bool, ...] = ()
    sampling: Sampling = GREEDY
    logprobs: int | None = None
    prefix: tuple[int, int] | None = None
    spare: int = SPARE  # most rows of the tree that may be under way or alive in the ring
    keep: bool = False  # at its end, the stages are to keep what is certain of it
    written: int = 0
    counts: Counts = field(default_factory=Counts)
    moment: Moment = field(default_factory=Moment)  # of the newest event
    tree: Tree = field(init=False)
    depths: Depths = field(init=False, default_factory=Depths)
    flights: Flights = field(init=False, default_factory=Flights)
    finished: str | None = field(init=False, default=None)
    _opened: bool = field(init=False, default=False)  # the stages know of it
    _limit: int = field(init=False)  # tokens that may be emitted
    _why: str = field(init=False)  # which limit that is
    _prefilled: int = field(init=False)  # prompt rows sent or kept, the root not among them
    _sent: dict[int, int] = field(init=False, default_factory=dict)  # living node -> seq
    _expanded: list[set[int]] = field(init=False)  # by drafter: nodes it has looked at
    _postponed: list[set[int]] = field(init=False)  # of these: those about which it had no answer
    _judgements: Judgements = field(init=False)
    _settled: list[int] = field(init=False, default_factory=list)  # the stages do not know yet
    _told: int = field(init=False, default=0)  # tokens that are certain by the newest Advance
    _seq: int = field(init=False, default=0)
    _growing: dict[int, tuple[int, ...]] = field(init=False, default_factory=dict)
    # drafters that are at work, and what they look at

    def __post_init__(self) -> None:
        self._limit, self._why = self.limits.room(self.asked)
        self.tree = Tree(len(self.prompt) - 1, self.prompt[-1])
        self._judgements = Judgements(len(self.prompt) - 1)
        self._prefilled = self.prefix[1] if self.prefix else 0
        self._expanded = [set() for _ in self.sources]
        self._postponed = [set() for _ in self.sources]

    @property
    def asked(self) -> int:
        """Tokens of the prompt that are not of the answer."""
        return len(self.prompt) - self.written

    @property
    def length(self) -> int:
        """Tokens that are certain; the root is the last one."""
        return self.asked + self.counts.emitted

    @property
    def context(self) -> int:
        """Most tokens that prompt and answer may have together."""
        return self.asked + self._limit

    @property
    def prompt_read(self) -> int:
        """Tokens of the prompt that are known to have gone through the ring."""
        return self._prefilled - self.flights.prompt_rows

    @property
    def announced(self) -> int:
        """How many tokens of prompt and answer, from the first one on, all stages know to be
        certain by what was sent to them until now, and have rows of."""
        return max(self._told, self.prompt_read + (self.length > len(self.prompt)))

    @property
    def kept(self) -> bool:
        """It has ended, and the stages were told to keep what is certain of it."""
        over = self.finished not in (None, "failed", "lost")
        return self.keep and self._opened and over

    @property
    def settled_rows(self) -> int:
        """Most rows that are certain at any stage, which may have got further than the others."""
        further = self.length - len(self.prompt)
        return self._prefilled + further + (self.tree.root in self._sent)

    @property
    def slots(self) -> int:
        """Slots that every stage sets aside for it."""
        return slots_for(self.context, self.spare)

    @property
    def tokens_left(self) -> int:
        """Tokens that may still be emitted."""
        return self._limit - self.counts.emitted

    def begin_with(self, prefix: tuple[int, int]) -> None:
        """Before the start: another request, and how many tokens are taken from there."""
        self.prefix, self._prefilled = prefix, prefix[1]

    def start(self, moment: Moment | None = None) -> list[Command]:
        """The first commands."""
        self.moment, self._opened = moment or self.moment, True
        opening = Open(
            self.request,
            len(self.prompt),
            self.context,
            self.taps,
            self.sampling,
            self.logprobs,
            self.spare,
            self.prefix,
            self.written,
        )
        return [Send(opening), *self._grow()]

    def handle(
        self, event: Grown | Judged | Room | Abort, moment: Moment | None = None
    ) -> list[Command]:
        """What to do now that `event` has happened. After the end: nothing.

        moment: of the event; left out, that of the event before.
        """
        if self.finished:
            return []
        self.moment = moment or self.moment
        match event:
            case Room():
                return self._room(event)
            case Judged():
                return self._judged(event)
            case Grown(children, source):
                return self._grown(children, source)
            case Abort(reason):
                return self._finish(reason)

    @property
    def answer_due(self) -> bool:
        """A drafter that answers at once was asked, and has not answered."""
        return bool(self.instant and self._growing) and any(
            map(self.instant.__getitem__, self._growing)
        )

    @property
    def urgent(self) -> bool:
        """Nothing can be emitted before the next segment is back."""
        return self.tree.root not in self._sent

    @property
    def reading(self) -> bool:
        """Rows of the prompt are still to be sent."""
        return self._prefilled < len(self.prompt) - 1

    def offer(self, moment: Moment) -> list[float]:
        """What the policy would send next, where requests share the ring: how likely each row is
        to come true, likeliest first."""
        self.moment = moment
        if self.finished or self.reading or not isinstance(self.policy, SharingPolicy):
            return []
        view = self.view(room=Room(overdue=True))
        return [view.chance(node) for node in self.policy.offer(view)]

    def view(self, source: int = 0, room: Room = ROOM, beside: int = 0) -> View:
        """What the policy may look at; the drafter `source` is the one it may ask. `beside`: rows
        of the prompt that go with the next segment, for which there is this room."""
        return View(
            tree=self.tree,
            sent=self._sent,
            expanded=self._expanded[source] if self._expanded else (),
            flying=self.flights.with_tree,
            growing=[node for nodes in self._growing.values() for node in nodes],
            overdue=room.overdue,
            granted=room.rows,
            others=self.moment.others,
            verdict_in=verdict_in(self.flights, self.moment.now),
            beside=beside,
            speculating=self.moment.speculating,
            reach=self.tokens_left,
            instant=self.instant[source] if self.instant else False,
            costs=self.moment.costs,
        )

    # --- the drafters ------------------------------------------------------------------------

    def _grow(self) -> list[Command]:
        """Ask the drafters that are idle, if the policy has a use for them."""
        commands: list[Command] = []
        for source, expanded in enumerate(self._expanded):
            if source in self._growing:
                continue
            nodes = self.policy.grow(self.view(source))
            if nodes:
                self._growing[source] = tuple(nodes)
                expanded.update(nodes)
                commands.append(Grow(tuple(nodes), source))
        return commands

    def _grown(self, children: Sequence[tuple[int, Opinion]], source: int) -> list[Command]:
        self._growing.pop(source, None)
        for parent, guesses in children:
            if parent not in self.tree:  # pruned while the drafter was at work
                continue
            if guesses is None:  # to be asked again, once it can know more
                self._postponed[source].add(parent)
                continue
            # Nothing is ever computed below an end of sequence, and its parent's pick suffices.
            eos = self.limits.eos
            useful = [guess for guess in guesses if guess[1] >= IDLE and guess[0] not in eos]
            self.counts.drafted += self.tree.propose(parent, source, useful)
        return self._grow()

    # --- sending -----------------------------------------------------------------------------

    def _room(self, room: Room) -> list[Command]:
        last = len(self.prompt) - 1
        if self._prefilled == last:
            nodes = self._choose(self.view(room=room))
            return [self._segment([], nodes), *self._settle(), *self._grow()] if nodes else []
        if len(self.flights) > self.moment.costs.count:
            return []  # one for each stage, and one that waits
        chunk = min(self.chunk, room.prompt or self.chunk)
        first, end = self._prefilled, min(self._prefilled + chunk, last)
        self._prefilled = end
        # Drafters may need what the ring computes of the prompt: nothing is waited for here.
        nodes = (
            self._choose(self.view(room=Room(overdue=True), beside=end - first))
            if end == last
            else []
        )
        return [self._segment(range(first, end), nodes), *self._grow()]

    def _choose(self, view: View) -> Sequence[int]:
        """What the policy wants to send, as far as the stages have set slots aside for it. Parents
        come first, so that what is left of a cut is whole."""
        nodes = self.policy.choose(view)
        return nodes[: max(self.spare - len(self._sent), 0)]

    def _segment(self, prompt: Sequence[int], nodes: Sequence[int]) -> Send:
        seq, self._seq = self._seq, self._seq + 1
        rows = [self.tree[node] for node in nodes]
        for node in nodes:
            if node in self._sent:
                raise LocalError(f"policy {self.policy.name} chose node {node} a second time")
            self._sent[node] = seq
        depths = self.depths.leave(nodes, self.tree.depth)
        self._leave(seq, (*prompt, *nodes), len(prompt))
        self.counts.segments += bool(rows)
        self.counts.prefill += not rows
        self.counts.rows += len(rows)
        places = [self.length - 1 + depth for depth in depths]
        return Send(outgoing(self.request, seq, self.prompt, prompt, rows, places))

    def _leave(self, seq: int, ids: tuple[int, ...], prompt: int) -> None:
        now, costs, rows = self.moment.now, self.moment.costs, len(ids)
        due = now + costs.round_trip(rows)
        self.flights.leave(Flight(seq, ids, prompt, now, costs.tick(rows), due))

    # --- verdicts ----------------------------------------------------------------------------

    def _judged(self, judged: Judged) -> list[Command]:
        features = judged.features
        self.flights.land(judged.verdict.seq)
        self._judgements.record(judged.verdict, self.tree, self._sent)
        wasted = self.counts.wasted
        nodes, reason = self._walk()
        fed: list[Command] = [Feed(features.prompt)] if features.prompt else []
        broken = None if reason else self._judgements.broken(self.tree.root)
        if not nodes:
            return fed if broken is None else [*fed, *self._finish("failed", broken)]
        # All accepted tokens of one verdict follow rows of that same verdict: rows are judged in
        # the order in which they were sent, parents first, and a token is accepted as soon as the
        # row before it is judged.
        before = [node.parent for node in nodes]
        emit = Emit(
            tuple(node.token for node in nodes),
            tuple(nodes),
            features.of(before),
            judged.logprobs_of(before),
        )
        if reason or broken is not None:
            return [*fed, emit, *self._finish(reason or "failed", broken)]
        # Where rows died that are under way, all stages should know before anything else. Where
        # none did, there is nothing to stop: the news goes behind the next segment.
        urgent = self._settle() if self.counts.wasted > wasted else []
        return [*fed, emit, *urgent, *self._grow()]

    def _walk(self) -> tuple[list[Node], str | None]:
        """Move the root along the picks that are known, until none is or the answer ends; the
        accepted nodes, and why it ends."""
        nodes: list[Node] = []
        while (pick := self._judgements.pick(self.tree.root)) is not None:
            self._settled.append(self.tree.root)
            self._accept(pick)
            nodes.append(self.tree[self.tree.root])
            if reason := self._ended(pick):
                return nodes, reason
        return nodes, None

    def _settle(self) -> list[Command]:
        """Tell the stages what was accepted since they were told last."""
        if not self._settled:
            return []
        settled, self._settled = tuple(self._settled), []
        # The root's own row may still be on its way, unless it was judged.
        self._told = self.length - 1 + (self.tree.root in self._judgements)
        return [Send(Advance(self.request, settled, self.tree.root))]

    def _accept(self, token: int) -> None:
        """Move the root to `token` and forget what died."""
        old = self.tree.root
        heir = self.tree.child(old, token)
        self.counts.accepted += heir is not None
        self.counts.missed += heir is None
        self.counts.emitted += 1
        self.counts.plain += not self.moment.speculating
        for source in self.tree.source(heir.id) if heir else ():
            self.counts.named[source] = self.counts.named.get(source, 0) + 1
        dead = self.tree.advance(token)
        self.depths.walk(heir, dead)
        for node in [node for node in dead if node in self._sent]:
            self.counts.wasted += 1
            del self._sent[node]
            self._judgements.forget(node)
        del self._sent[old]
        self._judgements.forget(old)
        for source, expanded in enumerate(self._expanded):
            expanded.difference_update(dead, (old,), self._postponed[source])
            self._postponed[source].clear()
            if self.sources[source]:
                expanded.discard(self.tree.root)

    def _ended(self, token: int) -> str | None:
        if token in self.limits.eos:
            return "eos"
        if self.limits.ends(token):
            return "stop"
        return self._why if self.counts.emitted == self._limit else None

    def _finish(self, reason: str, broken: int | None = None) -> list[Command]:
        self.finished = reason
        self.counts.wasted += len(self._sent)
        if not self._opened or reason == "lost":
            return [Finish(reason)]
        settled = self._settle() if self.kept else []
        return [*settled, Send(Close(self.request, self.kept)), Finish(reason, broken)]
