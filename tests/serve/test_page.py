"""The page in a real browser, asking a real server: chat, the ring, and what goes wrong."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from browsing import SLOW, answered, ask, opened
from processes import go_on, pause
from serving import KEY, MODEL, Server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

NASTY = "<img src=x onerror=alert(1)>"

MOVES = """() => {
  const moved = new Set(), before = new Map();
  window.moved = (stage) => moved.has(stage);
  new MutationObserver((changes) => {
    for (const { target: chip } of changes) {
      const lane = chip.closest(".chip") && chip.closest(".lane");
      if (!lane || !chip.checkVisibility() || !chip.offsetWidth) continue;
      const stage = [...lane.parentNode.children].indexOf(lane) + 1;
      const place = chip.style.transform, last = before.get(chip);
      if (last?.stage === stage && last.place !== place) moved.add(stage);
      before.set(chip, { stage, place });
    }
  }).observe(document.getElementById("lanes"), { subtree: true, attributeFilter: ["style"] });
}"""
"""The page itself notes from now on in which lanes a segment was drawn at one place and then at
another: one that crosses a lane may do so between two looks from outside."""


def moves(page: Any, stage: int) -> None:
    """Wait until a segment has moved in the lane of this stage."""
    page.wait_for_function("stage => moved(stage)", arg=stage)


@contextmanager
def stopped(process: Any) -> Iterator[None]:
    """It stands still meanwhile."""
    pause(process)
    try:
        yield
    finally:
        go_on(process)


def test_a_chat_of_two_turns_beside_the_ring_as_it_works(browser: Any, server: Server) -> None:
    with opened(browser, server, most=32) as page:
        expect(page.locator("#sentence")).to_have_text("ready", timeout=SLOW)
        page.evaluate(MOVES)
        # The states that come five times a second are a sample: an answer may end without one in
        # which a segment is at stage 1. So the first segment is kept there until it was seen.
        with stopped(server.process.stages()[1]):
            ask(page, "Why is the sky blue?")
            moves(page, 1)
            page.locator(".tree .node.root").wait_for()
        moves(page, 2)
        page.locator("#tail .guessed").first.wait_for(state="attached")
        expect(page.locator("#rate")).to_have_text(re.compile(r"\d"), timeout=SLOW)
        first = answered(page, 1)
        expect(first.locator(".line")).to_contain_text("tokens/s")
        expect(first.locator(".line")).to_contain_text("guesses accepted")
        assert len(first.locator(".said").inner_text()) > 60
        expect(page.locator("#depths tbody tr").first).to_contain_text("%")
        expect(page.locator("#links")).to_contain_text("the ring is exact")
        ask(page, "And at dusk?")
        second = answered(page, 2)
        expect(second.locator(".line")).to_contain_text("prompt tokens computed before")
        expect(page.locator("#requests tbody")).to_contain_text("done", timeout=SLOW)


def test_text_never_becomes_markup(browser: Any, server: Server) -> None:
    text = f"{NASTY} **{NASTY}**\n\n- <script>alert(2)</script>\n\n```html\n{NASTY}\n```\n"
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    said = "".join(f"data: {json.dumps(each)}\n\n" for each in (chunk, last)) + "data: [DONE]\n\n"
    with opened(browser, server) as page:
        loaded: list[str] = []
        page.on("request", lambda request: loaded.append(request.url))
        ask(page, NASTY)
        answered(page, 1)  # by the model itself
        expect(page.locator(".asked p").first).to_have_text(NASTY)
        page.route("**/v1/chat/completions", lambda route: route.fulfill(body=said))
        ask(page, "Say it")
        reply = answered(page, 2)
        expect(reply.locator("strong")).to_have_text(NASTY)
        expect(reply.locator("li")).to_have_text("<script>alert(2)</script>")
        expect(reply.locator("pre")).to_have_text(NASTY)
        assert page.locator("#turns img, #turns script, #ring img, #ring script").count() == 0
        assert all("/v1/" in url or "/ring/" in url for url in loaded)


def test_everything_can_be_done_by_keyboard(browser: Any, server: Server) -> None:
    with opened(browser, server, key=None, most=200) as page:
        press, write = page.keyboard.press, page.keyboard.type
        expect(page.locator("#key")).to_be_focused(timeout=SLOW)
        expect(page.locator("#settings-note")).to_contain_text("The API key is missing")
        write(KEY)
        press("Enter")
        expect(page.locator("#model")).to_have_text(MODEL, timeout=SLOW)
        expect(page.locator("#state")).to_have_attribute("data-tone", "ready", timeout=SLOW)
        page.evaluate("document.activeElement.blur()")
        order = []
        for _ in range(8):
            press("Tab")
            order.append(page.evaluate("document.activeElement.id || document.activeElement.text"))
        assert order[0] == "Skip to the message"
        assert order[1:4] == ["fresh", "open-settings", "turns"]
        assert order[7:] == ["ask"]  # after three samples
        outline = "getComputedStyle(document.querySelector('.field')).boxShadow"
        assert page.evaluate(outline) != "none"  # focus can be seen
        write("One")
        press("Shift+Enter")
        write("Two, and on to a hundred")
        press("Enter")
        expect(page.locator(".asked p")).to_have_text(re.compile("One\nTwo"), timeout=SLOW)
        expect(page.locator(".said")).to_contain_text(re.compile(r"\w"), timeout=SLOW)
        press("Escape")
        reply = answered(page, 1)
        expect(reply.locator(".line")).to_contain_text("stopped by you")
        expect(page.locator("#state")).to_have_attribute("data-tone", "ready", timeout=SLOW)
        expect(page.locator("#ask")).to_be_focused()
        press("Shift+Tab")
        press("Enter")  # edit
        expect(page.locator("#ask")).to_have_value("One\nTwo, and on to a hundred")
        press("Escape")
        expect(page.locator("#ask")).to_have_value("")
        press("Shift+Tab")
        press("Shift+Tab")
        press("Enter")  # retry
        expect(page.locator("#stop")).to_be_visible(timeout=SLOW)
        press("Escape")
        answered(page, 1)


def test_it_fits_a_telephone(browser: Any, server: Server) -> None:
    with opened(browser, server, width=390, most=16) as page:
        ask(page, "Hello")
        answered(page, 1)
        for view in ("chat", "ring"):
            page.click(f".views [data-view={view}]")
            expect(page.locator(f"#{view}")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            wide = (
                f"[...document.querySelectorAll('#{view} *')]"
                ".filter(each => each.getBoundingClientRect().right > 390.5).length"
            )
            assert page.evaluate(wide) == 0


def test_a_stage_is_killed_and_the_answer_goes_on(browser: Any, server: Server) -> None:
    with opened(browser, server, most=60) as page:
        ask(page, "List ten facts about bees.")
        expect(page.locator(".said")).to_contain_text(re.compile(r"\w"), timeout=SLOW)
        server.process.stages()[2].kill()
        trouble = page.locator("#trouble")
        expect(trouble).to_contain_text("Stage 2 was lost", timeout=SLOW)
        expect(trouble).to_contain_text("killed by SIGKILL")
        expect(trouble).to_contain_text("answers go on where they were")
        expect(page.locator("#sentence")).to_have_text("the ring is broken")
        reply = answered(page, 1)
        expect(reply.locator(".broken")).to_be_hidden()
        assert len(reply.locator(".said").inner_text().split()) > 20
        expect(trouble).to_be_hidden(timeout=SLOW)
        expect(page.locator("#sentence")).to_have_text("ready", timeout=SLOW)
