"""`gardener train-draft`: makes a draft head for a model, or improves one."""

import contextlib
import os
import shlex
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from cyclopts.validators import Path as PathCheck

from gardener.cli import options as o
from gardener.cli.program import Interrupted, flag, note
from gardener.cli.stage_options import Device, DTypeName, Threads
from gardener.cli.start import end_at_once
from gardener.cli.view.training import Bar, Lines
from gardener.draft.train.hours import Hours, Stopped
from gardener.draft.train.plan import Plan
from gardener.errors import UserError
from gardener.holder.templates import read
from gardener.runtime.files import make_folder

if TYPE_CHECKING:
    from gardener.draft.train.dialogue import Script
    from gardener.holder.prompter import Prompter

Out = Annotated[
    Path, Parameter(metavar="FOLDER", help="Folder for the head, its dialogues and report.")
]
From = Annotated[
    str | None,
    Parameter(name="--from", metavar="HEAD", help="A head to go on from: a folder, or `shipped`."),
]
Raw = Annotated[
    bool,
    flag(
        help="Without a chat template: texts that go on from the --openings, or from the turns of "
        "--data, instead of dialogues."
    ),
]
Data = Annotated[
    Path | None,
    Parameter(
        metavar="FILE", help="JSONL of chats (rows with `turns`); the model answers them anew."
    ),
]
Openings = Annotated[
    Path | None,
    Parameter(
        validator=PathCheck(exists=True, dir_okay=False),
        metavar="FILE",
        help="First words of user turns, one a line; the package has some.",
    ),
]
OwnDType = Annotated[
    DTypeName | None,
    Parameter(help="What the model computes in; tried out if it is not given."),
]


@Parameter(name="*", group="Training")
@dataclass(frozen=True)
class TrainingOptions:
    """How the head is built and trained."""

    hours: Annotated[
        float,
        Parameter(
            validator=Number(gte=0.001),
            help="How long it all may take, in all sessions on this folder.",
        ),
    ] = Plan.hours
    taps: Annotated[
        str,
        Parameter(
            metavar="K,...",
            help="Hidden states for the head: layers, or `final` for the last one alone.",
        ),
    ] = "final"
    vocab: Annotated[
        int, Parameter(validator=Number(gte=16), help="Tokens that the head can guess.")
    ] = Plan.vocab
    inner: Annotated[
        int, Parameter(validator=Number(gte=0), help="Width of its MLP; 0: as in the model.")
    ] = Plan.inner
    induction: Annotated[
        int,
        Parameter(
            validator=Number(gte=0), help="Groups of heads that find what stood in the text before."
        ),
    ] = Plan.induction
    steps: Annotated[
        int, Parameter(validator=Number(gte=5), help="Passes of the training-time test.")
    ] = Plan.steps
    passes: Annotated[
        float, Parameter(validator=Number(gte=1), help="How often a token is trained on.")
    ] = Plan.passes
    rate: Annotated[float, Parameter(help="Highest learning rate.")] = Plan.rate
    lanes: Annotated[
        int, Parameter(validator=Number(gte=1), help="Most dialogues written at a time.")
    ] = Plan.lanes
    room: Annotated[int, Parameter(validator=Number(gte=64), help="Most tokens in a dialogue.")] = (
        Plan.room
    )
    rounds: Annotated[
        int, Parameter(validator=Number(gte=1), help="Most user turns in a dialogue.")
    ] = Plan.rounds
    seed: Annotated[int, Parameter(help="Another seed gives other dialogues.")] = Plan.seed

    def plan(self) -> Plan:
        """These settings in the form that the training run takes. Raises UserError."""
        return Plan(**asdict(self) | {"taps": _taps(self.taps)})


def train_draft(
    *,
    out: Out,
    model: o.ModelOptions = o.ModelOptions(),
    chat: o.ChatOptions = o.ChatOptions(),
    raw: Raw = False,
    training: TrainingOptions = TrainingOptions(),
    start: From = None,
    data: Data = None,
    openings: Openings = None,
    dtype: OwnDType = None,
    device: Device = "cpu",
    threads: Threads = None,
    config: o.Config = None,
) -> None:
    """Train a small head that drafts for a model, on dialogues that the model writes itself.

    gardener train-draft --model smollm2-135m --out head --hours 2

    Interrupt it at any time: the same command goes on. More --hours make the head better.
    """
    chat.tell_raw(raw)
    if chat.template is not None:
        read(chat.template)
    make_folder(out)  # find out now, not when there is something to write
    clock = Hours(training.hours, lambda: stop.number is not None)
    stop = _Stop(clock)
    from gardener.draft.train.run import TrainingRun
    from gardener.evaluation.datasets import read_conversations
    from gardener.holder.prompter import Prompter
    from gardener.model.checkpoint import resolve as models
    from gardener.model.kernels.linear import quick_dtype

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    folder = models.resolve(model.model, model.revision, say=note)
    plan = training.plan()
    prompter = Prompter(
        folder, template=chat.template, system=chat.system, name=model.model, say=note
    )
    rows = read_conversations([data], None) if data else ()
    writing = _Writing(prompter, raw)
    asked = [[tokens for turn in row.turns if (tokens := writing.tokens(turn))] for row in rows]
    script = writing.script(openings)
    try:
        with Bar(clock.total) if sys.stderr.isatty() else Lines(clock.total, note) as teller:
            run = TrainingRun(
                out,
                folder,
                plan,
                script,
                teller.tell,
                dtype=dtype or quick_dtype(device),
                device=device,
                asked=[turns for turns in asked if turns],
                start=_start(start, folder),
                hours=clock,
            )
            run.work()
            from gardener.draft.train.report import finish

            command = shlex.join(["gardener", *sys.argv[1:]])
            finish(run, model.model, command, None if raw else prompter.template)
    except Stopped:
        note(f"what there is was kept in {out}: the same command goes on")
        raise Interrupted(stop.number or signal.SIGINT) from None
    note(f"the head is in {out}; {out / 'report.md'} says how good it is")


def _taps(text: str) -> tuple[int, ...]:
    if text == "final":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--taps {text}: name layers like 2,15,30, or say final") from None


def _start(name: str | None, model: Path) -> Path | None:
    """The folder of the head to begin with. Raises UserError if none is shipped."""
    from gardener.draft.shipped import head_for
    from gardener.model.checkpoint.tensors import fingerprint

    if name != "shipped":
        return None if name is None else Path(name).expanduser()
    found = head_for(fingerprint(model))
    if found is None:
        raise UserError("no head is shipped for this model: leave --from away to make a new one")
    return found


class _Writing:
    """How dialogues are written: with the turns of a chat template, or `raw` without any."""

    def __init__(self, prompter: "Prompter", raw: bool) -> None:
        """Raises UserError if there is no template that will do."""
        self._prompter = prompter
        self._fixed = None if raw else prompter.fixed_text()

    def tokens(self, text: str) -> list[int]:
        """A user turn, or its first words."""
        if self._fixed is None:
            return self._prompter.tokens(text)
        return self._prompter.turn(text, self._fixed)

    def script(self, openings: Path | None) -> "Script":
        """Raises UserError for openings that cannot be read, or none where they are needed."""
        from gardener.draft.train.dialogue import Script, read_openings

        prompter, fixed = self._prompter, self._fixed
        words = tuple(tuple(self.tokens(line)) for line in read_openings(openings))
        if fixed is None:
            words = tuple(each for each in words if each)
            if not words:
                raise UserError(f"--openings {openings} has no words, and --raw begins with some")
            return Script(tuple(prompter.start()), (), (), prompter.eos, words)
        first = fixed.answering[0]
        ends = prompter.eos | ({first} if prompter.added(first) else set())
        return Script(fixed.opening, fixed.answering, fixed.asking, ends, words)


class _Stop:
    """The first Ctrl-C or SIGTERM while there is something to keep: `number` says which. Any other
    one ends the process at once."""

    def __init__(self, clock: Hours) -> None:
        self.number: int | None = None
        self._clock = clock
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._got)

    def _got(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None or not self._clock.under_way:
            end_at_once(number)
        self.number = number
        with contextlib.suppress(OSError):  # `note` may be in the middle of a line
            os.write(2, b"\nending after this step; once more ends it at once\n")
