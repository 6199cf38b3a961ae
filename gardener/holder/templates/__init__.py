"""Chat templates that come with the package, for models that bring none, and which fits a model.

Each is a Jinja file in this folder, rendered as transformers renders a model's own. Beside what
transformers passes on, they know `tokenizer_bos`: the BOS token where this tokenizer puts one
before any text, else nothing. Templates that were published with a BOS write `bos_token`; the
others leave it to the tokenizer, as those did who trained with them.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from gardener.errors import UserError, reason

END = "eos_token"
"""Among what a template needs: the tokenizer names the token that ends a text."""

NEEDS: dict[str, tuple[str, ...]] = {
    "alpaca": (END,),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "llama-2": (END,),
    "llama-3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": (END,),
    "phi-3": ("<|user|>", "<|assistant|>", "<|end|>"),
    "vicuna": (END,),
    "zephyr": (END,),
}
"""The templates of the package, and the tokens that the tokenizer must have for them."""

NAMED_AFTER = {
    re.compile(pattern): template
    for pattern, template in (
        (r"(lmsys-)?vicuna-\d+b-v?1\.[1-9]", "vicuna"),
        (r"(meta-)?llama-2-\d+b-chat", "llama-2"),
        (r"codellama-(7|13|34)b-instruct", "llama-2"),
        (r"(meta-)?llama-3-(8|70)b-instruct", "llama-3"),
        (r"mistral-7b-instruct-v?0\.[12]", "mistral"),
        (r"mixtral-8x7b-instruct-v?0\.1", "mistral"),
        (r"zephyr-7b-(alpha|beta)", "zephyr"),
        (r"tinyllama-1\.1b-chat-v?1\.0", "zephyr"),
        (r"gemma-((1\.1|2|3)-)?\d+b-it", "gemma"),
        (r"phi-3(\.5)?-(mini|medium)-(\d+k-)?instruct", "phi-3"),
        (r"openhermes-2(\.5)?-mistral-7b", "chatml"),
        (r"yi-\d+b-chat", "chatml"),
        (r"(stanford-)?alpaca-\d+b", "alpaca"),
    )
}
"""How names of models begin that were trained with a template of the package: those that are sure.
Names are compared in small letters, with - for _ and blanks."""


@dataclass(frozen=True)
class Template:
    """A chat template. `name`: of the package, or the file it was read from; `text`: Jinja;
    `needs`: see `NEEDS`; `chosen_by`: the name of the model that it was chosen for, else empty."""

    name: str
    text: str
    needs: tuple[str, ...] = ()
    chosen_by: str = ""

    def __str__(self) -> str:
        return f"{self.name} (chosen by the name {self.chosen_by})" if self.chosen_by else self.name


def named(name: str, chosen_by: str = "") -> Template:
    """A template of the package. Raises KeyError."""
    needs = NEEDS[name]
    text = (files(__package__) / f"{name}.jinja").read_text(encoding="utf-8")
    return Template(name, text, needs, chosen_by)


def read(wanted: str) -> Template:
    """The template that somebody named: one of the package, or a Jinja file. Raises UserError."""
    if wanted in NEEDS:
        return named(wanted)
    path = Path(wanted).expanduser()
    if not wanted.strip() or not path.exists():
        raise UserError(
            f"there is no chat template {wanted!r}: name one of {', '.join(NEEDS)}, or a Jinja file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"the chat template {wanted} cannot be read: {reason(error)}") from error
    if not text.strip():
        raise UserError(f"the chat template {wanted} is empty: give a Jinja file")
    return Template(wanted, text)


def choose(names: Iterable[str], has: Callable[[str], bool]) -> Template | None:
    """The template that a model of these names was trained with, where that is sure: its names say
    one only, and the tokenizer `has` what it needs."""
    found = {template: name for name in names for template in _named_after(name)}
    if len(found) != 1:
        return None
    ((template, name),) = found.items()
    return named(template, name) if all(map(has, NEEDS[template])) else None


def _named_after(name: str) -> Iterable[str]:
    plain = re.sub(r"[_\s]", "-", name.strip().lower())
    return (template for pattern, template in NAMED_AFTER.items() if pattern.match(plain))


def names_of(model: str, folder: Path, config: dict[str, object]) -> list[str]:
    """What a model is called: by the user, by its folder, and by its `config.json`; without owners
    and places. A snapshot of the hub lies below a folder that has the name."""
    said = config.get("_name_or_path")
    given = [model, os.path.abspath(folder), said if isinstance(said, str) else ""]
    if folder.parent.name == "snapshots":
        given.append(folder.parent.parent.name.replace("--", "/"))
    last = (Path(each).name for each in given)
    return list(dict.fromkeys(name for name in last if name))
