"""Pictures of the page, taken in a real browser while a real ring works.

    python -m benchmarks.page --out docs/captures

At both widths, light and dark: a chat beside the ring as it works. At the larger one, light: what
the page says when a stage is killed. Needs the extras `serve` and `dev`, Pillow, and a Chromium.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import psutil
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

PROGRAM = "from gardener.cli.start import gardener; gardener()"
FIRST, SECOND = "Why is the sky blue?", "Write a story about a gardener and a stubborn oak."
PATIENCE = 120_000
"""Milliseconds that anything may take."""

UNDER_WAY = 4_000
"""Milliseconds after which an answer and its tree have something to show."""

WIDE = ViewportSize(width=1440, height=900)
NARROW = ViewportSize(width=390, height=844)


@contextmanager
def server(stages: int) -> Iterator[tuple[str, psutil.Process]]:
    """A server on this machine: where it is, and its process."""
    command = ("serve", "--local", str(stages), "--policy", "gardener", "--port", "0")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(r"listening on (\S+)", line):
                    yield found[1], psutil.Process(process.pid)
                    break
        finally:
            process.terminate()


def kill_stage(process: psutil.Process, stage: int) -> None:
    """The child that is this stage, without a word."""
    for child in process.children():
        line = child.cmdline()
        if "--stage" in line and line[line.index("--stage") + 1] == str(stage):
            child.kill()


class Camera:
    """Takes a page at both widths, light and dark."""

    def __init__(self, page: Page, folder: Path) -> None:
        self._page, self._folder = page, folder

    def take(self, name: str, *views: str) -> None:
        """`page-NAME-WIDTH-SCHEME.png`; of these views where there is room for one at a time."""
        for scheme in ("light", "dark"):
            self.take_wide(name, scheme)
            self._page.set_viewport_size(NARROW)
            for view in views:
                self._page.click(f".views [data-view={view}]")
                self._save(f"page-{name}-390-{scheme}-{view}")
            self._page.set_viewport_size(WIDE)

    def take_wide(self, name: str, scheme: Literal["light", "dark"]) -> None:
        """`page-NAME-1440-SCHEME.png` alone."""
        self._page.emulate_media(color_scheme=scheme)
        self._page.set_viewport_size(WIDE)
        self._save(f"page-{name}-1440-{scheme}")

    def _save(self, name: str) -> None:
        self._page.wait_for_timeout(700)  # everything has its new place
        picture = Image.open(BytesIO(self._page.screenshot()))
        few = picture.convert("RGB").quantize(256, kmeans=3, dither=Image.Dither.NONE)
        few.save(self._folder / f"{name}.png", optimize=True)


def ask(page: Page, text: str, most: int) -> None:
    """The next turn, of so many tokens, without noise."""
    settings = json.dumps({"temperature": "0", "most": most})
    page.evaluate(f"sessionStorage.setItem('gardener.settings', {json.dumps(settings)})")
    page.fill("#ask", text)
    page.press("#ask", "Enter")


def take_all(browser: Browser, url: str, process: psutil.Process, stages: int, out: Path) -> None:
    """From an empty page to a ring that is broken."""
    page: Any = browser.new_page(viewport=WIDE)
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    expect(page.locator("#sentence")).to_have_text("ready", timeout=PATIENCE)
    camera = Camera(page, out)
    ask(page, FIRST, 90)
    expect(page.locator(".reply").last).to_have_attribute("aria-busy", "false", timeout=PATIENCE)
    ask(page, SECOND, 800)
    page.wait_for_timeout(UNDER_WAY)
    camera.take("busy", "chat", "ring")
    if page.locator("#stop").is_hidden():
        ask(page, FIRST, 800)
        page.wait_for_timeout(UNDER_WAY)
    kill_stage(process, stages)
    expect(page.locator("#trouble")).to_contain_text("lost", timeout=PATIENCE)
    camera.take_wide("killed", "light")  # the stage is back in a few seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/captures"))
    parser.add_argument("--stages", type=int, default=3)
    given = parser.parse_args()
    with (
        server(given.stages) as (url, process),
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=shutil.which("chromium")) as browser,
    ):
        take_all(browser, url, process, given.stages, given.out)


if __name__ == "__main__":
    main()
