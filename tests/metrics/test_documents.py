"""The dashboard and the table of metrics name what is exported, and nothing else."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from loopback import card, holding, ring, run, write
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gardener.metrics.exposition import exposition
from gardener.metrics.node import NodeCollector
from gardener.metrics.server import ServerMetrics
from gardener.stages.phases import Phases

DOCS = Path(__file__).parents[2] / "docs"

NAME = re.compile(r"\bgardener_\w+")


@cache
def exported() -> dict[str, tuple[str, frozenset[str]]]:
    """Family, as Prometheus is told its name -> its type and labels: of a server that has answered,
    and of a node at work."""
    texts: list[bytes] = []

    async def scenario() -> None:
        nodes = CollectorRegistry()
        server, node = ServerMetrics("m"), NodeCollector(nodes, Phases(2))
        async with ring(2, start=False) as made:
            for stage in (1, 2):
                made.start(stage, replace(card(stage, 2), kv_slot=1, kv_room=10_000))
            async with holding(made) as holder:
                node.begin(made.seats[2].node)
                server.ring.watch(holder)
                timer = server.requests.begin(7, 0.0)
                await write(holder)
                timer.ended("length", 0.0, 0)
                server.requests.answered("GET", "/health", 200)
                texts.extend((server.exposition("")[0], exposition(nodes)[0]))

    run(scenario)
    families = [each for text in texts for each in text_string_to_metric_families(text.decode())]
    return {
        _shown(family.name, family.type): (
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
        )
        for family in families
        if family.name.startswith("gardener_") and not family.name.endswith("_created")
    }


def _shown(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """The same as the tables say it."""
    rows = re.findall(
        r"^\| `(gardener_\w+)` \| (\w+) \| ([^|]*)\| [^|]+ \|$",
        (DOCS / "metrics.md").read_text(),
        re.MULTILINE,
    )
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name: (kind, frozenset(re.findall(r"\w+", labels))) for name, kind, labels in rows}


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    assert documented() == exported()


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "grafana.json").read_text())
    return found


def expressions() -> list[str]:
    return [target["expr"] for panel in board()["panels"] for target in panel.get("targets", ())]


def test_every_metric_of_the_dashboard_is_exported() -> None:
    samples = {
        f"{name}{suffix}"
        for name, (kind, _) in exported().items()
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    asked = {name for each in expressions() for name in NAME.findall(each)}
    assert len(asked) > 30
    assert asked <= samples
    queries = [each for each in board()["templating"]["list"] if each["type"] == "query"]
    assert {name for each in queries for name in NAME.findall(each["definition"])} <= samples


def test_labels_in_legends_and_sums_exist() -> None:
    labels = {label for _, found in exported().values() for label in found} | {"instance", "le"}
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            used = re.findall(r"{{(\w+)}}", target["legendFormat"])
            for group in re.findall(r"(?:by|on) \(([\w, ]+)\)", target["expr"]):
                used += re.findall(r"\w+", group)
            assert set(used) <= labels, target["expr"]


def test_the_dashboard_can_be_imported_anywhere() -> None:
    found = board()
    assert found["schemaVersion"] >= 36  # Grafana 10
    assert found["templating"]["list"][0]["type"] == "datasource"
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"
