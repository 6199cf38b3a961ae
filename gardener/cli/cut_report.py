"""What `gardener split --measured` tells: what each stage should hold, what that brings, and how to
start the stages so."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from gardener.cli.program import note
from gardener.model.checkpoint.config import checked
from gardener.model.checkpoint.folders import read_json
from gardener.model.checkpoint.quantised import Quantised
from gardener.model.quants import AUTO, of_head
from gardener.runtime.wording import bare_span, span

if TYPE_CHECKING:  # these import numpy
    from gardener.cluster.plan.balance import Balance, MeasuredRing


@dataclass(frozen=True)
class Parts:
    """Where the stages find their layers.

    model      the whole model, or the folder of one that was split for the ring as it is
    out        the folder with the new parts; None: they were not written
    quantised  how these are stored; None: not quantised
    """

    model: str
    out: Path | None = None
    quantised: Quantised | None = None


class _Manifest(Struct, frozen=True):
    """What is needed of the one that a split leaves."""

    source: str = "MODEL"
    dtype: Literal["keep", "float32", "bfloat16", "float16"] = "keep"
    quantised: Quantised | None = None


def report(balance: "Balance", parts: Parts) -> None:
    """Say all of it, a line at a time. Raises UserError."""
    _stages(balance)
    if not balance.changes:
        note("the layers are balanced as they are")
        return
    _gain("the slowest stage", max(balance.now), max(balance.then))
    _gain("plain decoding", balance.plain(balance.now), balance.plain(balance.then))
    if parts.quantised is not None and _kinds(parts.quantised) != _kinds(balance.ring):
        note(
            f"the parts are in {_told(parts.quantised)}, and these times are of "
            f"{_told(balance.ring)}: measure again when they run"
        )
    manifest = Path(parts.model).expanduser() / "manifest.json"
    if parts.out is None and manifest.is_file():
        note("write the parts anew, then start each stage with its own, as before:")
        note(_split(balance, manifest))
        return
    note("start the stages so, each with the options that it had besides (--listen, --peer):")
    for line in commands(balance, parts):
        note(line)


def _stages(balance: "Balance") -> None:
    times = zip(balance.ring.stages, balance.cut, balance.now, balance.then, strict=True)
    for number, (stage, held, now, then) in enumerate(times, 1):
        head = f", head {stage.head_ms:.3g} ms" if stage.head_ms else ""
        full = held.end - held.first == stage.most < balance.ring.layers if stage.most else False
        note(
            f"stage {number} ({stage.name}): now holds {span(stage.first, stage.end)}, {now:.3g} "
            f"ms a token ({stage.layer_ms:.3g} ms a layer{head}); should hold "
            f"{bare_span(held.first, held.end)}: {then:.3g} ms"
            f"{', all that its memory takes' if full else ''}"
        )


def _gain(what: str, now: float, then: float) -> None:
    note(f"{what}: {now:.3g} -> {then:.3g} ms a token, {now / then:.2f} times as fast")


def _kinds(of: "Quantised | MeasuredRing") -> tuple[str, str]:
    """Of the layers and of the head."""
    return of.quant, of_head(of.quant_head, of.quant)


def _told(of: "Quantised | MeasuredRing") -> str:
    quant, head = _kinds(of)
    names = [name if name != "none" else "floats" for name in (quant, head)]
    return names[0] if quant == head else f"{names[0]}, with the head in {names[1]}"


def commands(balance: "Balance", parts: Parts) -> Sequence[str]:
    """What starts the stages with the new cut. Folders that are stored quantised say so
    themselves."""
    ring = balance.ring
    quant = "" if parts.quantised else _options(ring)
    model = shlex.quote(parts.model if parts.out is None else str(parts.out))
    return [
        f"gardener-node --stage {number} "
        + (f"--layers {bare_span(held.first, held.end)} " if parts.out is None else "")
        + f"--model {model} --dtype {ring.dtype}{quant} ..."
        for number, held in enumerate(balance.cut, 1)
    ]


def _options(ring: "MeasuredRing") -> str:
    """What quantises as the ring does."""
    layers = "" if ring.quant == "none" else f" --quant {ring.quant}"
    head = of_head(ring.quant_head, ring.quant)
    return layers if head == of_head(AUTO, ring.quant) else f"{layers} --quant-head {head}"


def _split(balance: "Balance", manifest: Path) -> str:
    """What writes the parts as they were written, but for their layers. Raises UserError."""
    was = checked(_Manifest, manifest, read_json(manifest), "split the model anew")
    layers = ",".join(bare_span(held.first, held.end) for held in balance.cut)
    dtype = "" if was.dtype == "keep" else f" --dtype {was.dtype}"
    how = was.quantised
    quant = f" --quant {how.quant} --group {how.group} --quant-head {how.quant_head}" if how else ""
    return f"gardener split {shlex.quote(was.source)} --layers {layers}{dtype}{quant} --out FOLDER"
