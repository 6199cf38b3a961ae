"""The tokenizer of a model folder, whatever stands in its files."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from tokenizers import Tokenizer

from gardener.errors import UserError
from gardener.evaluation.reference import plain_reference
from gardener.holder.prompter import Prompter

TEMPLATE = "{% for m in messages %}{{ 'w1 ' + m['content'] + ' ' }}{% endfor %}w2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model whose words are w0 to w60."""
    tiny.make("llama", tmp_path)
    tiny.name_words(tmp_path, TEMPLATE)
    return tmp_path


def edit(file: Path, **changes: Any) -> None:
    held = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(held | changes))


def test_text_becomes_tokens(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[3, 4])
    prompter = Prompter(folder)
    assert prompter.encode("w5") == [1, 5, 2]
    assert prompter.encode("w5", history=[("w6", "w7")]) == [1, 6, 1, 7, 1, 5, 2]
    assert prompter.encode("w5", raw=True) == [5]
    assert (prompter.eos, prompter.context) == (frozenset({3, 4}), 256)


def test_a_tokenizer_that_is_a_pointer_of_git_lfs_is_called_one(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"tokenizer\.json is a git-lfs pointer, not the file that"):
        Prompter(folder)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    ("prompt", "history", "why"),
    [
        ("w5\udcff", [], "the prompt is not UTF-8 text .byte 0xff in the place of character 3"),
        ("\ud83d", [], "the prompt is not UTF-8 text .half of one, U.D83D, in the place of"),
        ("w5", [("w6", "w\udc80")], "the prompt is not UTF-8 text .byte 0x80"),
    ],
)
def test_a_prompt_that_is_no_text_is_no_fault_of_the_template(
    folder: Path, raw: bool, prompt: str, history: list[tuple[str, str]], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        Prompter(folder).encode(prompt, raw=raw, history=history)


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the user was asked. The folder brings code, which leaves a file when it is run."""
    questions: list[object] = []

    def ask(*question: object) -> str:
        questions.extend(question)
        return "y"

    monkeypatch.setattr("builtins.input", ask)
    for name in ("tokens", "configuration", "modeling"):
        text = f"import pathlib; pathlib.Path({str(folder / 'ran')!r}).touch()"
        (folder / f"{name}.py").write_text(text)
    return questions


@pytest.mark.parametrize("names", [["tokens.Oak", None], {"AutoTokenizer": [None, "tokens.Oak"]}])
def test_code_in_the_folder_is_not_run_and_nobody_is_asked(
    folder: Path, asked: list[object], names: object
) -> None:
    """What transformers knows itself is used all the same."""
    tokenizer = folder / "tokenizer_config.json"
    edit(tokenizer, tokenizer_class="LlamaTokenizer", auto_map=names)
    edit(
        folder / "config.json",
        auto_map={"AutoConfig": "configuration.Oak", "AutoModelForCausalLM": "modeling.Oak"},
    )
    assert Prompter(folder).context == 256
    assert plain_reference(folder, [[1]], 2, 256, (), "float32", "cpu")
    for unknown in ("Oak", None):
        edit(tokenizer, tokenizer_class=unknown)
        with pytest.raises(UserError, match="code that comes with a model is never run"):
            Prompter(folder)
    assert asked == []
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model_type": "oak"}, r"architecture LlamaForCausalLM \(model_type oak\)"),
        ({"configuration_files": ["config.4.0.0.json"]}, "configuration_files is .*expected null"),
    ],
)
def test_a_model_that_needs_code_of_its_own_is_refused(
    folder: Path, asked: list[object], changes: dict[str, Any], why: str
) -> None:
    code = {"AutoConfig": "configuration.Oak"}
    edit(folder / "config.4.0.0.json", model_type="oak", auto_map=code)
    edit(folder / "config.json", auto_map=code, **changes)
    with pytest.raises(UserError, match=why):
        Prompter(folder)
    assert asked == []
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("generation_config.json", "{", "generation_config.json cannot be read"),
        ("generation_config.json", '{"eos_token_id": "x"}', r"eos_token_id is 'x' \(expected"),
        ("generation_config.json", '{"eos_token_id": [[1]]}', r"eos_token_id is \[\[1\]\]"),
        ("config.json", '{"model_type": 5}', r"config.json: model_type is 5 \(expected str"),
        ("tokenizer.json", "{", "the tokenizer in .* cannot be read"),
        ("tokenizer.json", '{"model": 5}', "the tokenizer in .* cannot be read"),
        ("tokenizer_config.json", "[1]", "the tokenizer in .* cannot be read"),
        ("tokenizer_config.json", '{"auto_map": 5}', "the tokenizer in .* cannot be read"),
    ],
)
def test_broken_files_are_named(folder: Path, file: str, text: str, why: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(UserError, match=why):
        Prompter(folder)


def test_a_template_that_fails_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('only one turn') }}")
    prompter = Prompter(folder)
    with pytest.raises(UserError, match=r"the chat template in .* failed \(only one turn\): mend"):
        prompter.encode("w5")
    with pytest.raises(UserError, match="use --raw"):
        prompter.fixed_text()
    assert prompter.encode("w5", raw=True) == [5]


def test_a_token_that_the_model_does_not_have_is_named(tmp_path: Path) -> None:
    """Tokenizers that somebody added a token to, beside the model as it was."""
    tiny.make("llama", tmp_path)
    tiny.name_words(tmp_path)
    file = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.add_special_tokens(["<pad>"])
    tokenizer.save(str(file))
    with pytest.raises(UserError, match=r"holds token 61 \('<pad>'\), and .* 0 to 60: take the"):
        Prompter(tmp_path).encode("w1 <pad>", raw=True)
