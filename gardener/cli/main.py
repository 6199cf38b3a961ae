"""`gardener`: its commands put together. `gardener-node` is in `gardener.cli.node`."""

from gardener.cli.chat.command import chat
from gardener.cli.doctor import doctor
from gardener.cli.evaluate import evaluate
from gardener.cli.generate import generate
from gardener.cli.keys import app as keys
from gardener.cli.make_random import make_random
from gardener.cli.plan import plan
from gardener.cli.program import application, program
from gardener.cli.replay import replay
from gardener.cli.serve import serve
from gardener.cli.split import split
from gardener.cli.train_draft import train_draft
from gardener.cli.verify import verify

app = application(
    "gardener", "One large language model across several machines, one request made fast."
)
app.command(generate, sort_key=1)
app.command(chat, sort_key=2)
app.command(serve, sort_key=3)
app.command(replay, sort_key=4)
app.command(verify, sort_key=5)
app.command(doctor, sort_key=5)
app.command(evaluate, name="eval", sort_key=6)
app.command(plan, sort_key=7)
app.command(split, sort_key=8)
app.command(train_draft, sort_key=9)
app.command(make_random, sort_key=10)
app.command(keys)


def main() -> None:
    """Entry point of `gardener`."""
    program(app)
