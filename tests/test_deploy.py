"""Units, container files and the compose file name what there is: commands, options, variables,
folders, ports. Whether they run is for systemd and Docker to say."""

import configparser
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from cyclopts import App

from gardener.cli import node as node_command
from gardener.cli.main import app as gardener_app
from gardener.cluster.file import read_cluster
from gardener.serve.access import OPEN_PATHS

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
CONTAINERS = [DEPLOY / "Containerfile", DEPLOY / "Containerfile.jetson"]
APPS = {"gardener": gardener_app, "gardener-node": node_command.app}
OURS = re.compile(r"\bGARDENER_[A-Z_]+")
ELSEWHERE = {"GARDENER_HOME", "GARDENER_CLUSTER"}
"""Variables of Gardener that are no options of each command."""


def section(path: Path, name: str) -> list[tuple[str, str]]:
    """What a section of a unit says, in order; keys may come several times."""
    found, here = [], False
    for line in path.read_text().splitlines():
        if line.startswith("["):
            here = line == f"[{name}]"
        elif here and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.append((key, value))
    return found


def parsed(words: list[str]) -> None:
    """Raise unless this is a command, with options that it has."""
    name = PurePosixPath(words[0]).name
    APPS[name].parse_args(words[1:], exit_on_error=False, print_error=False)


def variables(app: App) -> set[str]:
    """Those of the environment that a command reads."""
    arguments = app.assemble_argument_collection(parse_docstring=False)
    return {name for each in arguments for name in each.parameter.env_var or ()}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine of the cluster: its addresses are not ours, so that it says where it
    listens."""
    text = (DEPLOY / "cluster.toml").read_text().replace("port =", 'listen = "0.0.0.0:0"\nport =')
    (tmp_path / "cluster.toml").write_text(text)
    monkeypatch.setenv("GARDENER_CLUSTER", str(tmp_path / "cluster.toml"))


def test_there_is_a_unit_for_stages_and_one_for_the_server() -> None:
    assert [path.name for path in UNITS] == ["gardener-node@.service", "gardener-serve.service"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_with_options_that_it_has(path: Path) -> None:
    configparser.ConfigParser(strict=False, interpolation=None).read_string(path.read_text())
    service = section(path, "Service")
    (command,) = [value for key, value in service if key == "ExecStart"]
    parsed(shlex.split(command.replace("%i", "2")))
    words = [word for key, value in service if key == "Environment" for word in value.split()]
    settings = dict(word.split("=", 1) for word in words)
    folder = dict(service)["CacheDirectory"]
    assert settings["GARDENER_HOME"] == f"/var/cache/{folder}", "what it can write to"
    assert settings["HF_HOME"].startswith(settings["GARDENER_HOME"])


@pytest.mark.parametrize(
    "path", [*UNITS, *CONTAINERS, DEPLOY / "compose.yaml"], ids=lambda p: p.name
)
def test_variables_are_those_that_some_command_reads(path: Path) -> None:
    known = variables(node_command.app) | variables(gardener_app["serve"]) | ELSEWHERE
    assert set(OURS.findall(path.read_text())) <= known | {"GARDENER_"}


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.name)
def test_a_container_file_takes_what_there_is_and_runs_as_nobody(path: Path) -> None:
    lines = path.read_text().replace("\\\n", " ").splitlines()
    ours = [line for line in lines if line.startswith("COPY ") and "--from" not in line]
    copied = [word for line in ours for word in line.split()[1:-1]]
    assert copied
    assert all((ROOT / each).exists() for each in copied)
    ignored = path.with_name(f"{path.name}.dockerignore").read_text().split()
    assert {f"!{each}" for each in copied} <= set(ignored), "or the build does not see it"
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", path.read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001"]


def told(lines: Iterable[str]) -> list[list[str]]:
    """Our commands at the ends of lines, as lists of words."""
    whole = re.sub(r"\\\n", " ", "\n".join(lines))
    found = re.findall(r"(?:^| )(gardener(?:-node)? [a-z-].*)$", whole, re.MULTILINE)
    return [shlex.split(each, comments=True) for each in found]


def in_code(text: str) -> Iterator[str]:
    """The lines of a page that stand between fences of no language."""
    fence = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("```"):
            fence = "" if fence else line
        elif fence == "```":
            yield line


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.name)
def test_a_container_file_says_how_it_is_run_and_knows_its_arguments(path: Path) -> None:
    text = path.read_text()
    for words in told(re.findall(r"^#(.*)$", text, re.MULTILINE)):
        parsed(words)
    given = dict(re.findall(r"^ARG (\w+)=(.*)$", text, re.MULTILINE))
    assert set(re.findall(r"\$\{?([A-Z_]+)", text)) - {"PATH"} <= given.keys()
    bases = re.findall(r"^FROM \$\{(\w+)\}", text, re.MULTILINE)
    assert bases
    assert all(given[each] for each in bases), "somebody who says nothing gets some image"


@pytest.mark.parametrize("page", ["gpu.md", "jetson.md"])
def test_commands_that_the_docs_show_can_be_given(page: str) -> None:
    commands = told(in_code((ROOT / "docs" / page).read_text()))
    assert {words[0] for words in commands} == {"gardener", "gardener-node"}
    for words in commands:
        parsed(words)


def services() -> dict[str, dict[str, Any]]:
    whole: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(
        (DEPLOY / "compose.yaml").read_text()
    )
    return whole["services"]


def test_compose_runs_the_cluster_beside_it() -> None:
    cluster, given = read_cluster(DEPLOY / "cluster.toml"), services()
    commands = {cluster.holder.host: ["gardener", "serve"]}
    commands |= {
        each.host: ["gardener-node", "--stage", str(each.number)] for each in cluster.stages
    }
    assert given.keys() == {"keys", *commands}
    for host, command in commands.items():
        words = shlex.split(given[host]["command"])
        assert words[: len(command)] == command
        parsed(words)


def test_compose_puts_file_and_keys_where_the_image_looks() -> None:
    cluster, image = read_cluster(DEPLOY / "cluster.toml"), (DEPLOY / "Containerfile").read_text()
    (place,) = re.findall(r"GARDENER_CLUSTER=(\S+)", image)
    assert cluster.keys is not None
    keys = PurePosixPath(place).parent / cluster.keys.relative_to(DEPLOY)
    for name, service in services().items():
        mounts = {each.split(":")[1]: each for each in service["volumes"]}
        assert mounts.get(str(keys)) == f"keys:{keys}" + ("" if name == "keys" else ":ro")
        assert name == "keys" or mounts[place] == f"./cluster.toml:{place}:ro"
        assert service["build"]["dockerfile"] == "deploy/Containerfile"


@pytest.mark.parametrize(
    ("there", "left"),
    [
        ((), {"made"}),
        (("holder.key",), {"made"}),
        (("holder.key", "ca.pem"), {"holder.key", "ca.pem"}),
    ],
)
def test_compose_makes_keys_until_they_are_whole(
    tmp_path: Path, there: tuple[str, ...], left: set[str]
) -> None:
    """As `gardener keys init` does it, which writes ca.pem last and nothing over."""
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in there:
        (keys / name).touch()
    made = tmp_path / "gardener"
    made.write_text('#!/bin/sh\ntest "$*" = "keys init" && touch keys/made\n')
    made.chmod(0o755)
    command = shlex.split(services()["keys"]["command"])
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(command, cwd=tmp_path, env={"PATH": path}, check=True)
    assert {each.name for each in keys.iterdir()} == left


def test_compose_asks_the_server_how_it_is() -> None:
    server = services()["server"]
    (url,) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", server["healthcheck"]["test"][-1])
    assert url[0] == server["ports"][0].split(":")[-1] == "8000"
    assert url[1] in OPEN_PATHS, "without a key"


@pytest.mark.parametrize(("page", "files"), [("cluster.md", 2), ("jetson.md", 1)])
def test_files_that_the_docs_show_can_be_read(page: str, files: int, tmp_path: Path) -> None:
    shown = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert len(shown) == files
    for text in shown:
        (tmp_path / "shown.toml").write_text(text)
        assert len(read_cluster(tmp_path / "shown.toml").stages) == 2
