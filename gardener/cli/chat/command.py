"""`gardener chat`: its options, and how they become a chat."""

import os
import shutil
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from gardener.cli import options as o
from gardener.cli import terminal
from gardener.cli.chat.dialogue import Dialogue
from gardener.cli.chat.knobs import SAMPLED, Knobs
from gardener.cli.cluster_options import ClusterFile
from gardener.cli.output import progress, written
from gardener.cli.program import Misuse, flag, ignore, note, result, run, text_of
from gardener.cli.sampling import SamplingOptions
from gardener.decoding.policy import SHARING, default_policy
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import Say, printable

if TYPE_CHECKING:  # late: they are not needed for help, nor where something is wrong
    from gardener.cli.chat.paint import Painter, Style
    from gardener.cli.chat.source import Source

ADDRESS = Group.create_ordered("Server")

WHOM = (
    "say whom to chat with: --local N starts N stages here, --peer HOST:PORT uses a ring whose "
    "stage 1 listens there, --cluster FILE (or cluster.toml in this folder) the one that it "
    "describes, --url http://HOST:PORT a server"
)


@Parameter(name="*", group=ADDRESS)
@dataclass(frozen=True)
class AddressOptions:
    """A server in place of a ring."""

    url: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_URL",
            metavar="URL",
            help="Chat with this server, `gardener serve` or any other that has OpenAI's "
            "interface; nothing is computed here.",
        ),
    ] = None
    api_key: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_API_KEY",
            metavar="KEY",
            help="The server's key. Better in the environment, where others do not see it.",
        ),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True)
class LookOptions:
    """What the answers look like."""

    no_color: Annotated[bool, flag(help="No colours; also by NO_COLOR in the environment.")] = False
    no_tint: Annotated[
        bool, flag(env_var="GARDENER_NO_TINT", help="Accepted guesses look like other text.")
    ] = False
    plain: Annotated[
        bool,
        flag(
            env_var="GARDENER_PLAIN",
            help="The text as it is: no bold for Markdown's marks, no line breaks between words.",
        ),
    ] = False

    @property
    def colour(self) -> bool:
        """Whether there may be colours."""
        dull = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return not (self.no_color or dull)

    @property
    def legend(self) -> str:
        """A line about the tint, if there is one."""
        tints = self.colour and not self.no_tint
        return "\ngreen: what had been guessed, and came true" if tints else ""

    def style(self) -> "Style":
        """For the terminal."""
        from gardener.cli.chat.paint import Style

        return Style(self.colour, not self.no_tint, not self.plain)


def chat(
    *,
    address: AddressOptions = AddressOptions(),
    ring: o.RingOptions = o.RingOptions(),
    draft: o.Draft = "auto",
    holder: o.HolderOptions = o.HolderOptions(),
    max_new_tokens: o.NewTokens = 1024,
    sampling: SamplingOptions = SamplingOptions(),
    policy: o.Policy = None,
    look: LookOptions = LookOptions(),
    verbose: Annotated[
        bool, flag("--verbose", "-v", help="Show what the stages of a local ring print.")
    ] = False,
    cluster: ClusterFile = None,
    config: o.Config = None,
) -> None:
    """Chat in the terminal, several turns with one ring or with a server. /help lists the commands;
    without a terminal, every line of standard input is a message.

    gardener chat --local 3
    """
    system = holder.chat.system
    dialogue = Dialogue(None if system is None else text_of(system, "--system"))
    sampling.begun(max_new_tokens)  # say now what cannot be; each answer draws its own seed
    start = Start(dialogue, look, max_new_tokens, sampling)
    if address.url is not None:
        given = [("--local", ring.local), ("--peer", holder.connection.peer), ("--policy", policy)]
        idle = [name for name, value in given if value is not None]
        if idle:
            note(f"--url asks a server: {', '.join(idle)} has no effect")
        wanted = holder.model.model
        model = None if wanted == o.DEFAULT_MODEL else wanted
        failed = run(_with_server(address.url, address.api_key, model, start))
    else:
        if (ring.local, holder.connection.peer, ring.simulate) == (None, None, None):
            raise Misuse(WHOM)
        if ring.simulate is not None:
            raise Misuse(
                "a simulated ring has a clock of its own, in which nobody can type: " + WHOM
            )
        settings = holder.settings(ring, holder.drafting.settings(draft))
        first = policy or default_policy(settings.crowded, holder.bounds.window)
        if policy is None and first == "alternating":
            tell = _wrapping(note) if _is_terminal() else note
            tell(f"policy {first}, because {SHARING} (--policy changes that)")
        settings = replace(settings, policies=(first,), keep_prefixes=True)
        asked = _with_ring(settings, first, holder.bounds, verbose, start)
        failed = run(asked, settings.loop())
    if failed:
        sys.exit(1)


@dataclass(frozen=True)
class Start:
    """What a chat begins with, whoever answers."""

    dialogue: Dialogue
    look: LookOptions
    max_tokens: int
    options: SamplingOptions

    def knobs(self, sampling: Sampling, policy: str | None = None) -> Knobs:
        """The settings, with these that follow from the options."""
        given = {name for name in SAMPLED if getattr(self.options, name) is not None}
        given |= {"ignore_eos"} if self.options.ignore_eos else set()
        return Knobs(sampling, self.max_tokens, policy, self.options.ignore_eos, frozenset(given))


async def _with_server(url: str, key: str | None, model: str | None, start: Start) -> bool:
    """Chat with a server; whether something failed. Raises GardenerError if it does not answer."""
    from gardener.cli.chat.server import ServerSource  # late: needs httpx2

    async with ServerSource(url, key, model) as source:
        if key is not None and source.is_open:
            note(f"the key goes to {source.host} without encryption: use https where you can")
        if start.options.sample:
            note("--sample has no effect: a server has the model's settings by itself")
        hello = f"{printable(source.model)} at {source.host}"
        if source.tells:
            hello += start.look.legend
        return await _converse(source, start, start.knobs(start.options.over(GREEDY)), hello)


async def _with_ring(
    settings: RingSettings, policy: str, bounds: o.BoundsOptions, verbose: bool, start: Start
) -> bool:
    """Chat with a ring; whether something failed. Raises GardenerError if it does not close."""
    from gardener.cli.chat.ring import RingSource

    say: Say = note
    heard: Say = note if verbose else ignore
    if _is_terminal():
        from gardener.cli.chat.screen import told_above

        say, heard = told_above(say), told_above(heard)
    source = RingSource(settings, bounds.bounds(), say, heard, progress)
    async with source:
        ring = await source.ring()
        knobs = start.knobs(start.options.sampling(ring.folder, note), policy)
        hello = f"{printable(source.model)} on {len(ring.stages)} stages\n{ring.exactness}"
        hello += start.look.legend
        return await _converse(source, start, knobs, hello)


async def _converse(source: "Source", start: Start, knobs: Knobs, hello: str) -> bool:
    """The chat itself; whether something failed."""
    from gardener.cli.chat.chat import Chat, Input
    from gardener.cli.chat.paint import Style
    from gardener.cli.chat.pipe import Lines

    if not _is_terminal():
        if sys.stdin.isatty():
            note("the output is no terminal: each line is a message, Ctrl-D ends the chat")
        given: Input = Lines()
        bare = Style(colour=False, tint=False, marks=False)
        talk = Chat(source, start.dialogue, knobs, given, lambda: _page(bare), note)
        await talk.run()
        return talk.failed
    from gardener.cli.chat.history import history
    from gardener.cli.chat.screen import Screen

    style, keys = start.look.style(), terminal.reads_keys()
    say = _wrapping(note)
    say(f"{hello}\n/help lists the commands, Ctrl-D leaves\n")
    screen = Screen(history(say), lambda: talk.status, colour=start.look.colour)
    source.changed = screen.refresh
    talk = Chat(source, start.dialogue, knobs, screen, lambda: _page(style, keys), say)
    try:
        if keys is not None:
            terminal.give_keys_at_once(keys)  # or Ctrl-D between two prompts would be lost
        await talk.run()
    finally:
        terminal.restore_keys()
    return False


@asynccontextmanager
async def _page(style: "Style", keys: int | None = None) -> AsyncIterator["Painter"]:
    """Where one answer is written. `keys`: the terminal, which does not print what is typed
    meanwhile; it is read with the next message."""
    from gardener.cli.chat.paint import Painter

    painter = Painter(result, lambda: shutil.get_terminal_size().columns, style)
    try:
        if keys is not None:
            terminal.give_keys_at_once(keys)  # a shell may have changed that
        yield painter
    finally:
        painter.end()
        if keys is not None:
            if painter.begun:
                result("\n")
            await written()


def _wrapping(say: Say) -> Say:
    """The same for a person: long lines are broken between words."""

    def tell(text: str) -> None:
        width = max(shutil.get_terminal_size().columns - 1, 20)
        for line in text.split("\n"):
            short = len(line) <= width
            say(line if short else textwrap.fill(line, width, break_long_words=False))

    return tell


def _is_terminal() -> bool:
    """Whether somebody types, and sees what is written."""
    return terminal.reads_keys() is not None and sys.stdout.isatty()
