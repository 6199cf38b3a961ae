"""The figures of several requests at once as tables."""

from collections.abc import Mapping
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

COLUMNS = (
    "\nrequests",
    "tokens/s\nin all",
    "\nof plain",
    "per request\nmean",
    "\nworst",
    "first token\nmean",
    "\np95",
    "\nworst",
    "\nfairness",
)


def concurrency_tables(rings: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """One for each ring, from what `concurrency.summary` gives of it."""
    parts: list[RenderableType] = []
    for name, policies in rings.items():
        if policies:
            title = f"{name}: several requests at once, prompts included"
            parts += ["", Text(title, "italic"), _table(policies)]
    return Group(*parts)


def _table(policies: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in COLUMNS:
        side: Literal["left", "right"] = "left" if name == COLUMNS[0] else "right"
        table.add_column(name, justify=side, no_wrap=True)
    for policy, levels in policies.items():
        table.add_row(Text(policy, "bold"))
        for level, each in levels.items():
            first = each["first_token"]
            table.add_row(
                f"  {level}",
                f"{each['tokens_per_second']:.1f}",
                _known(each["of_plain"]),
                f"{each['per_request']['mean']:.1f}",
                f"{each['per_request']['worst']:.1f}",
                f"{first['mean']:.2f} s",
                f"{first['p95']:.2f} s",
                f"{first['worst']:.2f} s",
                _known(each["fairness"]),
            )
    return table


def _known(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
