"""How the page shows what a model writes: every kind of block, however the text was cut."""

from typing import Any

import pytest
from browsing import opened
from serving import Server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SHOWN = """async ([text, cuts, runs]) => {
  const { Writing } = await import("/page/writing.js");
  const { Tints } = await import("/page/tints.js");
  const place = document.createElement("div"), writing = new Writing(place);
  const tints = new Tints(runs);
  const pieces = runs ? (part, at) => tints.pieces(part, at) : undefined;
  for (const cut of cuts) writing.show(text.slice(0, cut), pieces);
  writing.show(text, pieces);
  for (const bar of place.querySelectorAll(".code-bar button")) bar.remove();
  for (const each of place.querySelectorAll("*")) {
    each.classList.remove("end");
    if (!each.classList.length) each.removeAttribute("class");
    for (const { name } of [...each.attributes]) {
      if (!["class", "start"].includes(name)) each.removeAttribute(name);
    }
  }
  return place.innerHTML;
}"""

CASES = {
    "# Bees\n## Small ones": '<p class="heading level-1">Bees</p>'
    '<p class="heading level-2">Small ones</p>',
    "#no heading\n####### nor this": "<p>#no heading\n####### nor this</p>",
    "one\ntwo\n\nthree": "<p>one\ntwo</p><p>three</p>",
    "- a\n- b\n\n- c": "<ul><li><p>a</p></li><li><p>b</p></li><li><p>c</p></li></ul>",
    "3. a\n4) b": '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>',
    "1. a\n  - b\n    more\n    * c\n2. d": "<ol><li><p>a</p><ul><li><p>b\nmore</p>"
    "<ul><li><p>c</p></li></ul></li></ul></li><li><p>d</p></li></ol>",
    "- a\n\n  b\n\nc": "<ul><li><p>a</p><p>b</p></li></ul><p>c</p>",
    "1. a\n   ```py\n   if b:\n\n     c\n   ```\n2. d": '<ol><li><p>a</p><div class="code">'
    '<div class="code-bar"><span>py</span></div><pre><code>if b:\n\n  c</code></pre></div></li>'
    "<li><p>d</p></li></ol>",
    "````md\n```\n# a\n```\n````\nb": '<div class="code"><div class="code-bar"><span>md</span>'
    "</div><pre><code>```\n# a\n```</code></pre></div><p>b</p>",
    "~~~\nopen\n```": '<div class="code"><div class="code-bar"><span></span></div>'
    "<pre><code>open\n```</code></pre></div>",
    "| a | b |\n|---|---|\n| **1** | 2 |\nend": '<pre class="table">| a | b |\n|---|---|\n'
    "| **1** | 2 |</pre><p>end</p>",
    "a\n\n---\n* * *\nb": "<p>a</p><hr><hr><p>b</p>",
    "__init__, snake_case, 2**3**4, 2 * 3 * 4, **open": "<p>__init__, snake_case, 2**3**4, "
    "2 * 3 * 4, **open</p>",
    "**a b**, *c*, ***d***, **`e`** and ``f`g``": "<p><strong>a b</strong>, <em>c</em>, "
    "<strong><em>d</em></strong>, <strong><code>e</code></strong> and <code>f`g</code></p>",
    "`<b>` <img src=x onerror=alert(1)> [a](javascript:alert(2)) ![b](//c)": "<p><code>&lt;b&gt;"
    "</code> &lt;img src=x onerror=alert(1)&gt; [a](javascript:alert(2)) ![b](//c)</p>",
    "```<script>\n</code></pre>\n": '<div class="code"><div class="code-bar"><span>&lt;script&gt;'
    "</span></div><pre><code>&lt;/code&gt;&lt;/pre&gt;\n</code></pre></div>",
    "": "",
}
"""A text -> the elements made of it."""


def test_every_kind_of_block_is_the_same_however_it_was_cut(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:

        def shown(text: str, cuts: list[int], runs: Any = None) -> str:
            found: str = page.evaluate(SHOWN, [text, cuts, runs])
            return found

        for text, elements in CASES.items():
            assert shown(text, []) == elements
            assert shown(text, list(range(len(text)))) == elements
        whole = "\n\n".join(CASES)
        made = shown(whole, [])
        for step in (7, 31):
            assert shown(whole, list(range(0, len(whole), step))) == made

        deep = "- " * 3_000 + "end"  # what a model may write, and no stack holds
        assert shown(deep, []).endswith("end</p>" + "</li></ul>" * 8)
        assert len(shown("`*_" * 5_000 + "#" * 5_000, [])) > 20_000

        ending = """async (text) => {
          const { Writing } = await import("/page/writing.js");
          const place = document.createElement("div");
          new Writing(place).show(text);
          const ends = place.querySelectorAll(".end");
          return [ends.length, ends[0].tagName, ends[0].textContent];
        }"""  # where it goes on is seen right after the last word
        assert page.evaluate(ending, "- a\n  1. b\n- c\n  1. d") == [1, "P", "d"]
        assert page.evaluate(ending, "a\n```\nb") == [1, "CODE", "b"]

        # The tint goes with the text, past marks that are not shown.
        text = "- **one two** three\n\n```\nfour\n```"
        tinted = shown(text, [], [[8, False], [20, True], [25, False], [28, True]])
        assert tinted == (
            '<ul><li><p><strong>one <span class="guessed">two</span></strong>'
            '<span class="guessed"> three</span></p></li></ul><div class="code">'
            '<div class="code-bar"><span></span></div><pre><code>'
            '<span class="guessed">fou</span>r</code></pre></div>'
        )
