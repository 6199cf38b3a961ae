"""Text into prompt tokens: the model's tokenizer, its chat template, and where an answer ends."""

import textwrap
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gardener.errors import UserError
from gardener.holder.chat_template import ChatTemplate, FixedText, Message, in_turns
from gardener.holder.detokenizer import written
from gardener.holder.templates import END, NEEDS, Template, choose, names_of, read
from gardener.holder.token_lengths import TokenLengths
from gardener.model.checkpoint.folders import read_json, refuse_pointer
from gardener.runtime.wording import Say, check_text

OWN = "the model's own"
"""What to call a chat template that comes with the model."""


class TooLong(UserError):
    """A prompt leaves no room for an answer."""

    def __init__(self, size: str, context: int) -> None:
        why = f"the prompt has {size}, and with the answer there may be {context}: shorten it"
        super().__init__(f"{why}, or take a longer --context", why)


class Prompter:
    """Tokenizer, chat template and generation settings of the model in a Hugging Face directory.

    context     tokens of prompt and answer together
    vocabulary  tokens that can be picked
    eos         tokens that end an answer: those that the model names, and where it brings no
                template of its own, the one that the template writes after an answer
    template    which chat template writes the prompts; None: there is none
    system      the system message of chats, see `ChatTemplate.tokens`
    """

    def __init__(
        self,
        directory: Path,
        *,
        template: str | None = None,
        system: str | None = None,
        name: str = "",
        say: Say = lambda line: None,
    ) -> None:
        """`template`: one of the package, or a Jinja file, in place of the model's own. `name`:
        what the user calls the model, by which a template is chosen if it brings none. `say` is
        told once what a person should know about the prompts.

        Raises UserError for what is no model, has no tokenizer that can be used, or no template.
        """
        # Late, since importing transformers takes a second and most modules need none of it.
        from gardener.model.architecture import Architecture

        self._directory, self._say = directory, say
        architecture = Architecture.read(directory)
        self.context = architecture.context
        self.vocabulary = architecture.vocab
        self.system = system
        self._tokenizer = _tokenizer(directory)
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(
                f"{directory} has no fast tokenizer (tokenizer.json): convert it with transformers"
            )
        self.backend: Tokenizer = backend
        self._given = self._other_template(template, name)
        self._chat = self._chat_template()
        self.eos = _eos(directory / "generation_config.json", directory / "config.json")
        if self._given is not None and self._chat is not None:
            self.eos |= self._chat.ends
        self._looked = self._warned = False

    @property
    def template(self) -> str | None:
        """See above."""
        return str(self._given or OWN) if self._chat is not None else None

    def encode(
        self,
        text: str,
        *,
        raw: bool = False,
        history: Sequence[tuple[str, str]] = (),
        system: str | None = None,
    ) -> list[int]:
        """One user turn in the chat template, or `raw` text as it is. `history`: the user turns
        before it with their answers; raw, all follow on each other. `system`: in place of the
        system message for all chats.

        Raises UserError if nothing is left of it, or no room for an answer, and for a template that
        fails or takes no system message.
        """
        turns = [*(turn for pair in history for turn in pair), text]
        if not raw:
            return self._chat_tokens(in_turns(turns), self.system if system is None else system)
        for turn in turns:
            check_text(turn, "the prompt")
        return self.checked(self._raw("".join(turns)))

    def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """A dialogue in the chat template. The system message for all chats stands where it begins
        with none. `tools`: functions that may be called, as JSON schema; see `takes_tools`.
        `options`: variables that the template knows beside these.

        Raises UserError as `encode`, and for a template that leaves something out.
        """
        return self._chat_tokens(messages, self.system, tools, options)

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template writes the tools that it is given. Raises UserError if there is
        no template, or one that fails."""
        return self._checked_chat().takes_tools

    def checked(self, tokens: list[int]) -> list[int]:
        """The same tokens, as a prompt of this model. Raises UserError if there are none, or no
        room for an answer, or one that the model does not have."""
        if not tokens:
            raise UserError("the prompt is empty: say something")
        for odd in (min(tokens), max(tokens)):
            if not 0 <= odd < self.vocabulary:
                raise UserError(
                    f"the prompt holds token {odd} ({written(self.backend, odd)!r}), and this "
                    f"model has tokens 0 to {self.vocabulary - 1}: take the tokenizer that belongs "
                    "to it",
                    f"the prompt holds token {odd}, and this model has tokens 0 to "
                    f"{self.vocabulary - 1}",
                )
        if len(tokens) >= self.context:
            raise TooLong(f"{len(tokens)} tokens", self.context)
        return tokens

    def tokens(self, text: str) -> list[int]:
        """Text alone, without a template or special tokens."""
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def start(self) -> list[int]:
        """What the tokenizer puts before any text: the BOS token, or nothing."""
        ids = list(self._tokenizer("").input_ids)
        return ids[:1] if ids[:1] == [self._tokenizer.bos_token_id] else []

    def fixed_text(self) -> FixedText:
        """What the chat template writes around the turns.

        Raises UserError if there is no template, or one that changes what is put into it.
        """
        return self._checked_chat().fixed(self.system)

    def turn(self, text: str, fixed: FixedText) -> list[int]:
        """A user turn as tokens, where it follows on the fixed text before it."""
        return list(self._checked_chat().behind(fixed.before, fixed.lead + text))

    def added(self, token: int) -> bool:
        """Whether this is a token of its own, which no ordinary text becomes."""
        return token in self._tokenizer.added_tokens_decoder

    def _chat_tokens(
        self,
        messages: Sequence[Message],
        system: str | None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        for message in messages:
            check_text(message["content"], "the prompt")
        chat = self._checked_chat()
        return self.checked(chat.tokens(messages, system, tools, options, self._check_length))

    def _check_length(self, text: str) -> None:
        """Raises TooLong for a text that is too long whatever its tokens are."""
        if len(text) > self.context and (least := self._lengths.least(text)) >= self.context:
            raise TooLong(
                f"{len(text)} characters, so {least} tokens at the very least", self.context
            )

    @cached_property
    def _lengths(self) -> TokenLengths:
        return TokenLengths(self.backend)

    def _raw(self, text: str) -> list[int]:
        self._check_length(text)
        tokens = list(self._tokenizer(text).input_ids)
        bos = self._tokenizer.bos_token_id
        if bos is not None and tokens[:2] == [bos, bos] and not self._warned:
            self._warned = True
            self._say(
                f"the text begins with {self._tokenizer.bos_token}, and the tokenizer puts one "
                "before it: the model reads two, leave yours out if that is not meant"
            )
        return tokens

    def _other_template(self, wanted: str | None, name: str) -> Template | None:
        """One in place of the model's own, or for a model that brings none."""
        if wanted is not None:
            return read(wanted)
        if self._tokenizer.chat_template is not None:
            return None
        config = read_json(self._directory / "config.json")
        return choose(names_of(name, self._directory, config), self._has)

    def _chat_template(self) -> ChatTemplate | None:
        if self._given is not None:
            return ChatTemplate(
                self._tokenizer, self._given, f"the chat template {self._given.name}"
            )
        if self._tokenizer.chat_template is None:
            return None
        return ChatTemplate(self._tokenizer, None, f"the chat template in {self._directory}")

    def _checked_chat(self) -> ChatTemplate:
        """The chat template; the first time, it is looked at, and said what there is to say."""
        if self._chat is None:
            raise UserError(
                "this model brings no chat template, and its name does not say which fits: name "
                f"one with --template ({', '.join(NEEDS)}, or a Jinja file), or use --raw",
                "this model has no chat template: ask /v1/completions for what follows on a text",
            )
        if not self._looked:
            self._chat.check()
            self._looked = True
            if self._given is not None:
                self._explain(self._given)
        return self._chat

    def _explain(self, template: Template) -> None:
        """Say what a person should know of a template that is not the model's own."""
        if template.chosen_by:
            self._say(
                f"this model brings no chat template: {template.name} is taken, by its name "
                f"{template.chosen_by} (--template changes that)"
            )
        if lacking := [token for token in template.needs if not self._has(token)]:
            self._say(
                f"this model's tokenizer has no {', '.join(lacking)}, which the chat template "
                f"{template.name} writes: the model may not know it"
            )

    def _has(self, token: str) -> bool:
        """Whether a token that a template needs is there, as one token."""
        if token == END:
            return self._tokenizer.eos_token is not None
        return self.tokens(token) == [self.backend.token_to_id(token)]


def _tokenizer(directory: Path) -> Any:
    """As transformers reads it. Raises UserError."""
    from transformers import AutoTokenizer

    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        refuse_pointer(directory / name)
    try:
        return AutoTokenizer.from_pretrained(
            directory,
            local_files_only=True,
            trust_remote_code=False,  # else it asks the user whether to run what the folder brings
        )
    except Exception as error:  # it trusts what the files say: nearly any of them
        said = " ".join(str(error).split())
        reason = said if said and not isinstance(error, KeyError) else f"{error!r}"
        raise UserError(
            f"the tokenizer in {directory} cannot be read ({textwrap.shorten(reason, 300)}): mend "
            "its files, or take another model; code that comes with a model is never run"
        ) from error


def _eos(*files: Path) -> frozenset[int]:
    """The ids that end an answer, from the first file that names any: an id or a list."""
    from gardener.model.checkpoint.config import EndConfig, checked

    for file in files:
        if file.exists():
            ids = checked(EndConfig, file, read_json(file), "mend the file").eos_token_id
            if ids is not None:
                return frozenset(ids if isinstance(ids, tuple) else (ids,))
    return frozenset()
