"""The chat templates of the package: what they write, for which models they are chosen, and what is
said about them."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import words

from gardener.errors import UserError
from gardener.holder.prompter import OWN, Prompter
from gardener.holder.templates import END, NEEDS, choose, named, names_of, read
from gardener.model.checkpoint.slices import even_cut
from gardener.model.checkpoint.split import split

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
)
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n"
)

WRITTEN: dict[str, tuple[str, str, str, str]] = {
    "vicuna": (
        f"<s>{VICUNA}USER: Why? ASSISTANT:",
        "<s>Be brief. USER: Why? ASSISTANT:",
        "<s>USER: Why? ASSISTANT:",
        f"<s>{VICUNA}USER: Why? ASSISTANT: So.</s>USER: And? ASSISTANT:",
    ),
    "llama-2": (
        "<s>[INST] Why? [/INST]",
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhy? [/INST]",
        "<s>[INST] Why? [/INST]",
        "<s>[INST] Why? [/INST] So. </s><s>[INST] And? [/INST]",
    ),
    "llama-3": (
        "<s><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nSo.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "chatml": (
        "<s><|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<s><|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        "<s><|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n"
        "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n",
    ),
    "alpaca": (
        f"<s>{ALPACA}### Instruction:\nWhy?\n\n### Response:",
        "<s>Be brief.\n\n### Instruction:\nWhy?\n\n### Response:",
        "<s>### Instruction:\nWhy?\n\n### Response:",
        f"<s>{ALPACA}### Instruction:\nWhy?\n\n### Response:So.</s>\n\n"
        "### Instruction:\nAnd?\n\n### Response:",
    ),
    "mistral": (
        "<s>[INST] Why? [/INST]",
        "<s>[INST] Be brief.\n\nWhy? [/INST]",
        "<s>[INST] Why? [/INST]",
        "<s>[INST] Why? [/INST] So.</s>[INST] And? [/INST]",
    ),
    "zephyr": (
        "<s><|user|>\nWhy?</s>\n<|assistant|>\n",
        "<s><|system|>\nBe brief.</s>\n<|user|>\nWhy?</s>\n<|assistant|>\n",
        "<s><|user|>\nWhy?</s>\n<|assistant|>\n",
        "<s><|user|>\nWhy?</s>\n<|assistant|>\nSo.</s>\n<|user|>\nAnd?</s>\n<|assistant|>\n",
    ),
    "gemma": (
        "<s><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
        "<s><start_of_turn>user\nBe brief.\n\nWhy?<end_of_turn>\n<start_of_turn>model\n",
        "<s><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
        "<s><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\nSo.<end_of_turn>\n"
        "<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n",
    ),
    "phi-3": (
        "<s><|user|>\nWhy?<|end|>\n<|assistant|>\n",
        "<s><|system|>\nBe brief.<|end|>\n<|user|>\nWhy?<|end|>\n<|assistant|>\n",
        "<s><|user|>\nWhy?<|end|>\n<|assistant|>\n",
        "<s><|user|>\nWhy?<|end|>\n<|assistant|>\nSo.<|end|>\n<|user|>\nAnd?<|end|>\n"
        "<|assistant|>\n",
    ),
}
"""What each writes: one turn, with the system message `Be brief.`, with an empty one, two turns."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    tiny.make("llama", folder, vocab_size=words.ROWS, max_position_embeddings=1024)
    return folder


def model(weights: Path, folder: Path, *added: str, template: str = "", **bos: bool) -> Path:
    """A folder with a config and a byte-level tokenizer: no prompt needs weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes((weights / "config.json").read_bytes())
    words.name_bytes(folder, added, template, **bos)
    return folder


def shown(prompter: Prompter, tokens: Sequence[int]) -> str:
    return str(prompter.backend.decode(list(tokens), skip_special_tokens=False))


def number_of(prompter: Prompter, token: str) -> int:
    number = prompter.backend.token_to_id(token)
    assert number is not None
    return number


def needed(name: str) -> list[str]:
    return [token for token in NEEDS[name] if token != END]


@pytest.mark.parametrize("name", NEEDS)
def test_each_template_writes_what_its_model_was_trained_with(
    weights: Path, tmp_path: Path, name: str
) -> None:
    said: list[str] = []
    folder = model(weights, tmp_path / "some", *needed(name))
    prompter = Prompter(folder, template=name, say=said.append)
    one, brief, none, two = WRITTEN[name]
    assert shown(prompter, prompter.encode("Why?")) == one
    assert shown(prompter, prompter.encode("Why?", system="Be brief.")) == brief
    assert shown(prompter, prompter.encode("Why?", system="")) == none
    tokens = prompter.encode("And?", history=[("Why?", "So.")])
    assert shown(prompter, tokens) == two
    assert prompter.template == name
    for token in (*needed(name), "<s>", "</s>"):  # special tokens, not their letters
        assert tokens.count(number_of(prompter, token)) == two.count(token)
    whole = Prompter(folder, template=name, system="Be brief.")
    assert shown(whole, whole.encode("Why?")) == brief
    assert said == []


@pytest.mark.parametrize("name", NEEDS)
def test_an_answer_ends_where_the_template_ends_it(
    weights: Path, tmp_path: Path, name: str
) -> None:
    prompter = Prompter(model(weights, tmp_path, *needed(name)), template=name)
    after = WRITTEN[name][3].partition("So.")[2].lstrip()
    (end,) = [each for each in (*needed(name), "</s>") if after.startswith(each)]
    assert prompter.eos == {2, number_of(prompter, end)}  # the config names 2


@pytest.mark.parametrize("tokenizer", [words.name_bytes, words.name_pieces])
@pytest.mark.parametrize("name", NEEDS)
def test_the_text_around_the_turns_is_that_of_a_dialogue(
    weights: Path, tmp_path: Path, name: str, tokenizer: Callable[..., None]
) -> None:
    """What a head is trained on is, token for token, what an answer is asked with."""
    folder = model(weights, tmp_path)
    tokenizer(folder, needed(name))
    prompter = Prompter(folder, template=name)
    fixed = prompter.fixed_text()
    turn = prompter.turn("Why?", fixed)
    assert [*fixed.opening, *turn, *fixed.answering] == prompter.encode("Why?")
    two = prompter.encode("And?", history=[("Why?", "So.")])
    begin = [*fixed.opening, *turn, *fixed.answering]
    end = [*fixed.asking, *prompter.turn("And?", fixed), *fixed.answering]
    assert two[: len(begin)] == begin
    assert two[-len(end) :] == end
    assert shown(prompter, two[len(begin) : -len(end)]).strip() == "So."


def test_bos_is_written_as_the_tokenizer_does_or_as_the_template_must(
    weights: Path, tmp_path: Path
) -> None:
    for name in NEEDS:
        folder = model(weights, tmp_path / name, *needed(name), adds_bos=False)
        prompter = Prompter(folder, template=name)
        begins = shown(prompter, prompter.encode("Why?")).startswith("<s>")
        assert begins == (name in {"llama-2", "llama-3", "mistral", "gemma"}), name


def test_a_template_of_the_model_that_writes_bos_gets_no_second_one(
    weights: Path, tmp_path: Path
) -> None:
    folder = model(weights, tmp_path, template="{{ bos_token }}{{ messages[-1].content }}")
    prompter = Prompter(folder)
    assert shown(prompter, prompter.encode("Why?")) == "<s>Why?"
    assert prompter.template == OWN
    assert prompter.eos == {2}


CHOSEN = {
    "vicuna": ("vicuna-7b-v1.3", "vicuna-13b-v1.5-16k.Q4_0", "Vicuna 33B v1.3", "vicuna-7B-1.1-HF"),
    "llama-2": ("Llama-2-7b-chat-hf", "llama-2-13b-chat.Q4_K_M", "CodeLlama-7b-Instruct-hf"),
    "llama-3": ("Meta-Llama-3-8B-Instruct", "llama-3-70b-instruct-Q4_0"),
    "mistral": ("Mistral-7B-Instruct-v0.2", "mixtral-8x7b-instruct-v0.1.Q4_K_M"),
    "zephyr": ("zephyr-7b-beta", "TinyLlama-1.1B-Chat-v1.0"),
    "gemma": ("gemma-2b-it", "gemma-2-9b-it", "gemma-1.1-7b-it", "gemma-3-1b-it"),
    "phi-3": ("Phi-3-mini-4k-instruct", "Phi-3.5-mini-instruct", "phi-3-medium-128k-instruct"),
    "chatml": ("OpenHermes-2.5-Mistral-7B", "Yi-34B-Chat"),
    "alpaca": ("alpaca-7b",),
}
NOT_SURE = (
    *("vicuna-7b", "vicuna-13b-delta-v0", "stable-vicuna-13B", "Wizard-Vicuna-13B", "llama-2-7b"),
    *("Llama-2-7b-hf", "Llama-3.1-8B-Instruct", "Meta-Llama-3-8B", "Mistral-7B-Instruct-v0.3"),
    *(
        "Mistral-7B-v0.1",
        "CodeLlama-70b-Instruct",
        "Phi-3-small-8k-instruct",
        "gemma-2b",
        "my-model",
    ),
    *("chinese-alpaca-2-7b", "not-vicuna-7b-v1.5", ""),
)


@pytest.mark.parametrize(("name", "models"), CHOSEN.items())
def test_a_template_is_chosen_by_the_name_of_the_model(name: str, models: Sequence[str]) -> None:
    for each in models:
        assert choose([each], lambda token: True) == named(name, each)
        assert choose(["a", each, "b"], lambda token: True) == named(name, each)


@pytest.mark.parametrize("name", NOT_SURE)
def test_nothing_is_chosen_where_it_is_not_sure(name: str) -> None:
    assert choose([name], lambda token: True) is None


def test_names_that_disagree_or_tokens_that_are_missing_decide_nothing() -> None:
    assert choose(["vicuna-7b-v1.5", "Llama-2-7b-chat-hf"], lambda token: True) is None
    assert choose(["vicuna-7b-v1.5", "vicuna-7b-v1.3"], lambda token: True) is not None
    assert choose(["gemma-2b-it"], lambda token: token != "<end_of_turn>") is None


@pytest.mark.parametrize(
    ("given", "folder", "said", "names"),
    [
        (
            "lmsys/vicuna-7b-v1.3",
            "/c/models--a--b/snapshots/f0",
            None,
            ["vicuna-7b-v1.3", "f0", "b"],
        ),
        ("/models/x.gguf", "/cache/x-12", "lmsys/y", ["x.gguf", "x-12", "y"]),
        ("/models/x", "/models/x", 5, ["x"]),
        ("", "/models/x/holder", "z", ["holder", "z"]),
    ],
)
def test_what_a_model_is_called(given: str, folder: str, said: Any, names: list[str]) -> None:
    assert names_of(given, Path(folder), {"_name_or_path": said}) == names


def test_a_model_may_be_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vicuna-7b-v1.5").mkdir()
    monkeypatch.chdir(tmp_path / "vicuna-7b-v1.5")
    assert names_of(".", Path("."), {}) == ["vicuna-7b-v1.5"]


def test_the_user_is_told_once_what_was_chosen(weights: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = model(weights, tmp_path / "vicuna-7b-v1.5")
    prompter = Prompter(folder, say=said.append)
    assert prompter.encode("Why?", raw=True)
    assert said == []  # nothing came of it yet
    for _ in range(2):
        assert shown(prompter, prompter.encode("Why?")) == WRITTEN["vicuna"][0]
    assert said == [
        "this model brings no chat template: vicuna is taken, by its name vicuna-7b-v1.5 "
        "(--template changes that)"
    ]
    assert prompter.template == "vicuna (chosen by the name vicuna-7b-v1.5)"


def test_the_holders_part_of_a_split_model_knows_what_it_is(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vicuna-7b-v1.5"
    shutil.copytree(weights, folder)
    words.name_bytes(folder)
    split(folder, even_cut([1] * tiny.LAYERS, 0, 2), tmp_path / "cut", name=f"lmsys/{folder.name}")
    (tmp_path / "cut" / "holder").rename(tmp_path / "elsewhere")
    prompter = Prompter(tmp_path / "elsewhere")
    assert shown(prompter, prompter.encode("Why?")) == WRITTEN["vicuna"][0]


def test_a_model_with_a_template_of_its_own_keeps_it(weights: Path, tmp_path: Path) -> None:
    folder = model(weights, tmp_path / "vicuna-7b-v1.5", template="own {{ messages[0].content }}")
    prompter = Prompter(folder)
    assert shown(prompter, prompter.encode("Why?")) == "own Why?"
    other = Prompter(folder, template="vicuna")
    assert shown(other, other.encode("Why?")) == WRITTEN["vicuna"][0]


def test_without_a_template_the_error_says_what_there_is(weights: Path, tmp_path: Path) -> None:
    prompter = Prompter(model(weights, tmp_path / "base"))
    names = ", ".join(NEEDS)
    with pytest.raises(UserError, match=rf"no chat template.*--template \({names}, or.*--raw"):
        prompter.encode("Why?")
    assert shown(prompter, prompter.encode("Why?", raw=True)) == "<s>Why?"
    assert prompter.template is None


def test_tokens_that_the_model_lacks_are_told(weights: Path, tmp_path: Path) -> None:
    said: list[str] = []
    prompter = Prompter(model(weights, tmp_path), template="chatml", say=said.append)
    assert shown(prompter, prompter.encode("Why?")) == WRITTEN["chatml"][0]  # in letters
    (line,) = said
    assert "has no <|im_start|>, <|im_end|>, which the chat template chatml writes" in line
    assert prompter.eos == {2}


def test_a_template_from_a_file(weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    )
    prompter = Prompter(model(weights, tmp_path), template=str(file))
    assert shown(prompter, prompter.encode("Why?", system="x")) == "system: x</s>user: Why?</s>"
    assert prompter.template == str(file)
    assert prompter.eos == {2, number_of(prompter, "</s>")}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "there is no chat template .*: name one of .*vicuna.*, or a Jinja file"),
        (b" \n", "is empty"),
        (b"\xff", "cannot be read"),
        (b"Dear reader", "leaves the user's text out"),
        (b"{% for", "failed .*: mend it, name another --template, or use --raw"),
    ],
)
def test_a_file_that_is_no_template_is_named(
    weights: Path, tmp_path: Path, content: bytes | None, why: str
) -> None:
    file = tmp_path / "mine.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=why):
        Prompter(model(weights, tmp_path / "m"), template=str(file)).encode("Why?")


def test_a_folder_is_no_template(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read(str(tmp_path))


REFUSES = """{% for m in messages %}{% if m.role == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}{{ m.content }}{% endfor %}"""
IGNORES = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "why"),
    [(REFUSES, "System role not supported"), (IGNORES, "it leaves it out without a word")],
)
def test_a_system_message_never_vanishes(
    weights: Path, tmp_path: Path, template: str, why: str
) -> None:
    folder = model(weights, tmp_path, template=template)
    prompter = Prompter(folder, system="Be brief.")
    with pytest.raises(
        UserError, match=rf"takes no system message \({why}\): say it in the prompt"
    ):
        prompter.encode("Why?")
    assert shown(prompter, prompter.encode("Why?", system="")) == "Why?"  # there is none anyway
    assert shown(Prompter(folder), Prompter(folder).encode("Why?")) == "Why?"


OWN_TEXT = """{% if messages[0].role != 'system' %}[system]I am Oak[end]{% endif %}
{%- for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}"""
DATED = """[system]Today is Monday. {% if messages[0].role == 'system' %}{{ messages[0].content }}
{%- set messages = messages[1:] %}{% endif %}[end]
{%- for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}"""
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}"


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (OWN_TEXT, "[system][end][user]Why?[end]"),
        (DATED, "[system]Today is Monday. [end][user]Why?[end]"),
        (PLAIN, "[user]Why?[end]"),
    ],
)
def test_an_empty_system_message_leaves_out_what_the_template_would_say(
    weights: Path, tmp_path: Path, template: str, written: str
) -> None:
    prompter = Prompter(model(weights, tmp_path, template=template), system="")
    assert shown(prompter, prompter.encode("Why?")) == written


def test_two_bos_in_a_raw_text_are_said_once_and_left_as_they_are(
    weights: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    prompter = Prompter(model(weights, tmp_path / "a"), say=said.append)
    for _ in range(2):
        assert shown(prompter, prompter.encode("<s>Why?", raw=True)) == "<s><s>Why?"
    (line,) = said
    assert "the text begins with <s>, and the tokenizer puts one before it" in line
    plain = Prompter(model(weights, tmp_path / "b", adds_bos=False), say=said.append)
    assert shown(plain, plain.encode("<s>Why?", raw=True)) == "<s>Why?"
    assert len(said) == 1
