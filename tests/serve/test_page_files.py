"""The files of the page: strict headers, nothing from elsewhere, and no way from text to markup."""

import re
from pathlib import Path

from loopback import run
from served import served

import gardener.serve.page as page

FOLDER = Path(page.__file__).with_name("page")
TO_MARKUP = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|new Function"
"""What makes markup or code of text."""


def test_all_of_it_is_served_and_may_ask_nobody_else() -> None:
    async def scenario() -> None:
        async with served() as made:
            index = await made.get("/")
            assert index.headers["content-type"] == "text/html; charset=utf-8"
            policy = index.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
            assert "unsafe" not in policy
            assert index.headers["x-content-type-options"] == "nosniff"
            assert index.headers["referrer-policy"] == "no-referrer"
            for name in re.findall(r'(?:src|href)="(/[^"]+)"', index.data.decode()):
                assert (await made.get(name)).status == 200
            for each in FOLDER.iterdir():
                assert (await made.get(f"/page/{each.name}")).data == each.read_bytes()
            assert (await made.get("/page/none.js")).status == 404
            assert (await made.get("/page/../page.py")).status == 404

    run(scenario)


def test_a_server_may_do_without() -> None:
    async def scenario() -> None:
        async with served(page=False) as made:
            assert (await made.get("/")).status == 404
            assert (await made.get("/page/main.js")).status == 404
            for path in ("/ring/events", "/ring/status"):  # they show texts of others
                assert (await made.get(path)).status == 404

    run(scenario)


def test_nothing_comes_from_elsewhere_or_becomes_markup() -> None:
    for each in FOLDER.iterdir():
        text = each.read_text()
        assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
        assert not re.search(TO_MARKUP, text), each
        if each.suffix == ".html":
            assert not re.search(r"<style|<script(?![^>]*\bsrc=)| style=| on\w+=", text)
