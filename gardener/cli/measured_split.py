"""`gardener split --measured`: cuts by what the stages of a ring have measured themselves."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from msgspec import ValidationError, convert

from gardener.cli import options as o
from gardener.cli.program import Misuse, note, run
from gardener.cli.security_options import SecurityOptions
from gardener.errors import UserError

if TYPE_CHECKING:  # these import numpy, and checkpoints
    from gardener.cluster.plan.balance import Balance, MeasuredRing

AUTO = "auto"
"""What `--layers` may say beside ranges."""


@Parameter(name="*")
@dataclass(frozen=True)
class MeasuredOptions:
    """Where measured times come from."""

    measured: Annotated[
        str | None,
        Parameter(
            metavar="HOST:PORT|FILE",
            help="Cut so that the slowest stage is as fast as can be, by what the stages of a ring "
            "have measured: stage 1 of one that stands, or what --json printed of one. Without "
            "--out, only say what each stage should hold: for that the folder of a model that was "
            "split will do, and a ring of folders that are stored quantised needs it.",
        ),
    ] = None
    listen: o.Listen = "127.0.0.1:7000"
    patience: o.PatienceSeconds = 120.0
    security: SecurityOptions = field(default_factory=SecurityOptions)

    def check(self, stages: int | None, layers: str | None, out: Path | None) -> None:
        """Raise Misuse for options that do not go together."""
        if self.measured is None:
            if layers == AUTO:
                raise Misuse(
                    "--layers auto cuts by measured times: give --measured HOST:PORT, where stage "
                    "1 of a ring listens, or --stages N to cut by sizes alone"
                )
            if out is None:
                raise Misuse(
                    "--out requires an argument, and is not given at all: only --measured does "
                    "without one"
                )
        elif layers not in (None, AUTO):
            raise Misuse(
                f"--layers {layers} names a cut, and --measured finds one: leave one of them out"
            )

    def balance(self, model: Path, layers: int, stages: int | None) -> "Balance | None":
        """The best cut of the model in this folder, which has `layers` layers; None if no times are
        given. Raises UserError or PeerLost."""
        if self.measured is None:
            return None
        from gardener.cluster.plan.balance import balanced

        ring = self._read(model, self.measured)
        if ring.layers != layers:
            raise UserError(
                f"--measured {self.measured} is of a model with {ring.layers} layers, and this one "
                f"has {layers}: take the model of that ring"
            )
        self._check_model(ring, model)
        if stages not in (None, len(ring.stages)):
            raise UserError(
                f"--stages is {stages}, and the ring of --measured has {len(ring.stages)}: leave "
                "--stages out, or measure a ring of as many"
            )
        return balanced(ring)

    def _check_model(self, ring: "MeasuredRing", model: Path) -> None:
        """Raise UserError unless the ring holds this model, however each is stored: that stands in
        front of a fingerprint (`Stored.mark`)."""
        from gardener.model.checkpoint.tensors import fingerprint
        from gardener.protocol.cards import same_model

        here = fingerprint(model)
        if not same_model(*(each.rpartition("-")[2] for each in (ring.model, here))):
            raise UserError(
                f"--measured {self.measured} is of the model {ring.model!r}, and this one is "
                f"{here!r}: take the model of that ring"
            )

    def _read(self, model: Path, measured: str) -> "MeasuredRing":
        from gardener.cluster.plan.balance import measured_ring
        from gardener.rings.survey import survey

        file = Path(measured).expanduser()
        if file.is_file() or file.suffix == ".json":
            return _from_file(file)
        cards = survey(model, measured, self.listen, self.patience, note, **asdict(self.security))
        return measured_ring(run(cards))


def _from_file(file: Path) -> "MeasuredRing":
    """What `--json` of this command printed. Raises UserError."""
    from gardener.cluster.plan.balance import MeasuredRing
    from gardener.model.checkpoint.folders import read_json

    if not file.is_file():
        raise UserError(f"there is no file {file}: --measured takes HOST:PORT of a ring, or a file")
    value = read_json(file)
    try:
        return convert(value.get("measured", value), MeasuredRing)
    except ValidationError as error:
        raise UserError(
            f"{file} holds no measured times ({error}): take what `gardener split --measured "
            "HOST:PORT --json` prints"
        ) from error
