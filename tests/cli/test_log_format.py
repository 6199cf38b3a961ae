"""`--log-format json` and `--metrics`, in a real process."""

import json
import re
import signal
import sys
import urllib.request
from pathlib import Path

import pytest
import tiny
from processes import Process, at, free_ports

from gardener.cli import node as command
from gardener.errors import UserError
from gardener.stages.phases import Phases


def test_a_node_writes_json_alone_and_serves_its_metrics(tmp_path: Path) -> None:
    tiny.make("llama", tmp_path)
    here, peer = free_ports(2)
    options = ("--stage", "1", "--stages", "1", "--listen", at(here), "--peer", at(peer))
    logs = ("--log-format", "json", "--metrics", "0")
    with Process(*options, "--model", str(tmp_path), *logs, entry="node") as node:
        node.heard("/metrics")
        found = re.search(r"http://127\.0\.0\.1:\d+/metrics", node.err)
        assert found is not None
        with urllib.request.urlopen(found[0], timeout=20) as response:
            text = response.read().decode()
        assert 'gardener_node_ready{stage="1"} 0.0' in text, "it loads for a while yet"
        node.signal(signal.SIGINT)
        node.status()
        lines = [json.loads(line) for line in node.err.splitlines()]
    assert {line["stage"] for line in lines} == {1}
    assert {line["level"] for line in lines} == {"INFO"}
    assert lines[-1]["message"] == "stage 1 ends"
    assert all(line.keys() == {"timestamp", "level", "message", "stage"} for line in lines)


def test_metrics_without_their_package_are_told_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "gardener.metrics.endpoint", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    way_out = r"pip install 'gardener-node\[metrics\]'"
    with pytest.raises(UserError, match=way_out), command._metrics("0", Phases(1), print):
        pass
