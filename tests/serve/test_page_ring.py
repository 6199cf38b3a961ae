"""What the page says of a ring, state by state. The states are made up here."""

from typing import Any

import pytest
from browsing import opened
from serving import Server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

SHOW = """async (statuses) => {
  const { RingView } = await import("/page/ring.js");
  const view = new RingView(), trouble = document.getElementById("trouble");
  let alarms = 0;
  new MutationObserver(() => (alarms += 1)).observe(trouble, { childList: true, subtree: true });
  const told = [];
  for (const each of statuses) {
    view.show(each);
    told.push(document.getElementById("ring-told").textContent);
    await new Promise((done) => setTimeout(done));
  }
  return [alarms, told];
}"""


def shown(page: Any, server: Server, *states: dict[str, Any]) -> Any:
    """What came of these states, each of which is a ring that stands but for what it names."""
    page.route("**/ring/events", lambda route: route.abort())
    standing = server.get("/ring/status")[1]
    return page.evaluate(
        SHOW, [each if "why" in each else {"status": {**standing, **each}} for each in states]
    )


def test_what_is_read_aloud_changes_only_with_its_words(browser: Any, server: Server) -> None:
    late = [{"state": f"no verdict on segment 7 for {at} s", "trouble": True} for at in (2.1, 2.3)]
    read = [{"running": 1, "state": f"reading the prompt, {n} of 9 tokens"} for n in (1, 2)]
    lost = [{"why": "stage 2 was lost; now: stage 2 is started"}] * 3
    with opened(browser, server) as page:
        alarms, told = shown(page, server, *late, *read, *lost)
        assert alarms == 2
        assert told == ["", "", *["The ring is at work."] * 2, "", "", ""]


def test_several_requests_are_told_apart(browser: Any, server: Server) -> None:
    figures = server.get("/ring/status")[1]["figures"]
    figures |= {"mean": 8.0, "plain": 4.0, "depths": [[9, 2], [5, 1]]}
    figures["counts"] |= {"emitted": 9, "accepted": 5, "drafted": 60}
    rows = {"prompt": 0, "root": 1, "guesses": 2, "dead": 0}
    segments = [
        {"seq": 1, "stage": stage, "progress": 0.0, "request": stage + 3, **rows}
        for stage in (1, 2)
    ]
    other = {"number": 5, "state": "writing", "policy": "plain", "tokens": 3, "rate": 1, "mean": 1}
    state = {"request": 4, "running": 1, "policy": "gardener", "segments": segments}
    alone = {**state, "figures": {**figures, "alone": True}}
    after = {**state, "figures": {**figures, "alone": False}}  # the other one has ended
    with opened(browser, server) as page:
        gain = page.locator("#summary > div", has_text="gain").locator("dd")
        shown(page, server, alone)
        assert gain.inner_text() == "2.00 ×"
        assert page.locator(".whose").count() == 0
        assert page.locator("#unsent").inner_text() == "2 more unsent"
        shown(page, server, {**after, "others": [other] * 10})
        numbers = page.locator(".chip:has(.whose)")
        assert sorted(numbers.all_inner_texts()) == ["4", "5"]
        assert page.locator(".chip.other .whose").all_inner_texts() == ["5"]
        assert page.locator("#requests tbody tr").count() == 8
        assert page.locator("#queue").inner_text() == "1 running, 3 not shown"
        shown(page, server, after)
        assert gain.inner_text() == "–"
        hops = page.locator("#links > div", has_text="hops").locator("dd")
        assert "1→2" in hops.inner_text()


def test_a_late_segment_stays_in_sight_until_its_verdict(browser: Any, server: Server) -> None:
    rows = {"prompt": 0, "root": 1, "guesses": 2, "dead": 0}
    segment = {"seq": 1, "stage": 2, "progress": 1.0, "request": 4, **rows}
    state = {"request": 4, "running": 1, "policy": "gardener", "flight": 0.06}  # shown slower
    late, judged = ({**state, "segments": segments} for segments in ([segment], []))
    with opened(browser, server) as page:
        shown(page, server, late)
        page.wait_for_timeout(500)  # it would be gone by now
        end = "chip => chip.parentNode.getBoundingClientRect().right"
        chip = page.locator(".lane:last-child .chip")
        box = chip.bounding_box()
        assert box["x"] + box["width"] == pytest.approx(chip.evaluate(end), abs=1)
        shown(page, server, late, judged)
        expect(page.locator(".chip")).to_have_count(0)
