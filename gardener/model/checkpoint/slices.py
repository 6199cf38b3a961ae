"""Which layers a stage holds: slices, people's ranges, and an even cut.

A slice is half-open, `[first, end)`; people write ranges with both ends included, `10-19`. This
file does without torch.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

from gardener.errors import UserError
from gardener.runtime.wording import span

_LAYER = re.compile(r"^model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Slice:
    """Layers [first, end) of a model with `layers` of them.

    The first slice also holds the embedding, the last one the final norm and the head.
    """

    first: int
    end: int
    layers: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.end <= self.layers:
            raise UserError(
                f"there is no stage of {self} in a model with layers 0-{self.layers - 1}"
            )

    def __str__(self) -> str:
        """`layers 10-19`, as people count them: both ends included."""
        return span(self.first, self.end)

    @property
    def is_first(self) -> bool:
        return self.first == 0

    @property
    def is_last(self) -> bool:
        return self.end == self.layers

    def holds(self, name: str, tied: bool) -> bool:
        """Whether this slice needs the tensor of this name. `tied`: the output matrix is the
        embedding, see `tensors.output_matrix`."""
        layer = _LAYER.match(name)
        if layer:
            return self.first <= int(layer[1]) < self.end
        if name.startswith("model.embed_tokens."):
            return self.is_first or (self.is_last and tied)
        if name.startswith("lm_head."):
            return self.is_last and not tied
        return name.startswith("model.norm.") and self.is_last


@dataclass(frozen=True)
class EmbeddingAndHead:
    """What a draft head may borrow of the target model: no layer at all."""

    def holds(self, name: str, tied: bool) -> bool:
        """See `Slice.holds`."""
        return name.startswith("model.embed_tokens.") or (name.startswith("lm_head.") and not tied)


def parse_layers(text: str, layers: int, stages: int | None = None) -> list[Slice]:
    """`0-9,10-19,20-29` as slices that cover a model of `layers` layers without gap or overlap.

    Raises UserError, also where `stages` is given and is not the number of ranges.
    """
    slices = [parse_range(part, layers) for part in text.split(",")]
    expected = 0
    for part in slices:
        if part.first > expected:
            raise UserError(f"{span(expected, part.first)} {_are(expected, part.first)} missing")
        if part.first < expected:
            end = min(part.end, expected)
            raise UserError(f"{span(part.first, end)} {_are(part.first, end)} given twice")
        expected = part.end
    if expected < layers:
        raise UserError(f"{span(expected, layers)} {_are(expected, layers)} missing")
    if stages is not None and len(slices) != stages:
        raise UserError(f"--layers names {len(slices)} ranges but --stages is {stages}")
    return slices


def parse_range(text: str, layers: int) -> Slice:
    """`10-19` or `7` as a slice of a model of `layers` layers. Raises UserError."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", text)
    if not match:
        raise UserError(f"'{text.strip()}' is no range of layers: write it like 0-9")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise UserError(f"the range {first}-{last} ends before it begins")
    if last >= layers:
        raise UserError(f"there is no layer {last}: the model has layers 0-{layers - 1}")
    return Slice(first, last + 1, layers)


def even_cut(
    layer_costs: Sequence[int],
    head_cost: int,
    stages: int,
    *,
    factors: Sequence[int] = (),
    most: Sequence[int] = (),
) -> list[Slice]:
    """The contiguous cut into `stages` whose slowest stage is fastest.

    layer_costs  of each layer, in bytes read per decoded token or another measure of its time:
                 whole numbers, of which equal cuts have equal sums
    head_cost    of the head, which counts in full for the last stage; the embedding counts nothing,
                 since a token reads one row of it
    factors      by which the layers of each stage cost more, where the machines differ; the head's
                 cost is that on the machine of the last stage
    most         layers that each stage can hold

    Among the best cuts, the one with the least sum over all stages, and among those the one whose
    stages are most even. Raises UserError if there are more stages than layers, or if they cannot
    hold them all.
    """
    layers, before = len(layer_costs), [0, *accumulate(layer_costs)]
    if not 1 <= stages <= layers:
        raise UserError(f"a model of {layers} layers cannot be cut into {stages} stages")
    factors, most = factors or [1] * stages, most or [layers] * stages

    def cost(stage: int, start: int, end: int) -> int | None:
        """Of these layers at this stage; None: it cannot hold them."""
        if not start < end <= start + most[stage]:
            return None
        return factors[stage] * (before[end] - before[start]) + head_cost * (end == layers)

    fastest = _best_ends(layers, stages, cost, lambda sofar, more: (max(*sofar, more),))
    if fastest is None:
        raise UserError(
            f"a model of {layers} layers does not fit: the stages can hold "
            f"{', '.join(map(str, most))} layers at most"
        )
    (slowest,), _ = fastest

    def bounded(stage: int, start: int, end: int) -> int | None:
        found = cost(stage, start, end)
        return None if found is None or found > slowest else found

    best = _best_ends(
        layers, stages, bounded, lambda sofar, more: (sofar[0] + more, sofar[-1] + more * more)
    )
    assert best is not None  # `fastest` is within these bounds
    return _slices(best[1], layers)


def _best_ends(
    layers: int,
    stages: int,
    cost: Callable[[int, int, int], int | None],
    add: Callable[[tuple[int, ...], int], tuple[int, ...]],
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Where the stages end in the cut that is worth least, with what it is worth; None if there is
    no cut. `add` adds the cost of a stage to the worth of those before it; a greater worth must
    never become the lesser one by that."""
    # best[n]: of the first n layers, cut into as many stages as were looked at
    best: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {0: ((0,), ())}
    for stage in range(stages):
        last = stage == stages - 1
        step: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        for start, end in product(best, [layers] if last else range(stage + 1, layers)):
            more = cost(stage, start, end)
            if more is None:
                continue
            worth, ends = best[start]
            found = add(worth, more), (*ends, end)
            if end not in step or found < step[end]:
                step[end] = found
        best = step
    return best.get(layers)


def _slices(ends: Sequence[int], layers: int) -> list[Slice]:
    return [Slice(first, end, layers) for first, end in zip([0, *ends[:-1]], ends, strict=True)]


def _are(first: int, end: int) -> str:
    return "is" if end - first == 1 else "are"
