"""Options as a user gives them: where their values come from, and what is wrong usage."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

import gardener
from gardener.cli import main, node, options, program
from gardener.cli.stage_options import StageOptions
from gardener.errors import UserError

COMMANDS = ("generate", "serve", "verify", "eval", "plan", "split", "train-draft")
SHARED = {"--model", "--revision", "--device", "--threads", "--config"}
HOLDER = {
    *SHARED,
    *("--local", "--simulate", "--profile", "--peer", "--listen", "--patience"),
    *("--keys", "--insecure", "--cluster", "--patience-lost", "--spares", "--spare-after"),
    *(
        "--dtype",
        "--quant",
        "--quant-head",
        "--kv-memory",
        "--context",
        "--graphs",
        "--rows",
        "--window",
        "--floor",
    ),
    *("--draft", "--head", "--draft-model", "--draft-dtype", "--draft-device"),
    *("--json", "--verbose", "--max-requests", "--max-new-tokens", "--template", "--system"),
}
TRAINING = {
    *("--hours", "--taps", "--vocab", "--inner", "--induction", "--steps", "--passes", "--rate"),
    *("--lanes", "--room", "--rounds", "--seed"),
}
SAMPLING = {
    *("--temperature", "--top-p", "--top-k", "--min-p", "--logit-bias", "--seed", "--sample"),
    *("--repetition-penalty", "--presence-penalty", "--frequency-penalty"),
    *("--min-tokens", "--ignore-eos"),
}
NAMES = {
    "generate": HOLDER
    | SAMPLING
    | {"--stop", "--stop-token", "--raw", "--policy", "--compare", "--no-view", "--logprobs"}
    | {"--record"},
    "serve": HOLDER - {"--json", "--max-new-tokens"}
    | {"--policy", "--host", "--port", "--api-key", "--tls-cert", "--tls-key", "--cors"}
    | {
        "--no-page",
        "--connections",
        "--queue",
        "--grace",
        "--keep-alive",
        "--served-name",
        "--log-format",
    }
    | {"--no-view", "--record"},
    "verify": HOLDER | SAMPLING | {"--policies", "--prompts", "--count", "--reference", "--raw"},
    "eval": HOLDER
    | SAMPLING
    | {"--data", "--prompts", "--policies", "--concurrency", "--repeat", "--raw", "--no-view"}
    | {"--out", "--no-plots"},
    "plan": HOLDER | {"--policy", "--prompts", "--raw", "--acceptance", "--run"},
    "split": {"--out", "--stages", "--layers", "--dtype", "--revision", "--json"}
    | {"--keys", "--insecure"}
    | {"--measured", "--listen", "--patience", "--quant", "--group", "--quant-head"},
    "train-draft": SHARED
    | TRAINING
    | {"--out", "--from", "--data", "--openings", "--dtype"}
    | {"--template", "--system", "--raw"},
    "node": SHARED
    | {"--stage", "--stages", "--layers", "--peer", "--listen", "--patience"}
    | {"--dtype", "--quant", "--quant-head", "--kv-memory", "--context", "--no-view", "--leash"}
    | {"--graphs"}
    | {"--metrics", "--log-format", "--keys", "--insecure", "--cluster"}
    | {"--spare", "--spares", "--spare-after"},
}
ONE_CALL = {
    "--json",
    "--verbose",
    "--compare",
    "--stop",
    "--stop-token",
    "--raw",
    "--leash",
    "--logprobs",
    "--record",
    "--run",
}
"""Options of a single call, which no variable of the environment sets."""


def arguments(command: str) -> Any:
    app: App = node.app if command == "node" else main.app[command]
    return [
        each for each in app.assemble_argument_collection() if each.show or "leash" in each.name
    ]


def parsed(*words: str) -> Any:
    """What `generate` or `gardener-node` is called with."""
    app = main.app if words[0] == "generate" else node.app
    _, bound, _ = app.parse_args([*words], exit_on_error=False, print_error=False)
    return bound.arguments


def refused(monkeypatch: pytest.MonkeyPatch, app: App, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", [app.name[0], *words])
    with pytest.raises(SystemExit) as end:
        program.program(app)
    return int(end.value.code or 0)


@pytest.mark.parametrize("command", [*COMMANDS, "node"])
def test_every_option_has_its_name_and_most_have_a_twin_in_the_environment(command: str) -> None:
    found = {each.name: each for each in arguments(command) if each.name.startswith("--")}
    assert set(found) == NAMES[command]
    twins = {
        name: found[name].parameter.env_var
        for name in (SHARED | SAMPLING | {"--graphs"}) & set(found)
        if (name, command) != ("--seed", "train-draft")  # it has no settings in the environment
    }
    expected = {name: (f"GARDENER_{name[2:].upper().replace('-', '_')}",) for name in twins}
    assert twins == expected
    assert not any(found[name].parameter.env_var for name in ONE_CALL & set(found))


def test_where_two_commands_differ_in_a_variable() -> None:
    peers = {
        command: each.parameter.env_var
        for command in ("generate", "node")
        for each in arguments(command)
        if each.name == "--peer"
    }
    assert peers == {"generate": ("GARDENER_RING",), "node": ("GARDENER_PEER",)}


def test_the_command_line_goes_before_the_environment_before_a_file_before_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "g.toml"
    file.write_text(
        '[generate]\nlocal = 1\nmodel = "file"\npatience = 5\nno-view = true\nhead = "file"\n'
    )
    monkeypatch.setenv("GARDENER_CONFIG", str(file))
    monkeypatch.setenv("GARDENER_LOCAL", "2")
    monkeypatch.setenv("GARDENER_MODEL", "environment")
    monkeypatch.setenv("GARDENER_HEAD", "")  # nothing is set by an empty one
    given = parsed("generate", "hi", "--local", "3")
    assert given["ring"].local == 3
    assert given["holder"].model.model == "environment"
    assert given["holder"].connection.patience == 5.0
    assert given["holder"].drafting.head == "file"
    assert given["no_view"] is True
    assert given["holder"].stages == StageOptions()
    assert given["holder"].bounds == options.BoundsOptions()


def test_one_option_of_a_group_leaves_the_others_as_they_are() -> None:
    holder = parsed("generate", "hi", "--threads", "2")["holder"]
    assert holder == dataclasses.replace(options.HolderOptions(), stages=StageOptions(threads=2))
    place = parsed("--stage", "1", "--peer", "oak:7000")["place"]
    assert (place.stage, place.patience, place.listen) == (1, 600.0, "127.0.0.1:7000")


def test_graphs_are_left_out_by_a_word_a_variable_or_a_file_and_the_last_word_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def graphs(*words: str) -> tuple[bool, ...]:
        """Those of stages and of drafters."""
        holder: options.HolderOptions = parsed("generate", "hi", "--local", "2", *words).get(
            "holder", options.HolderOptions()
        )
        ring = holder.settings(options.RingOptions(local=2), holder.drafting.settings("auto"))
        return ring.graphs, ring.draft.graphs

    assert graphs() == (True, True)
    assert graphs("--no-graphs") == (False, False)
    assert graphs("--no-graphs", "--graphs") == (True, True)
    file = tmp_path / "g.toml"
    file.write_text("[generate]\ngraphs = false\n")
    assert graphs("--config", str(file)) == (False, False)
    assert graphs("--config", str(file), "--graphs") == (True, True)
    file.write_text("[generate]\nno-graphs = true\n")
    with pytest.raises(UserError, match=r"knows no 'no-graphs'; it knows .* graphs,"):
        graphs("--config", str(file))
    monkeypatch.setenv("GARDENER_GRAPHS", "false")
    assert graphs() == (False, False)
    place = ("--stage", "1", "--peer", "oak:7000")
    assert parsed(*place)["computing"] == StageOptions(graphs=False)
    assert parsed(*place, "--graphs")["computing"].graphs is True


def test_options_may_be_repeated_and_their_values_may_look_like_options() -> None:
    repeated = ("--stop", "--json", "--stop", "-x", "--stop=--", "--stop", '["a"]', "--stop", "")
    given = parsed("generate", *repeated, "--local", "1", "--local", "2", "hi")
    assert given["stop"] == ["--json", "-x", "--", '["a"]', ""]
    assert given["ring"].local == 2
    assert given["prompt"] == "hi"


@pytest.mark.parametrize(
    ("words", "prompt", "from_stdin"),
    [
        (("-",), None, True),
        (("--", "-x"), "-x", False),
        (("help",), "help", False),
        (("none",), "none", False),
        (("--stop", "-", "hi"), "hi", False),
    ],
)
def test_a_prompt_is_a_text_or_comes_from_standard_input(
    words: tuple[str, ...], prompt: str | None, from_stdin: bool
) -> None:
    given = parsed("generate", *words)
    assert given.get("prompt") == prompt
    assert given.get("from_stdin", False) == from_stdin


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("nope",), 'unknown command "nope"'),
        (("generate",), "say what to ask"),
        (("generate", "hi", "-"), "say what to ask"),
        (("generate", "hi", "there"), "unexpected argument 'there'"),
        (("split", "model"), "--out requires an argument, and is not given at all"),
        (("generate", "hi", "--nope"), "unknown option: --nope"),
        (("generate", "-q"), "unknown option: -q"),
        (("generate", "hi", "--no-json"), "unknown option: --no-json"),
        (("generate", "hi", "--local"), "--local requires an argument"),
        (("generate", "hi", "--local", "0"), 'invalid value "0" for --local'),
        (("generate", "hi", "--floor", "2"), 'invalid value "2.0" for --floor'),
        (("generate", "hi", "--dtype", "x"), 'invalid value "x" for --dtype'),
        (("verify", "--policies", "x"), "no policy 'x'"),
        (("split", "m"), "--out requires an argument"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    why: str,
) -> None:
    assert refused(monkeypatch, main.app, *words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert why in said.err
    assert (said.err.count("\n"), said.out) == (1, "")


def test_a_wrong_value_says_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "g.toml"
    file.write_text('[generate]\nlocal = "q"\n')
    assert refused(monkeypatch, main.app, "generate", "hi", "--config", str(file)) == 2
    assert f"[local] from {file}" in capsys.readouterr().err
    monkeypatch.setenv("GARDENER_LOCAL", "x")
    assert refused(monkeypatch, main.app, "generate", "hi") == 2
    assert "GARDENER_LOCAL" in capsys.readouterr().err


def test_without_a_command_there_is_help_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(monkeypatch, main.app) == 2
    said = capsys.readouterr().out
    assert [command for command in COMMANDS if command not in said] == []
    assert refused(monkeypatch, node.app) == 2
    assert "--stage" in capsys.readouterr().err


@pytest.mark.parametrize("app", [main.app, node.app], ids=lambda app: app.name[0])
def test_each_executable_says_its_version(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(monkeypatch, app, "--version") == 0
    assert capsys.readouterr().out == f"{app.name[0]} {gardener.__version__}\n"
