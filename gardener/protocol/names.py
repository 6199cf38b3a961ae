"""Texts in messages: names of things, and reasons. They may come from anybody."""

from typing import Annotated, TypeAlias

from msgspec import Meta

from gardener.runtime.wording import printable

MAX_NAME = 512
"""Most characters of a name, or of the reason for something."""

Name: TypeAlias = Annotated[str, Meta(max_length=MAX_NAME)]


def as_name(text: str) -> str:
    """`text` as it may go into a message: printable, and cut if it is too long."""
    return printable(text)[:MAX_NAME]
