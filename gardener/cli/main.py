"""`gardener`: its commands put together. `gardener-node` is in `gardener.cli.node`."""

from typing import Annotated

import typer

import gardener
from gardener.cli.evaluate import evaluate
from gardener.cli.generate import generate
from gardener.cli.program import program
from gardener.cli.split import split
from gardener.cli.train_draft import train_draft
from gardener.cli.verify import verify

app = typer.Typer(
    name="gardener",
    help="One large language model across several machines, one request made fast.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate)
app.command()(verify)
app.command("eval")(evaluate)
app.command()(split)
app.command("train-draft")(train_draft)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gardener {gardener.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """One large language model across several machines, one request made fast."""


def main() -> None:
    """Entry point of `gardener`."""
    program(app)
