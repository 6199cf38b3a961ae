"""Standard streams that are a pipe, full, closed, or not UTF-8; with a real terminal where it
matters."""

import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from processes import DEADLINE, at, free_ports

from gardener.cli import output
from gardener.evaluation.reference import plain_reference
from gardener.holder.prompter import Prompter

COMMANDS = {
    "gardener": "from gardener.cli.start import gardener; gardener()",
    "gardener-node": "from gardener.cli.start import node; node()",
}
SCRIPT = "from gardener.cli import output, streams; streams.prepare(); "


def command(name: str, *options: str) -> str:
    """For a shell."""
    return shlex.join([sys.executable, "-c", COMMANDS[name], *options])


def shell(line: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a line in a shell, with pipes for all that it does not lead elsewhere."""
    return subprocess.run(
        ["bash", "-c", line],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE,
        env={**os.environ, **environment},
        check=False,
    )


def terminal(line: str) -> tuple[int, str]:
    """Run a line in a shell whose streams are a terminal: its status, and all that was drawn."""
    drawn = b""

    def read(end: int) -> bytes:
        nonlocal drawn
        data = os.read(end, 65536)
        drawn += data
        return b""  # not to our own stdout

    number, end = pty.fork()
    if number == 0:
        os.environ["TERM"] = "xterm-256color"
        os.environ.pop("GARDENER_NO_VIEW", None)
        os.execvp("timeout", ["timeout", str(DEADLINE), "bash", "-c", line])
    try:
        while True:
            read(end)
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(end)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), drawn.decode(errors="replace")


def left(drawn: str) -> str:
    """What still stands in a terminal when a live view has closed."""
    before, _, rest = drawn.partition("\x1b[?1049h")
    return before + rest.rpartition("\x1b[?1049l")[2]


def nowhere(*options: str) -> str:
    """A question to a ring that is not there: it has an event loop, and ends soon."""
    peer, here = free_ports(2)
    where = ("--peer", at(peer), "--listen", at(here), "--patience", "0.1", "--draft", "none")
    return command("gardener", "generate", "hello", *where, *options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny one, since it is started again and again."""
    folder: Path = tmp_path_factory.mktemp("streams")
    tiny.make("llama", folder)
    tiny.name_words(folder, "{% for m in messages %}{{ m['content'] }} {% endfor %}")
    return folder


@pytest.fixture(scope="module")
def question(model: Path) -> str:
    """It, for a shell."""
    where = ("--local", "1", "--model", str(model), "--draft", "none")
    return command("gardener", "generate", "w1 w2 w3", *where, "--max-new-tokens", "4")


@pytest.fixture(scope="module")
def answer(model: Path) -> str:
    """What transformers answers."""
    prompter = Prompter(model)
    prompt, context = prompter.encode("w1 w2 w3"), prompter.context
    ((tokens, _),) = plain_reference(model, [prompt], 4, context, prompter.eos, "float32", "cpu")
    return str(prompter.backend.decode(tokens))


@pytest.mark.parametrize("behind", ["| cat", "| tee answer.txt", "| head -1"])
def test_an_answer_is_seen_where_a_pipe_ends_at_the_same_terminal(
    behind: str, question: str, answer: str, tmp_path: Path
) -> None:
    status, drawn = terminal(f"cd {shlex.quote(str(tmp_path))}; {question} {behind}")
    assert status == 0, drawn
    assert answer in left(drawn)
    assert "tokens/s" in left(drawn)
    if "tee" in behind:
        assert answer in (tmp_path / "answer.txt").read_text()


def test_an_answer_to_the_terminal_itself_comes_out_when_the_view_closes(
    question: str, answer: str
) -> None:
    status, drawn = terminal(question)
    assert status == 0, drawn
    assert "\x1b[?1049h" in drawn
    assert answer in left(drawn)


def test_a_view_may_be_drawn_beside_a_file(question: str, answer: str, tmp_path: Path) -> None:
    file = tmp_path / "answer.txt"
    status, drawn = terminal(f"{question} > {shlex.quote(str(file))}")
    assert status == 0, drawn
    assert "\x1b[?1049h" in drawn
    assert answer in file.read_text()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_reason_to_abort(closed: str) -> None:
    done = shell(f"{nowhere()} {closed}")
    assert done.returncode == 1, done.stderr
    assert done.stdout == b""
    said = done.stderr.decode().splitlines()
    if "2>" in closed:
        assert not said
    else:
        assert said[-1].startswith("error: the ring did not close within 0.1 s")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-", "2>/dev/full"])
def test_help_does_not_mind_streams_that_are_closed_or_full(name: str, stream: str) -> None:
    done = shell(f"{command(name, '--help')} {stream}")
    assert done.returncode == 0
    assert done.stderr == b""
    assert (b"Usage" in done.stdout) == (stream != ">&-")


@pytest.mark.parametrize(
    ("name", "option"),
    [("gardener", "--help"), ("gardener", "--version"), ("gardener-node", "--help")],
)
def test_a_full_disk_is_told_in_one_sentence(name: str, option: str) -> None:
    done = shell(f"{command(name, option)} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "error: standard output cannot be written (no space left on device): let it lead "
        "elsewhere\n"
    )


@pytest.mark.parametrize("verb", ["generate", "verify", "eval"])
def test_a_full_disk_while_a_ring_works_is_told_in_one_sentence(
    verb: str, model: Path, tmp_path: Path
) -> None:
    where = ("--local", "1", "--model", str(model), "--draft", "none")
    small = (*where, "--max-new-tokens", "2", "--policies", "plain")
    options = {
        "generate": ("w1 w2 w3", *small[:-2]),
        "verify": ("--json", "--count", "1", "--reference", "plain", *small),
        "eval": ("--json", "--prompts", "1", "--no-plots", "--out", str(tmp_path / "out"), *small),
    }
    done = shell(f"{command('gardener', verb, *options[verb])} > /dev/full")
    said = done.stderr.decode()
    assert done.returncode == 1
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: standard output cannot be written (no space")
    assert said.count("error: ") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_cannot_express_is_escaped(encoding: str) -> None:
    show = SCRIPT + r"output.result('Gl\u00fcck \u2603\n'); output.note('\u2603'); output.finish()"
    done = shell(shlex.join([sys.executable, "-c", show]), PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert done.stdout == "Glück ☃\n".encode(encoding, "backslashreplace")
    assert done.stderr == "☃\n".encode(encoding, "backslashreplace")


@pytest.mark.parametrize("encoding", ["idna", "undefined"])
def test_an_encoding_that_no_text_fits_in_gets_escapes_too(encoding: str) -> None:
    show = SCRIPT + r"output.result('Gl\u00fcck'); output.note('\u2603'); output.finish()"
    done = shell(shlex.join([sys.executable, "-c", show]), PYTHONIOENCODING=encoding)
    assert (done.stdout, done.stderr, done.returncode) == (b"Gl\\xfcck", b"\\u2603\n", 0)


NO_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
WRONG = "(byte 0xff in the place of character 2)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("$'a\\xff'", f"the prompt is not UTF-8 text {WRONG}"),
        ("- < <(printf 'a\\xff')", "the prompt is not UTF-8 text"),
        ("hi --stop $'a\\xff'", f"--stop is not UTF-8 text {WRONG}"),
        ("hi --stop-token $'a\\xff'", f"--stop-token is not UTF-8 text {WRONG}"),
    ],
)
@pytest.mark.parametrize("locale", [{"PYTHONUTF8": "1"}, NO_LOCALE], ids=["utf-8", "none"])
def test_what_is_no_text_is_refused(given: str, said: str, locale: dict[str, str]) -> None:
    line = command("gardener", "generate", "GIVEN", "--local", "1", "--policy", "plain")
    done = shell(line.replace("GIVEN", given), **locale)
    assert done.returncode == 1
    assert done.stderr.decode() == f"error: {said}: convert it\n"


@pytest.mark.parametrize("source", ["sys.argv[1]", "sys.stdin.read()"])
def test_text_is_utf_8_where_no_locale_is_set(source: str) -> None:
    show = f"from gardener.cli.program import text_of; print(ascii(text_of({source}, 'it')))"
    line = shlex.join([sys.executable, "-c", f"import sys; {SCRIPT}{show}", "Glück ☃"])
    done = shell(f"printf 'Glück ☃' | {line}", **NO_LOCALE)
    assert done.stdout == b"'Gl\\xfcck \\u2603'\n", done.stderr


# --- progress ------------------------------------------------------------------------------------


def test_progress_is_one_line_of_a_terminal_and_makes_room() -> None:
    show = "".join(
        f"output.progress({text!r}); assert output._writer.wait(60); "
        for text in ("1 of 10", "10 of 10", "9")
    )
    status, drawn = terminal(
        shlex.join([sys.executable, "-c", f"{SCRIPT}{show} output.note('done')"])
    )
    assert status == 0
    assert drawn == "\r1 of 10\r10 of 10\r9       \r \rdone\r\n"


def test_progress_goes_when_an_answer_comes() -> None:
    show = "output.progress('9 of 10'); output.result('Hello.\\n'); output.finish()"
    status, drawn = terminal(shlex.join([sys.executable, "-c", SCRIPT + show]))
    assert status == 0
    assert drawn == "\r9 of 10\r       \rHello.\r\n"


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("gardener.cli.output.time.monotonic", lambda: now)
    for seconds in (0, 4, 9, 10, 15, 21, 25):
        now = 100.0 + seconds
        output.progress(f"after {seconds} s")
    output.progress("")
    now += 1.0
    output.progress("another thing")  # it may not take long
    output.progress("")
    assert capsys.readouterr().err == "after 10 s\nafter 21 s\n"
