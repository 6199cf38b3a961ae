"""Text into prompt tokens: the model's tokenizer, its chat template, and where an answer ends."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gardener.errors import UserError


class Prompter:
    """Tokenizer and generation settings of the model in a Hugging Face directory."""

    def __init__(self, directory: Path) -> None:
        # Late, since importing transformers takes a second and most modules need none of it.
        from transformers import AutoConfig, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(
                f"{directory} has no fast tokenizer (tokenizer.json): convert it with transformers"
            )
        self.backend: Tokenizer = backend
        self.eos = _eos(
            _read(directory / "generation_config.json"), _read(directory / "config.json")
        )
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        self.context = int(config.max_position_embeddings)  # of prompt and answer together

    def encode(self, text: str, *, raw: bool = False) -> list[int]:
        """One user turn in the chat template, or `raw` text as it is.

        Raises UserError if nothing is left of it, or no room for an answer.
        """
        if raw:
            tokens = list(self._tokenizer(text).input_ids)
        else:
            tokens = self._chat([{"role": "user", "content": text}])
        if not tokens:
            raise UserError("the prompt is empty: say something")
        if len(tokens) >= self.context:
            raise UserError(
                f"the prompt has {len(tokens)} tokens, and this model has room for "
                f"{self.context} with the answer: shorten it"
            )
        return tokens

    def _chat(self, turns: Sequence[dict[str, str]]) -> list[int]:
        if self._tokenizer.chat_template is None:
            raise UserError("this model has no chat template: use --raw")
        encoded = self._tokenizer.apply_chat_template(
            list(turns), add_generation_prompt=True, return_dict=True
        )
        return list(encoded["input_ids"])


def read_prompts(path: Path) -> list[str]:
    """First turns of a JSONL file (rows with `turns`), or else one prompt a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the prompts in {path} cannot be read: {error}") from error
    prompts = [
        _first_turn(line, f"{path}:{number}") if path.suffix == ".jsonl" else line
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not prompts:
        raise UserError(f"{path} holds no prompt")
    return prompts


def _first_turn(line: str, where: str) -> str:
    try:
        turns = json.loads(line)["turns"]
        if isinstance(turns, list) and turns and isinstance(turns[0], str):
            return turns[0]
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f'{where} is not a row like {{"turns": ["a prompt"]}}')


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _eos(*configs: dict[str, Any]) -> frozenset[int]:
    """The ids that end an answer, from the first config that names any: an id or a list."""
    for config in configs:
        ids = config.get("eos_token_id")
        if ids is not None:
            return frozenset(ids if isinstance(ids, list) else [ids])
    return frozenset()
