"""Makes the pictures of `gardener chat`: real chats of two turns, typed into a terminal.

Each is a run of its own, with a ring on this machine; the picture is what stands on the terminal
after it. From the checkout: `python -m benchmarks.chat_captures [--stages N] [--out FOLDER]`.
"""

import argparse
from pathlib import Path

from benchmarks.screen import Typed
from gardener.cli.view.picture import as_svg

PROGRAM = "from gardener.cli.start import gardener; gardener()"

SIZES = ((80, 24), (160, 50))
QUESTIONS = ("Name three vegetables for a cold garden.", "Which one is sown first?")
READY = r"\d+/8192 tokens"


def chat(columns: int, rows: int, stages: int) -> str:
    """One chat, as SVG."""
    typed = Typed(
        ["-c", PROGRAM, "chat", "--local", str(stages), "--max-new-tokens", "100"], columns, rows
    )
    typed.until_still(READY)
    for question in QUESTIONS:
        typed.type(f"{question}\r")
        typed.until_still(rf"{question[:10]}[\s\S]*\n\n> ?\n[\s\S]*{READY}", still=3.0)
    typed.type("/stats\r")
    typed.until_still(rf"context [\s\S]*{READY}")
    picture = as_svg(typed.screen.picture(), columns, rows, "gardener chat")
    typed.end("\x04")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/captures"))
    options = parser.parse_args()
    for columns, rows in SIZES:
        path = options.out / f"chat-{columns}x{rows}.svg"
        path.write_text(chat(columns, rows, options.stages), encoding="utf-8")


if __name__ == "__main__":
    main()
