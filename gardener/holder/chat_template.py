"""Text into prompt tokens: the model's tokenizer, its chat template, and where an answer ends."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gardener.errors import UserError
from gardener.model.checkpoint.folders import read_json


class Prompter:
    """Tokenizer and generation settings of the model in a Hugging Face directory."""

    def __init__(self, directory: Path) -> None:
        """Raises UserError for what is no model, or has no tokenizer that can be used."""
        # Late, since importing transformers takes a second and most modules need none of it.
        from gardener.model.architecture import Architecture

        self._directory = directory
        architecture = Architecture.read(directory)
        self.context = architecture.context  # tokens of prompt and answer together
        self.vocabulary = architecture.vocab  # tokens that can be picked
        self._tokenizer = _tokenizer(directory)
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(
                f"{directory} has no fast tokenizer (tokenizer.json): convert it with transformers"
            )
        self.backend: Tokenizer = backend
        self.eos = _eos(directory / "generation_config.json", directory / "config.json")

    def encode(
        self, text: str, *, raw: bool = False, history: Sequence[tuple[str, str]] = ()
    ) -> list[int]:
        """One user turn in the chat template, or `raw` text as it is. `history`: the user turns
        before it with their answers; raw, all follow on each other.

        Raises UserError if nothing is left of it, or no room for an answer.
        """
        if raw:
            before = "".join(asked + answered for asked, answered in history)
            tokens = list(self._tokenizer(before + text).input_ids)
        else:
            turns = [*(turn for pair in history for turn in pair), text]
            tokens = self._chat(
                [
                    {"role": "assistant" if number % 2 else "user", "content": turn}
                    for number, turn in enumerate(turns)
                ]
            )
        if not tokens:
            raise UserError("the prompt is empty: say something")
        if len(tokens) >= self.context:
            raise UserError(
                f"the prompt has {len(tokens)} tokens, and with the answer there may be "
                f"{self.context}: shorten it, or take a longer --context"
            )
        return tokens

    def tokens(self, text: str) -> list[int]:
        """Text alone, without a template or special tokens."""
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def fixed_text(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """What the chat template writes itself, as tokens: before the first user turn, between a
        user turn and its answer, and between an answer and the next user turn.

        Raises UserError if there is no template, or one that changes what is put into it.
        """
        self._check_template()
        marks = ("(first turn)", "(answer)", "(second turn)")
        roles = ("user", "assistant", "user")
        turns = [{"role": r, "content": m} for r, m in zip(roles, marks, strict=True)]
        rest = str(self._templated(turns, tokenize=False))
        parts = []
        for mark in marks:
            part, found, rest = rest.partition(mark)
            if not found:
                raise UserError("this model's chat template does not write turns as they are")
            parts.append(tuple(self.tokens(part)))
        if not parts[0] or not parts[1]:
            raise UserError("this model's chat template writes nothing before a user turn")
        return parts[0], parts[1], parts[2]

    def _check_template(self) -> None:
        if self._tokenizer.chat_template is None:
            raise UserError("this model has no chat template: use --raw")

    def _chat(self, turns: Sequence[dict[str, str]]) -> list[int]:
        self._check_template()
        return list(self._templated(turns, return_dict=True)["input_ids"])

    def _templated(self, turns: Sequence[dict[str, str]], **options: bool) -> Any:
        try:
            return self._tokenizer.apply_chat_template(
                list(turns), add_generation_prompt=True, **options
            )
        except Exception as error:  # a template is a program: it may end in any of them
            reason = _short(error)
            raise UserError(
                f"the chat template in {self._directory} failed ({reason}): mend it, or use --raw"
            ) from error


def _tokenizer(directory: Path) -> Any:
    """As transformers reads it. Raises UserError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            directory,
            local_files_only=True,
            trust_remote_code=False,  # else it asks the user whether to run what the folder brings
        )
    except Exception as error:  # it trusts what the files say: nearly any of them
        raise UserError(
            f"the tokenizer in {directory} cannot be read ({_short(error)}): mend its files, or "
            "take another model; code that comes with a model is never run"
        ) from error


def _short(error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return textwrap.shorten(reason, 300)


def _eos(*files: Path) -> frozenset[int]:
    """The ids that end an answer, from the first file that names any: an id or a list."""
    from gardener.model.checkpoint.config import EndConfig, checked

    for file in files:
        if file.exists():
            ids = checked(EndConfig, file, read_json(file), "mend the file").eos_token_id
            if ids is not None:
                return frozenset(ids if isinstance(ids, tuple) else (ids,))
    return frozenset()
