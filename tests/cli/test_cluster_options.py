"""What a command takes from the file of a cluster, and what goes before that."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gardener.cli import node as node_command
from gardener.cli.cluster_options import NAME
from gardener.cli.main import app
from gardener.errors import UserError

Parsed = Callable[..., dict[str, Any]]

FILE = """
model = "lmsys/vicuna-7b"
revision = "v1"
context = 2048
quant = "int4"

[holder]
host = "127.0.0.1"
port = 7000
listen = "0.0.0.0:7000"

[draft]
kinds = ["ngram", "eagle"]
head = "some/head"
device = "cuda"
graphs = false

[stage.1]
host = "127.0.0.1"
port = 7001
layers = "0-9"

[stage.2]
host = "127.0.0.1"
port = 7002
layers = "10-31"
device = "cuda:1"
threads = 3
kv_memory = 1.5
graphs = false
model = "/models/vicuna"

[spare.1]
host = "127.0.0.1"
port = 7003
graphs = false
"""


AWAY = FILE.replace('"127.0.0.1"', '"192.0.2.7"')
"""At an address of documentation, which no machine has."""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with no file but those of the test, and no settings of whoever runs it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("GARDENER_CLUSTER", raising=False)
    return folder


def flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Options by name, whichever group they are in."""
    found: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if hasattr(value, "__dataclass_fields__"):
            for each, inner in vars(value).items():
                add(each, inner)
        else:
            found[name] = value

    bound.apply_defaults()
    for name, value in bound.arguments.items():
        add(name, value)
    return found


def gardener(*words: str) -> dict[str, Any]:
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    return flat(bound)


def node(*words: str) -> dict[str, Any]:
    _, bound, _ = node_command.app.parse_args(words, exit_on_error=False, print_error=False)
    return flat(bound)


def test_a_node_needs_only_its_number(alone: Path) -> None:
    (alone / NAME).write_text(FILE)
    first, second = node("--stage", "1"), node("--stage", "2")
    assert (first["peer"], first["listen"]) == ("127.0.0.1:7002", "127.0.0.1:7001")
    assert (first["model"], first["layers"], first["quant"]) == ("lmsys/vicuna-7b", "0-9", "int4")
    assert (second["peer"], second["listen"]) == ("127.0.0.1:7000", "127.0.0.1:7002")
    assert (second["model"], second["layers"]) == ("/models/vicuna", "10-31")
    assert (second["device"], second["threads"], second["kv_memory"]) == ("cuda:1", 3, 1.5)
    assert (second["context"], second["revision"]) == (2048, "v1")
    assert (first["graphs"], second["graphs"]) == (True, False)
    assert node("--stage", "2", "--graphs")["graphs"] is True, "the command line goes first"
    assert node("--spare", "1")["graphs"] is False
    assert second["cluster"] == alone / NAME


@pytest.mark.parametrize("command", [["generate", "hi"], ["chat"], ["serve"], ["verify"], ["eval"]])
def test_a_command_of_the_holder_needs_nothing(alone: Path, command: list[str]) -> None:
    (alone / NAME).write_text(FILE)
    given = gardener(*command)
    assert (given["peer"], given["listen"]) == ("127.0.0.1:7001", "0.0.0.0:7000")
    assert (given["model"], given["revision"], given["context"]) == ("lmsys/vicuna-7b", "v1", 2048)
    assert given["draft"] == (["ngram,eagle"] if command == ["eval"] else "ngram,eagle")
    assert (given["head"], given["draft_device"]) == ("some/head", "cuda")
    assert given["device"] == "cpu", "that of a stage is none of the holder"
    assert given["graphs"] is False, "of its drafter"


def test_layers_are_shared_out_where_none_are_named(alone: Path) -> None:
    text = FILE.replace('layers = "0-9"', "").replace('layers = "10-31"', "")
    (alone / NAME).write_text(text)
    given = node("--stage", "2")
    assert (given["stages"], given["layers"]) == (2, None)


def test_what_goes_before_the_file(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone / NAME).write_text(FILE)
    (alone / "mine.toml").write_text("[node]\nthreads = 7\nquant = 'int8'\ndevice = 'mps'\n")
    monkeypatch.setenv("GARDENER_QUANT", "nf4")
    monkeypatch.setenv("GARDENER_DEVICE", "cuda:5")
    given = node("--stage", "2", "--config", "mine.toml", "--device", "cpu")
    assert (given["device"], given["quant"], given["threads"]) == ("cpu", "nf4", 7)
    assert given["kv_memory"] == 1.5


def test_a_number_of_stages_goes_before_the_layers_of_the_file(alone: Path) -> None:
    (alone / NAME).write_text(FILE)
    given = node("--stage", "2", "--stages", "3")
    assert (given["stages"], given["layers"]) == (3, None)


def test_another_model_has_no_revision_of_this_one(alone: Path) -> None:
    (alone / NAME).write_text(FILE)
    given = gardener("chat", "--model", "smollm2-135m")
    assert (given["model"], given["revision"]) == ("smollm2-135m", None)


@pytest.mark.parametrize("given", [["--draft", "ngram"], ["--head", "mine"]])
def test_who_chooses_drafters_chooses_all(alone: Path, given: list[str]) -> None:
    (alone / NAME).write_text(FILE)
    found = gardener("chat", *given)
    expected = ("ngram", None) if given[0] == "--draft" else ("auto", "mine")
    assert (found["draft"], found["head"]) == expected
    assert found["draft_device"] == "cuda"


@pytest.mark.parametrize("ring", [["--local", "2"], ["--simulate", "2"], ["--peer", "127.0.0.1:1"]])
def test_a_file_that_nobody_named_stands_back(
    alone: Path, ring: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (alone / NAME).write_text(FILE)
    given = gardener("generate", "hi", *ring)
    assert (given["model"], given["quant"]) == ("smollm2-135m", "none")
    assert given["cluster"] is None
    said = capsys.readouterr().err
    assert f"cluster.toml in this folder is left aside: {ring[0]} says" in said
    assert "(--cluster cluster.toml takes all else from it)" in said


def test_a_file_that_is_named_says_what_the_stages_started_here_are(alone: Path) -> None:
    (alone / NAME).write_text(FILE)
    given = gardener("generate", "hi", "--local", "2", "--cluster", NAME)
    assert (given["model"], given["quant"], given["head"]) == (
        "lmsys/vicuna-7b",
        "int4",
        "some/head",
    )
    assert (given["local"], given["peer"], given["listen"]) == (2, None, "127.0.0.1:7000")


def test_a_server_of_others_is_none_of_the_cluster(alone: Path) -> None:
    (alone / NAME).write_text(FILE)
    assert gardener("chat", "--url", "http://127.0.0.1:1")["model"] == "smollm2-135m"


def test_where_a_file_is_looked_for(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(folder: Path, model: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / NAME
        path.write_text(FILE.replace("lmsys/vicuna-7b", model))
        return path

    put(tmp_path / "config" / "gardener", "of/user")
    assert gardener("chat")["model"] == "of/user"
    put(alone, "of/folder")
    assert gardener("chat")["model"] == "of/folder"
    monkeypatch.setenv("GARDENER_CLUSTER", str(put(tmp_path / "e", "of/environment")))
    assert gardener("chat")["model"] == "of/environment"
    assert gardener("chat", "--cluster", str(put(tmp_path / "c", "of/line")))["model"] == "of/line"


def test_keys_of_the_file_and_what_goes_before_them(alone: Path) -> None:
    (alone / NAME).write_text(f'keys = "keys"\n{AWAY}')
    node_words = ("--stage", "2", "--listen", "127.0.0.1:0")
    for given in (node(*node_words), gardener("chat")):
        assert (given["keys"], given["insecure"]) == (alone / "keys", False)
    for given in (node(*node_words, "--insecure"), gardener("serve", "--insecure")):
        assert (given["keys"], given["insecure"]) == (None, True)
    assert gardener("chat", "--local", "2", "--cluster", NAME)["keys"] is None


def test_settings_may_name_an_option_that_is_called_as_a_command_is(alone: Path) -> None:
    (alone / "mine.toml").write_text('[chat]\npeer = "127.0.0.1:1"\nkeys = "mine"\n')
    assert gardener("chat", "--config", "mine.toml")["keys"] == Path("mine")


def test_links_that_leave_the_machine_need_a_word_about_keys(alone: Path) -> None:
    (alone / NAME).write_text(AWAY)
    with pytest.raises(UserError, match=r"names no keys, and links leave this machine: add keys ="):
        gardener("chat")
    assert gardener("chat", "--keys", "mine")["keys"] == Path("mine")


def test_keys_are_made_for_those_who_are_in_the_file(
    alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (alone / NAME).write_text(f'name = "home"\nkeys = "keys"\n{FILE}')
    app(["keys", "init"], exit_on_error=False, result_action="return_value")
    made = {path.name for path in (alone / "keys").glob("*.pem")}
    assert made == {"ca.pem", "holder.pem", "stage-1.pem", "stage-2.pem", "spare-1.pem"}
    assert capsys.readouterr().err == f"cluster home ({alone / NAME})\n"
    app(
        ["keys", "init", "more", "--stages", "1"], exit_on_error=False, result_action="return_value"
    )
    assert not (alone / "more" / "stage-2.pem").exists(), "the command line goes first"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["init"], "say which folder to make: "), (["init", "keys"], "say how many stages there are")],
)
def test_keys_for_nobody(alone: Path, words: list[str], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        app(["keys", *words], exit_on_error=False, result_action="return_value")


def test_which_file_it_was_is_said(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / NAME).write_text(f'name = "home"\n{FILE}')
    node("--stage", "2")
    assert capsys.readouterr().err == (
        f"cluster home ({alone / NAME}): stage 2 at 127.0.0.1:7002\n"
    )


def test_a_stage_that_the_file_has_not(alone: Path) -> None:
    (alone / NAME).write_text(FILE)
    with pytest.raises(UserError, match=r"no stage 4 in .*, which has stages 1 to 2"):
        node("--stage", "4")


def test_a_place_that_is_not_here(alone: Path) -> None:
    (alone / NAME).write_text(f"insecure = true\n{AWAY}")
    with pytest.raises(UserError, match=r"\[stage.1\] is at 192.0.2.7, which is no address of"):
        node("--stage", "1")
    assert node("--stage", "1", "--listen", "127.0.0.1:7001")["peer"] == "192.0.2.7:7002"
    assert gardener("chat")["peer"] == "192.0.2.7:7001", "the holder listens at all addresses"


def test_a_plan_can_be_made_on_any_machine(alone: Path) -> None:
    (alone / NAME).write_text("insecure = true\n" + AWAY.replace('listen = "0.0.0.0:7000"', ""))
    assert gardener("plan")["peer"] == "192.0.2.7:7001"
    with pytest.raises(UserError, match=r"\[holder\] is at 192.0.2.7, which is no address of"):
        gardener("chat")


def test_lines_about_it_are_json_where_all_are(alone: Path) -> None:
    (alone / NAME).write_text(f"insecure = true\n{AWAY}")
    words = ["--stage", "2", "--listen", "127.0.0.1:0", "--log-format", "json", "--threads", "x"]
    code = "import sys; from gardener.cli.start import node; node()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    lines = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert lines[0] == f"cluster {alone / NAME}: stage 2 at 192.0.2.7:7002"


def test_without_a_file_a_node_that_knows_no_peer_is_told_of_it(alone: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from gardener.cli.start import node; node()", "--stage", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "a cluster file says it for every machine (--cluster FILE" in done.stderr
