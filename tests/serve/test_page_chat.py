"""What the page does where an answer is none, or where a person changes their mind. What the server
says is made up here, so that it says just that."""

import json
from typing import Any

import pytest
from browsing import SLOW, answered, ask, opened
from serving import KEY, Server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

ANSWERS = "**/v1/chat/completions"
FULL = {"error": {"message": "64 requests wait", "code": "queue_full"}}


def chunk(text: str = "", reason: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return f"data: {json.dumps({'choices': [choice], **more})}\n\n"


def says(page: Any, *events: str, status: int = 200) -> list[Any]:
    """From now on every question gets this; what was asked."""
    asked: list[Any] = []

    def reply(route: Any) -> None:
        asked.append(route.request.post_data_json)
        route.fulfill(status=status, body="".join(events))

    page.unroute(ANSWERS)
    page.route(ANSWERS, reply)
    return asked


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def turns(page: Any) -> list[str]:
    found: list[str] = page.locator(".asked p").all_inner_texts()
    return found


def test_an_answer_stays_until_another_one_has_begun(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:
        says(page, chunk("First."), chunk(reason="stop"))
        ask(page, "One?")
        answered(page, 1)
        says(page, json.dumps(FULL), status=429)
        button(page, "Retry").click()
        reply = answered(page, 1)
        expect(reply.locator(".said")).to_have_text("First.")
        expect(reply.locator(".broken")).to_contain_text("64 requests wait.")

        page.fill("#ask", "a draft")
        button(page, "Edit").click()
        expect(page.locator("#ask")).to_have_value("One?")
        ask(page, "Two?")  # refused as well, and ready to be sent again
        expect(page.locator("#ask")).to_have_value("Two?")
        assert turns(page) == ["One?"]
        page.keyboard.press("Escape")
        expect(page.locator("#ask")).to_have_value("a draft")

        button(page, "Edit").click()
        asked = says(page, chunk("Second."), chunk(reason="stop"))
        ask(page, "Two?")
        expect(page.locator(".said").last).to_have_text("Second.")
        answered(page, 1)
        expect(page.locator("#ask")).to_have_value("a draft")
        assert turns(page) == ["Two?"]
        assert [each["content"] for each in asked[0]["messages"]] == ["Two?"]

        page.unroute(ANSWERS)
        page.route(ANSWERS, lambda route: None)  # nothing comes
        button(page, "Retry").click()
        expect(page.locator("#stop")).to_be_visible()
        page.keyboard.press("Escape")
        answered(page, 1)
        expect(page.locator(".said")).to_have_text("Second.")
        assert turns(page) == ["Two?"]


def test_the_chat_outlives_a_reload_and_not_a_new_chat(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:
        says(page, chunk("**Bees.**", gardener={"missed": False}), chunk(reason="length"))
        ask(page, "One?")
        answered(page, 1)
        page.unroute(ANSWERS)
        page.route(ANSWERS, lambda route: None)
        ask(page, "Two?")
        page.reload()
        replies = page.locator(".reply")
        expect(replies).to_have_count(2)
        expect(replies.first.locator("strong .guessed")).to_have_text("Bees.")
        expect(replies.first.locator(".line")).to_have_text("ended at the most tokens")
        expect(replies.last.locator(".line")).to_contain_text("the page was left before the end")
        asked = says(page, chunk("Yes."), chunk(reason="stop"))
        ask(page, "Three?")
        answered(page, 3)
        said = [each["content"] for each in asked[0]["messages"]]
        assert said == ["One?", "**Bees.**", "Three?"]

        page.evaluate(
            """async () => {
              const { keep, kept } = await import("/page/keeping.js");
              const turn = kept()[0], long = kept()[0];
              long.answer.text = "x".repeat(600_000);
              keep([turn, long, turn]);
            }"""
        )  # what is too long to keep, and all before it, is left out
        kept = page.evaluate("JSON.parse(sessionStorage.getItem('gardener.conversation')).length")
        assert kept == 1
        button(page, "New chat").click()
        page.reload()
        expect(page.locator("#welcome")).to_be_visible()
        expect(replies).to_have_count(0)


def test_what_is_no_answer_is_called_so(browser: Any, server: Server) -> None:
    def said(page: Any, *events: str) -> Any:
        asked.append(says(page, *events))
        ask(page, f"Question {len(asked)}")
        return answered(page, len(asked))

    asked: list[list[Any]] = []
    with opened(browser, server) as page:
        reply = said(page, chunk(reason="stop"))
        expect(reply.locator(".line")).to_contain_text("the model says nothing · without an answer")
        reply = said(page, chunk("Half"), "data: <html>\n\n")
        expect(reply.locator(".broken")).to_contain_text("no part of an answer")
        reply = said(page, chunk("Half"))
        expect(reply.locator(".broken")).to_contain_text("The connection was lost")
        reply = said(
            page, chunk("Half"), chunk(reason="error"), 'data: {"error": {"message": "no"}}\n\n'
        )
        expect(reply.locator(".broken")).to_have_text("The answer broke off here. No.")
        contents = [each["content"] for each in asked[3][0]["messages"]]
        assert contents == ["Question 2", "Half", "Question 3", "Half", "Question 4"]


def test_a_fault_in_drawing_costs_no_answer(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:
        page.evaluate(
            """async () => {
              const { Writing } = await import("/page/writing.js");
              Writing.prototype.show = () => { throw new Error("a fault"); };
              addEventListener("error", (event) => event.preventDefault());
              window.reportError = (error) => { window.told = error.message; };
            }"""
        )
        says(page, chunk("**As it is**"), chunk(reason="stop"))
        ask(page, "One?")
        expect(answered(page, 1).locator(".said")).to_have_text("**As it is**")
        expect(page.locator("#stop")).to_be_hidden()
        assert page.evaluate("window.told") == "a fault"


def test_the_key_is_asked_for_once(browser: Any, server: Server) -> None:
    with opened(browser, server, key=None) as page:
        note = page.locator("#settings-note")
        expect(note).to_contain_text("The API key is missing", timeout=SLOW)
        page.keyboard.press("Escape")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(1_200)  # the feed would have come again by now
        assert not asked
        expect(page.locator("#settings")).to_be_hidden()
        expect(page.locator("#sentence")).to_have_text("no key")
        for key, seen in (("wrong", "The API key is wrong"), (KEY, "")):
            if page.locator("#settings").is_hidden():
                page.click("#open-settings")
            page.fill("#key", key)
            page.press("#key", "Enter")
            if seen:
                expect(note).to_contain_text(seen, timeout=SLOW)
        expect(page.locator("#sentence")).to_have_text("ready", timeout=SLOW)
        expect(page.locator("#trouble")).to_be_hidden()


def test_settings_are_taken_and_the_ring_stays_in_sight(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:
        expect(page.locator("#sentence")).to_have_text("ready", timeout=SLOW)
        assert page.evaluate("document.body.matches('.tinted')")
        page.evaluate(
            "window.seen = []; const place = document.getElementById('sentence');"
            "new MutationObserver(() => seen.push(place.textContent))"
            ".observe(place, { childList: true })"
        )
        page.click("#open-settings")
        page.uncheck("#tint")
        page.fill("#system", "Be brief.")
        with page.expect_response("**/ring/events"):
            page.get_by_role("button", name="Save").click()
        assert not page.evaluate("document.body.matches('.tinted')")
        asked = says(page, chunk("Yes."), chunk(reason="stop"))
        ask(page, "One?")
        answered(page, 1)
        assert asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}
        assert asked[0]["gardener_pieces"] is True
        assert "no ring" not in page.evaluate("seen")


def test_answers_and_code_can_be_copied_over_plain_http_too(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        says(page, chunk("**Bees**\n```py\nfly()\n```\n"), chunk(reason="stop"))
        ask(page, "One?")
        reply = answered(page, 1)
        code, answer = reply.locator(".code-bar button"), reply.locator(".doing button").first
        code.click()
        expect(code).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == "fly()"
        # As it is for a page that comes from another machine.
        page.evaluate(
            "window.clipboard = navigator.clipboard;"
            "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
        )
        answer.click()
        expect(answer).to_have_text("Copied")
        assert page.evaluate("clipboard.readText()") == "**Bees**\n```py\nfly()\n```\n"
