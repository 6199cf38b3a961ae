"""GGUF metadata to the files of a tokenizer: the same tokens as the tokenizer it was made from."""

import json
from collections import defaultdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf_metadata as made
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, pre_tokenizers
from transformers import AutoTokenizer

from gardener.errors import UserError
from gardener.model.checkpoint.gguf_pre_tokenizers import PRE_TOKENIZERS
from gardener.model.checkpoint.gguf_tokenizer import write_tokenizer

PIECES = (
    *made.TEXTS,
    *" \n\t\r'’.,!?/()½٣Ⅷ²e\u0301é你。ا한🙂▁Ġ\u200d\u00a0",
    *(
        "  ",
        "   ",
        "\n\n",
        "\r\n",
        "'s",
        "'LL",
        "I'd",
        "12",
        "1234567",
        "aaa",
        "camelCase",
        "HTTPs",
    ),
)
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=8).map("".join)


def read(metadata: dict[str, Any], model_type: str = "llama") -> Any:
    """The tokenizer as everything else here reads it, from a folder."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        write_tokenizer(metadata, folder)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@cache
def both(pre: str) -> tuple[Any, Any]:
    original, metadata = made.byte_level(pre)
    return original, read(metadata)


@cache
def pieces(prefix: bool) -> tuple[dict[str, Any], Any]:
    metadata = made.sentencepiece(prefix=prefix)
    return metadata, read(metadata)


@pytest.mark.parametrize("pre", made.BYTE_LEVEL)
@settings(deadline=None, max_examples=40)
@given(text=TEXT)
def test_byte_level_tokenizers_are_what_they_were(pre: str, text: str) -> None:
    original, written = both(pre)
    tokens = original.encode(text).ids
    assert written(text).input_ids == tokens
    assert written.decode(tokens) == original.decode(tokens)


def test_the_texts_tell_pre_tokenizers_apart() -> None:
    """Else a name could stand for wrong rules above, and nobody would see it."""
    alike = defaultdict(set)
    for pre in made.BYTE_LEVEL:
        alike[tuple(tuple(both(pre)[0].encode(text).tokens) for text in made.TEXTS)].add(pre)
    assert sorted(map(sorted, alike.values())) == [
        ["dbrx", "smaug-bpe"],
        ["deepseek-coder"],
        ["deepseek-r1-qwen", "qwen2"],
        ["deepseek-v3"],
        ["falcon3", "llama-bpe"],
        ["gpt-2", "olmo"],
        ["gpt-4o"],
        ["refact", "smollm"],
        ["tekken"],
    ]


def test_every_name_stands_for_rules_that_were_tried() -> None:
    tried = {id(PRE_TOKENIZERS[pre].patterns) for pre in made.BYTE_LEVEL}
    untried = {name for name, rules in PRE_TOKENIZERS.items() if id(rules.patterns) not in tried}
    assert untried == {"deepseek-llm"}  # below


def test_deepseeks_first_models_cut_in_turns() -> None:
    """The class of signs has ASCII letters too, and that of Chinese has Greek with accents."""
    steps = pre_tokenizers.Sequence(list(PRE_TOKENIZERS["deepseek-llm"].steps())[:-1])
    cut = steps.pre_tokenize_str("Hey \u1f5f\u1f7d12, H\u00e9 ok?\n\n你好 שלום-x  ")
    assert [piece for piece, _ in cut] == [
        *("Hey", " ", "\u1f5f\u1f7d", "1", "2", ",", " H", "\u00e9", " ok", "?", "\n", "\n"),
        *("你好", " שלום", "-", "x", "  "),
    ]


def test_the_vocabulary_is_laid_out_as_published(tmp_path: Path) -> None:
    """Whoever compares two vocabularies compares the model's part of tokenizer.json."""
    original, metadata = made.byte_level("smollm")
    write_tokenizer(metadata, tmp_path)
    written = json.loads((tmp_path / "tokenizer.json").read_text())
    published = json.loads(original.to_str())
    assert written["model"]["vocab"] == published["model"]["vocab"]
    assert written["added_tokens"] == published["added_tokens"]


@pytest.mark.parametrize("prefix", [True, False])
@settings(deadline=None, max_examples=100)
@given(text=TEXT)
def test_sentencepiece_merges_by_score(prefix: bool, text: str) -> None:
    assume("<unk>" not in text and "<s>" not in text and "</s>" not in text)
    metadata, written = pieces(prefix)
    tokens = written(text, add_special_tokens=False).input_ids
    assert tokens == made.merged_by_score(metadata, text)
    assert written(text).input_ids == [1, *tokens]
    assert written.decode(tokens) == text.replace("▁", " ")


def test_digits_stay_single_where_the_model_was_trained_so() -> None:
    _, written = both("smollm")
    assert written.tokenize("x\n\n2024")[-4:] == ["2", "0", "2", "4"]
    assert written.tokenize("\n\n2")[0] == "ĊĊ"  # and do not take the newline with them
    assert len(both("llama-bpe")[1].tokenize("1000")) < 4


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3", "qwen3_moe"])
def test_no_model_type_makes_transformers_read_it_otherwise(model_type: str) -> None:
    original, metadata = made.byte_level("qwen2")
    metadata["general.architecture"] = model_type.replace("_", "")
    written = read(metadata, model_type)
    for text in (*made.TEXTS, "e\u0301 <think>\n12", "<|im_start|>user\nhi<|im_end|>"):
        assert written(text).input_ids == original.encode(text).ids
    assert len(written) == original.get_vocab_size()


@pytest.mark.parametrize("model_type", ["llama", "mistral", "mixtral", "gemma2", "gemma3_text"])
def test_no_model_type_makes_transformers_read_pieces_otherwise(model_type: str) -> None:
    metadata, written = pieces(False)
    other = read(metadata, model_type)
    for text in made.TEXTS:
        assert other(text).input_ids == written(text).input_ids


def test_special_tokens_are_found_in_text_and_not_shown() -> None:
    _, written = both("llama-bpe")
    start, end, think = (
        written.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>", "<think>")
    )
    turns = [{"role": "user", "content": "hi <think>"}]
    tokens = written.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert (
        tokens
        == written("<|im_start|>user\nhi <think><|im_end|>\n<|im_start|>assistant\n").input_ids
    )
    assert [tokens.count(token) for token in (start, end, think)] == [2, 1, 1]
    shown = written.decode(tokens, skip_special_tokens=True)
    assert shown == "user\nhi <think>\nassistant\n"
    assert (written.bos_token_id, written.eos_token_id) == (start, end)


def test_a_space_stands_before_each_stretch_of_a_llama_prompt() -> None:
    """As Meta's and Mistral's own code encodes each turn by itself."""
    metadata, written = pieces(True)
    assert written("hi</s> you").input_ids == [
        1,
        *made.merged_by_score(metadata, "hi"),
        2,
        *made.merged_by_score(metadata, " you"),
    ]
    assert written.decode(written(" hi").input_ids, skip_special_tokens=True) == " hi"


def test_mistrals_with_tokens_for_turns_have_a_space_before_the_text_only() -> None:
    metadata = made.sentencepiece(more=[AddedToken("[INST]", special=True)])
    written = read(metadata, "mistral")
    turn, text = written.convert_tokens_to_ids("[INST]"), made.merged_by_score(metadata, "the hi")
    assert written("the hi").input_ids == [1, *text]
    assert written("[INST] the hi").input_ids == [1, turn, *text]
    assert written.decode([1, *text], skip_special_tokens=True) == "the hi"


def test_gemmas_spaces_are_tokens_of_their_own() -> None:
    runs = [AddedToken(" " * count) for count in (2, 3, 4)]
    metadata = made.sentencepiece(more=[*runs, AddedToken("<end_of_turn>", special=True)])
    metadata["general.architecture"] = "gemma2"
    del metadata["tokenizer.ggml.add_space_prefix"]  # the family says it
    written = read(metadata, "gemma2")
    assert written.tokenize("a     b") == ["a", "▁▁▁▁", "▁b"]
    assert written.tokenize("the  <end_of_turn>   x")[-4:] == ["▁▁", "<end_of_turn>", "▁▁▁", "x"]
    assert written.decode(written("  a   b").input_ids, skip_special_tokens=True) == "  a   b"


def test_tokens_that_differ_in_how_a_space_is_written_are_refused(tmp_path: Path) -> None:
    metadata = made.sentencepiece(prefix=False, more=[AddedToken("  "), AddedToken("▁▁")])
    with pytest.raises(UserError, match="tokens has '▁▁' 2 times"):
        write_tokenizer(metadata, tmp_path)


def test_phi3s_special_tokens_take_the_newline_that_follows() -> None:
    more = [AddedToken(text, special=True) for text in ("<|endoftext|>", "<|user|>", "<|end|>")]
    metadata = made.sentencepiece(more=more)
    metadata["general.architecture"] = "phi3"
    written = read(metadata, "phi3")
    user, end = (written.convert_tokens_to_ids(text) for text in ("<|user|>", "<|end|>"))
    expected = [1, user, *made.merged_by_score(metadata, "hi"), end]
    assert written("<|user|>\nhi<|end|>\n").input_ids == expected
    assert len(written("<|endoftext|>\nhi").input_ids) > len(written("<|user|>\nhi").input_ids)


def test_equal_scores_leave_the_order_of_the_tokens() -> None:
    """Some converters write one score for all."""
    metadata, written = pieces(True)
    level = dict(metadata)
    level["tokenizer.ggml.scores"] = [-1000.0] * len(metadata["tokenizer.ggml.tokens"])
    same = read(level)
    for text in made.TEXTS:
        assert same(text).input_ids == written(text).input_ids


def test_merges_of_the_file_go_before_scores() -> None:
    metadata = dict(pieces(True)[0])
    metadata["tokenizer.ggml.merges"] = ["▁ t"]
    assert read(metadata).tokenize("the") == ["▁t", "h", "e"]


@pytest.mark.parametrize(
    ("said", "by_default", "added"),
    [
        (None, "llama-bpe", True),
        (None, "smollm", False),
        (True, "smollm", True),
        (False, "llama-bpe", False),
    ],
)
def test_a_prompt_starts_with_bos(said: bool | None, by_default: str, added: bool) -> None:
    _, metadata = made.byte_level(by_default)
    del metadata["tokenizer.ggml.add_bos_token"]
    if said is not None:
        metadata["tokenizer.ggml.add_bos_token"] = said
    written = read(metadata)
    bos = metadata["tokenizer.ggml.bos_token_id"]
    assert (written("hi").input_ids[0] == bos) == added
    assert bos not in written("hi", add_special_tokens=False).input_ids


def test_a_prompt_ends_with_eos_where_the_file_wants_it() -> None:
    metadata = pieces(True)[0] | {"tokenizer.ggml.add_eos_token": True}
    assert read(metadata)("hi").input_ids == [1, *made.merged_by_score(metadata, "hi"), 2]


def test_all_tokens_that_end_an_answer_are_named(tmp_path: Path) -> None:
    more = [AddedToken(text, special=True) for text in ("<turn>", "<call>", "<|im_end|>", "<x>")]
    metadata = made.sentencepiece(more=more)
    first = metadata["tokenizer.ggml.tokens"].index("<turn>")
    metadata["tokenizer.ggml.eot_token_id"] = first
    metadata["tokenizer.ggml.eom_token_id"] = first + 1
    write_tokenizer(metadata, tmp_path)
    said = json.loads((tmp_path / "generation_config.json").read_text())
    assert said == {"bos_token_id": 1, "eos_token_id": [2, first, first + 1, first + 2]}


def test_rows_that_only_fill_up_are_no_tokens(tmp_path: Path) -> None:
    original, metadata = made.byte_level("qwen2")
    used = original.get_vocab_size()
    metadata["tokenizer.ggml.tokens"] += [f"[PAD{used}]", f"[PAD{used + 1}]"]
    metadata["tokenizer.ggml.token_type"] += [5, 5]
    write_tokenizer(metadata, tmp_path)
    written = json.loads((tmp_path / "tokenizer.json").read_text())
    assert written["model"]["vocab"] == json.loads(original.to_str())["model"]["vocab"]
    assert [token["id"] for token in written["added_tokens"]] == list(range(used - 4, used))


def test_an_ordinary_token_given_as_padding_stays_ordinary() -> None:
    _, metadata = made.byte_level("llama-bpe")
    metadata["tokenizer.ggml.padding_token_id"] = metadata["tokenizer.ggml.tokens"].index("!")
    written = read(metadata)
    assert written.pad_token is None
    assert written.decode(written("no!").input_ids, skip_special_tokens=True) == "no!"


def test_named_templates_come_along() -> None:
    _, metadata = made.byte_level("llama-bpe")
    metadata["tokenizer.chat_templates"] = ["tools"]
    metadata["tokenizer.chat_template.tools"] = "{{ 'with tools' }}"
    written = read(metadata)
    turns = [{"role": "user", "content": "x"}]
    assert written.apply_chat_template(turns, tokenize=False) == "<|im_start|>user\nx<|im_end|>\n"
    with_tools = written.apply_chat_template(turns, chat_template="tools", tokenize=False)
    assert with_tools == "with tools"


@pytest.mark.parametrize(
    ("kind", "change", "match"),
    [
        ("gpt2", {"model": "bert"}, r"tokenizer\.ggml\.model 'bert'"),
        ("gpt2", {"model": "t5"}, r"tokenizer\.ggml\.model 't5'"),
        ("gpt2", {"model": None}, r"tokenizer\.ggml\.model None"),
        ("gpt2", {"pre": "kimi-k2"}, r"tokenizer\.ggml\.pre 'kimi-k2', which is not known"),
        ("gpt2", {"pre": "default"}, r"tokenizer\.ggml\.pre is 'default'"),
        ("gpt2", {"pre": None}, r"tokenizer\.ggml\.pre is None"),
        ("gpt2", {"merges": None}, r"no tokenizer\.ggml\.merges"),
        ("gpt2", {"merges": ["ab"]}, r"tokenizer\.ggml\.merges has 'ab'"),
        ("gpt2", {"merges": ["q ☃"]}, r"tokenizer\.ggml\.merges does not fit"),
        ("gpt2", {"tokens": None}, r"no tokenizer\.ggml\.tokens"),
        ("gpt2", {"tokens": ["a", "a"], "token_type": [1, 1]}, r"tokens has 'a' 2 times"),
        ("gpt2", {"token_type": None}, r"no tokenizer\.ggml\.token_type"),
        ("gpt2", {"token_type": [1, 1]}, r"2 values in tokenizer\.ggml\.token_type"),
        ("gpt2", {"token_type": [9]}, r"tokenizer\.ggml\.token_type is \[9\]"),
        ("gpt2", {"eos_token_id": 10**6}, r"tokenizer\.ggml\.eos_token_id is 1000000"),
        ("gpt2", {"bos_token_id": None, "add_bos_token": True}, r"no tokenizer\.ggml\.bos_token"),
        ("gpt2", {"eos_token_id": None, "add_eos_token": True}, r"no tokenizer\.ggml\.eos_token"),
        ("gpt2", {"add_bos_token": "yes"}, r"tokenizer\.ggml\.add_bos_token is 'yes'"),
        ("gpt2", {"add_space_prefix": True}, r"tokenizer\.ggml\.add_space_prefix true"),
        ("gpt2", {"add_sep_token": True}, r"tokenizer\.ggml\.add_sep_token True"),
        ("gpt2", {"suppress_tokens": [3]}, r"tokenizer\.ggml\.suppress_tokens \[3\]"),
        ("gpt2", {"novelty": 1}, r"tokenizer\.ggml\.novelty 1"),
        ("llama", {"bos_token_id": None, "add_bos_token": None}, r"no tokenizer\.ggml\.bos_token"),
        ("llama", {"scores": None}, r"neither tokenizer\.ggml\.scores nor"),
        ("llama", {"remove_extra_whitespaces": True}, r"remove_extra_whitespaces True"),
        ("llama", {"precompiled_charsmap": [1]}, r"precompiled_charsmap \[1\]"),
    ],
)
def test_what_is_wrong_is_named(
    kind: str, change: dict[str, Any], match: str, tmp_path: Path
) -> None:
    whole = made.byte_level("llama-bpe")[1] if kind == "gpt2" else dict(pieces(True)[0])
    whole |= {f"tokenizer.ggml.{key}": value for key, value in change.items()}
    metadata = {key: value for key, value in whole.items() if value is not None}
    with pytest.raises(UserError, match=match) as caught:
        write_tokenizer(metadata, tmp_path)
    assert "take the model's Hugging Face folder" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_bytes_without_tokens_are_not_dropped_in_silence(tmp_path: Path) -> None:
    metadata = dict(pieces(True)[0])
    kinds = [1 if kind == 6 else kind for kind in metadata["tokenizer.ggml.token_type"]]
    metadata["tokenizer.ggml.token_type"] = [3, *kinds[1:]]
    del metadata["tokenizer.ggml.unknown_token_id"]
    with pytest.raises(UserError, match="a token for every byte"):
        write_tokenizer(metadata, tmp_path)


@pytest.mark.parametrize("pre", ["default", None])
def test_a_family_makes_an_unsaid_pre_tokenizer_sure(pre: str | None) -> None:
    original, metadata = made.byte_level("qwen2")
    metadata |= {"general.architecture": "qwen3", "tokenizer.ggml.pre": pre}
    if pre is None:
        del metadata["tokenizer.ggml.pre"]
    written = read(metadata, "qwen3")
    assert written("x 2024 e\u0301").input_ids == original.encode("x 2024 e\u0301").ids


def test_qwen2_models_with_another_pre_tokenizer_are_refused(tmp_path: Path) -> None:
    """transformers would read them by Qwen2's rules, whatever tokenizer.json says."""
    metadata = made.byte_level("gpt-2")[1] | {"general.architecture": "qwen2"}
    with pytest.raises(UserError, match=r"'gpt-2', and transformers reads every Qwen2"):
        write_tokenizer(metadata, tmp_path)
