"""The page in a real browser: open it, ask, and complain of what should not happen there."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from serving import KEY, MODEL, Server

SLOW = 60_000
"""Milliseconds that anything may take: far more than it does, on a machine that is busy."""


def launched() -> Iterator[Any]:
    """Debian's Chromium, or the one that playwright installs."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        path = shutil.which("chromium")
        try:
            started = driver.chromium.launch(executable_path=path)
        except playwright.Error as error:
            pytest.skip(f"no Chromium to show the page in: {str(error).splitlines()[0]}")
        yield started
        started.close()


@dataclass
class Seen:
    """What should not happen on a page."""

    origin: str
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        page.on("console", self.said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", self.went)

    def said(self, message: Any) -> None:
        # The browser itself says of every 401 and 503 that it failed to load.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def went(self, request: Any) -> None:
        self.asked.append(request.url)
        if not request.url.startswith(self.origin + "/"):
            self.elsewhere.append(request.url)


@contextmanager
def opened(
    browser: Any, server: Server, *, key: str | None = KEY, most: int = 40, width: int = 1440
) -> Iterator[Any]:
    """The page, of which nobody may complain."""
    from playwright.sync_api import expect  # late: it may be missing

    context = browser.new_context(viewport={"width": width, "height": 900})
    context.set_default_timeout(SLOW)
    kept = {"gardener.settings": json.dumps({"most": most, "temperature": "0"})}
    kept |= {"gardener.key": key} if key else {}
    context.add_init_script(
        f"for (const [name, value] of Object.entries({json.dumps(kept)}))"
        "if (sessionStorage.getItem(name) === null) sessionStorage.setItem(name, value)"
    )
    page, seen = context.new_page(), Seen(server.url)
    seen.watch(page)
    try:
        page.goto(server.url)
        if key:
            expect(page.locator("#model")).to_have_text(MODEL, timeout=SLOW)
        yield page
        assert seen.complaints == []
        assert seen.elsewhere == []
    finally:
        context.close()


def ask(page: Any, text: str) -> None:
    page.fill("#ask", text)
    page.keyboard.press("Enter")


def answered(page: Any, turns: int) -> Any:
    """The last answer, once it is complete."""
    from playwright.sync_api import expect

    replies = page.locator(".reply")
    expect(replies).to_have_count(turns, timeout=SLOW)
    expect(replies.last).to_have_attribute("aria-busy", "false", timeout=SLOW)
    return replies.last
