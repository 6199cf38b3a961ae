"""One request as a state machine: `handle(event) -> commands`. No socket, clock or tensor.

Whoever drives it carries out the commands in order and feeds back what happened:

* every `Grow` is answered by exactly one `Grown` of that drafter, sooner or later, empty if need
  be;
* every segment sent is answered by exactly one `Judged`, in the order of sending;
* `Room` says that the ring can take a segment; it is worth asking again after every event.

The tokens emitted equal those of plain decoding whatever the drafter proposes and whenever events
come, because a token is only ever emitted when it is the target's own pick after the root.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gardener.decoding.costs import Costs
from gardener.decoding.events import (
    Command,
    Emit,
    Event,
    Finish,
    Grow,
    Grown,
    Judged,
    Room,
    Send,
    StageLost,
)
from gardener.decoding.policy import Policy, View
from gardener.decoding.tree import Node, Opinion, Tree
from gardener.errors import LocalError, RemoteError
from gardener.protocol.messages import Advance, Close, Open, Segment, Verdict

IDLE = 0.001
"""Guesses less likely than this are left out: no policy sends them, whatever floor a user sets."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When an answer ends.

    new_tokens: most tokens to emit. context: most tokens of prompt and answer together. eos: tokens
    that end the answer and belong to it. ends: called once for each emitted token but those,
    in order; true where the text now holds a stop string.
    """

    new_tokens: int
    context: int
    eos: frozenset[int] = frozenset()
    ends: Callable[[int], bool] = lambda token: False


@dataclass(slots=True)
class Counts:
    """What a request cost and brought. Rows of the prompt before its last token are not counted."""

    emitted: int = 0
    segments: int = 0  # with tree rows
    rows: int = 0  # tree rows sent
    wasted: int = 0  # tree rows sent that did not come true, or came after the end
    accepted: int = 0  # emitted tokens whose node stood in the tree already
    missed: int = 0  # emitted tokens that had to be planted
    drafted: int = 0  # nodes that the drafters added
    named: dict[int, int] = field(default_factory=dict)  # accepted, by drafters that named them
    prefill: int = 0  # segments of prompt rows alone
    plain: int = 0  # emitted tokens before which guessing had been turned off: it did not pay


@dataclass(frozen=True, slots=True)
class Flight:
    """A segment under way: all its rows, and those of the tree among them."""

    seq: int
    size: int
    rows: int


@dataclass(slots=True)
class Round:
    """The round of one request (design, section 6).

    Several drafters may grow the tree, each at its own pace: `sources` says of each whether it
    looks again at a node that has become the root, for it knows more about it then; `instant`,
    whether it answers at once. `taps` are the features that one of them wants from the ring.
    `costs` is kept current by whoever drives this.

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
    costs: Costs = field(default_factory=lambda: Costs.flat(1))
    # Both are kept current by whoever drives this:
    verdict_in: float = math.inf  # seconds until the next verdict is expected
    speculating: bool = True  # guesses are worth their time
    tree: Tree = field(init=False)
    counts: Counts = field(init=False, default_factory=Counts)
    finished: str | None = field(init=False, default=None)
    _limit: int = field(init=False)  # tokens that may be emitted
    _why: str = field(init=False)  # which limit that is
    _prefilled: int = field(init=False, default=0)  # prompt rows sent, the root not among them
    _sent: dict[int, int] = field(init=False, default_factory=dict)  # living node -> seq
    _expanded: list[set[int]] = field(init=False)  # by drafter: nodes it has looked at
    _postponed: list[set[int]] = field(init=False)  # of these: those about which it had no answer
    _picks: dict[int, int] = field(init=False, default_factory=dict)  # judged node -> next token
    _settled: list[int] = field(init=False, default_factory=list)  # the stages do not know yet
    _flights: deque[Flight] = field(init=False, default_factory=deque)
    _seq: int = field(init=False, default=0)
    _growing: dict[int, tuple[int, ...]] = field(init=False, default_factory=dict)
    # drafters that are at work, and what they look at

    def __post_init__(self) -> None:
        room = self.limits.context - len(self.prompt)
        if not self.prompt or room < 1 or self.limits.new_tokens < 1:
            raise ValueError(
                f"a prompt of {len(self.prompt)} tokens in a context of {self.limits.context} "
                f"leaves no room for an answer of up to {self.limits.new_tokens}"
            )
        self._limit = min(self.limits.new_tokens, room)
        self._why = "length" if self.limits.new_tokens <= room else "context"
        self.tree = Tree(len(self.prompt) - 1, self.prompt[-1])
        self._expanded = [set() for _ in self.sources]
        self._postponed = [set() for _ in self.sources]

    @property
    def read(self) -> int:
        """Tokens of the prompt that are known to have gone through the ring."""
        return self._prefilled - sum(flight.size - flight.rows for flight in self._flights)

    def flights(self) -> list[Flight]:
        """Segments under way, the oldest first."""
        return list(self._flights)

    def start(self) -> list[Command]:
        """The first commands."""
        return [
            Send(Open(self.request, len(self.prompt), self.limits.context, self.taps)),
            *self._grow(),
        ]

    def handle(self, event: Event) -> list[Command]:
        """What to do now that `event` has happened. After the end: nothing."""
        if self.finished:
            return []
        match event:
            case Room(overdue):
                return self._room(overdue)
            case Judged(verdict):
                return self._judged(verdict)
            case Grown(children, source):
                return self._grown(children, source)
            case StageLost():
                return self._finish("lost")

    @property
    def urgent(self) -> bool:
        """Nothing can be emitted before the next segment is back."""
        return self.tree.root not in self._sent

    def view(self, source: int = 0, overdue: bool = False, beside: int = 0) -> View:
        """What the policy may look at; the drafter `source` is the one it may ask. `beside`: rows
        of the prompt that go with the next segment."""
        return View(
            tree=self.tree,
            sent=self._sent,
            expanded=self._expanded[source] if self._expanded else (),
            flying=sum(1 for flight in self._flights if flight.rows),
            growing=[node for nodes in self._growing.values() for node in nodes],
            overdue=overdue,
            verdict_in=self.verdict_in,
            beside=beside,
            speculating=self.speculating,
            reach=self._limit - self.counts.emitted,
            instant=self.instant[source] if self.instant else False,
            costs=self.costs,
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

    def _room(self, overdue: bool) -> list[Command]:
        last = len(self.prompt) - 1
        if self._prefilled == last:
            nodes = self.policy.choose(self.view(overdue=overdue))
            return [self._segment([], nodes), *self._settle(), *self._grow()] if nodes else []
        if len(self._flights) > len(self.costs.stages):
            return []  # one for each stage, and one that waits
        first, end = self._prefilled, min(self._prefilled + self.chunk, last)
        self._prefilled = end
        # Drafters may need what the ring computes of the prompt: nothing is waited for here.
        nodes = (
            self.policy.choose(self.view(overdue=True, beside=end - first)) if end == last else []
        )
        return [self._segment(range(first, end), nodes), *self._grow()]

    def _segment(self, prompt: Sequence[int], nodes: Sequence[int]) -> Send:
        seq, self._seq = self._seq, self._seq + 1
        rows = [self.tree[node] for node in nodes]
        for node in nodes:
            if node in self._sent:
                raise LocalError(f"policy {self.policy.name} chose node {node} a second time")
            self._sent[node] = seq
        root = len(self.prompt) - 1 + self.counts.emitted  # position of the root
        self._flights.append(Flight(seq, len(prompt) + len(rows), len(rows)))
        self.counts.segments += bool(rows)
        self.counts.prefill += not rows
        self.counts.rows += len(rows)
        return Send(
            Segment(
                request=self.request,
                seq=seq,
                ids=(*prompt, *nodes),
                parents=(*(p - 1 for p in prompt), *(n.parent for n in rows)),
                positions=(*prompt, *(root + self.tree.depth(node) for node in nodes)),
                tokens=(*(self.prompt[p] for p in prompt), *(n.token for n in rows)),
                hidden=None,
                times=(),
            )
        )

    # --- verdicts ----------------------------------------------------------------------------

    def _judged(self, verdict: Verdict) -> list[Command]:
        self._record(verdict)
        tokens: list[int] = []
        nodes: list[Node] = []
        wasted = self.counts.wasted
        while (pick := self._picks.get(self.tree.root)) is not None:
            self._settled.append(self.tree.root)
            self._accept(pick)
            tokens.append(pick)
            nodes.append(self.tree[self.tree.root])
            reason = self._ended(pick)
            if reason:
                return [Emit(tuple(tokens), tuple(nodes)), *self._finish(reason)]
        if not tokens:
            return []
        # Where rows died that are under way, all stages should know before anything else. Where
        # none did, there is nothing to stop: the news goes behind the next segment.
        urgent = self._settle() if self.counts.wasted > wasted else []
        return [Emit(tuple(tokens), tuple(nodes)), *urgent, *self._grow()]

    def _settle(self) -> list[Command]:
        """Tell the stages what was accepted since they were told last."""
        if not self._settled:
            return []
        settled, self._settled = tuple(self._settled), []
        return [Send(Advance(self.request, settled, self.tree.root))]

    def _record(self, verdict: Verdict) -> None:
        """Note the picks of rows that still live; the rest came too late."""
        if not self._flights or self._flights[0].seq != verdict.seq:
            raise RemoteError(
                f"a verdict for segment {verdict.seq}, but the next one due is "
                f"{self._flights[0].seq if self._flights else 'none'}"
            )
        self._flights.popleft()
        for node, pick in zip(verdict.ids, verdict.picks, strict=True):
            if node in self.tree:
                if self._sent.get(node) != verdict.seq:
                    raise RemoteError(f"segment {verdict.seq} did not carry node {node}")
                self._picks[node] = pick
        if self._sent.get(self.tree.root) == verdict.seq and self.tree.root not in self._picks:
            raise RemoteError(f"segment {verdict.seq} came back without a pick for the root")

    def _accept(self, token: int) -> None:
        """Move the root to `token` and forget what died."""
        old = self.tree.root
        heir = self.tree.child(old, token)
        self.counts.accepted += heir is not None
        self.counts.missed += heir is None
        self.counts.emitted += 1
        self.counts.plain += not self.speculating
        for source in self.tree.source(heir.id) if heir else ():
            self.counts.named[source] = self.counts.named.get(source, 0) + 1
        for node in self.tree.advance(token):
            self.counts.wasted += self._sent.pop(node, None) is not None
            self._forget(node)
            self._picks.pop(node, None)
        del self._sent[old], self._picks[old]
        self._forget(old)
        for source, expanded in enumerate(self._expanded):
            expanded -= self._postponed[source]
            self._postponed[source].clear()
            if self.sources[source]:
                expanded.discard(self.tree.root)

    def _forget(self, node: int) -> None:
        for expanded in self._expanded:
            expanded.discard(node)

    def _ended(self, token: int) -> str | None:
        if token in self.limits.eos:
            return "eos"
        if self.limits.ends(token):
            return "stop"
        return self._why if self.counts.emitted == self._limit else None

    def _finish(self, reason: str) -> list[Command]:
        self.finished = reason
        self.counts.wasted += len(self._sent)
        close: list[Command] = [] if reason == "lost" else [Send(Close(self.request))]
        return [*close, Finish(reason)]
