"""Dialogues of all roles in chat templates: what stands in the prompt, and what must not vanish."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import words

from gardener.errors import UserError
from gardener.holder.prompter import Prompter, TooLong
from gardener.model.checkpoint.resolve import resolve

QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first)
           or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for call in message.tool_calls %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content }}
        {{- '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
"""What is alike in the templates of Qwen 2.5 and 3."""

PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
NO_TOOL = """{% for m in messages if m.role != 'tool' %}[{{ m.role }}]{{ m.content }}
{%- endfor %}[assistant]"""
FIRST_SYSTEM = """{% for m in messages %}{% if m.role != 'system' or loop.first %}[{{ m.role }}]
{{- m.content }}{% endif %}{% endfor %}[assistant]"""

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": {}}}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": {"at": "☕"}}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str, *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **({"tool_calls": list(calls)} if calls else {})}


def tool(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": "1"}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("weights")
    tiny.make("llama", folder, vocab_size=words.ROWS, max_position_embeddings=1024)
    return (folder / "config.json").read_bytes()


def prompter(config: bytes, folder: Path, template: str, **options: Any) -> Prompter:
    (folder / "config.json").write_bytes(config)
    words.name_bytes(folder, ["<|im_start|>", "<|im_end|>"], template, adds_bos=False)
    return Prompter(folder, **options)


def written(asked: Prompter, *messages: dict[str, Any], **more: Any) -> str:
    return str(asked.backend.decode(asked.chat(messages, **more), skip_special_tokens=False))


def test_all_roles_are_written_as_the_template_has_them(config: bytes, tmp_path: Path) -> None:
    asked = prompter(config, tmp_path, QWEN)
    assert asked.takes_tools
    got = written(
        asked,
        system("Be brief."),
        user("Look."),
        said("", CALL, CALL),
        tool("It is black."),
        tools=[TOOL],
    )
    call = '<tool_call>\n{"name": "look", "arguments": {"at": "☕"}}\n</tool_call>'
    assert got == (
        "<|im_start|>system\nBe brief.\n\n# Tools\n<tools>\n"
        '{"type": "function", "function": {"name": "look", "parameters": {}}}\n</tools><|im_end|>\n'
        "<|im_start|>user\nLook.<|im_end|>\n"
        f"<|im_start|>assistant\n{call}\n{call}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nIt is black.\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_chat_is_what_encode_makes_of_the_same_turns(config: bytes, tmp_path: Path) -> None:
    asked = prompter(config, tmp_path, QWEN, system="Be brief.")
    history = [("Why?", "So.")]
    turns = [user("Why?"), said("So."), user("And?")]
    assert asked.chat(turns) == asked.encode("And?", history=history)
    other = asked.encode("And?", history=history, system="Be long.")
    assert asked.chat([system("Be long."), *turns]) == other
    assert asked.chat([system(""), *turns]) == asked.encode("And?", history=history, system="")


def test_an_answer_at_the_end_is_a_turn_like_others(config: bytes, tmp_path: Path) -> None:
    asked = prompter(config, tmp_path, PLAIN)
    assert written(asked, user("Why?"), said("So.")) == "[user]Why?[assistant]So.[assistant]"


def test_options_are_variables_of_the_template(config: bytes, tmp_path: Path) -> None:
    asked = prompter(config, tmp_path, QWEN)
    without = written(asked, user("Why?"), options={"enable_thinking": False, "unknown": 1})
    assert without == written(asked, user("Why?")) + "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    "name",
    ["add_generation_prompt", "tokenize", "messages", "conversation", "tools", "chat_template"],
)
def test_options_change_nothing_that_is_ours(config: bytes, tmp_path: Path, name: str) -> None:
    asked = prompter(config, tmp_path, PLAIN)
    with pytest.raises(UserError, match=f"{name} is not a variable of the chat template"):
        asked.chat([user("Why?")], options={name: True})


@pytest.mark.parametrize(
    ("template", "messages", "why"),
    [
        (NO_TOOL, [user("a"), said("b"), tool("c")], r"the text of message 3 \(role tool\) out"),
        (PLAIN, [user("a"), said("b", CALL), tool("c")], r"a call of message 2 \(role assistant\)"),
        (
            FIRST_SYSTEM,
            [system("a"), user("b"), system("a")],
            r"the text of message 3 .role system",
        ),
        (NO_TOOL, [tool("a")], "the text of message 1"),
    ],
)
def test_nothing_that_was_said_vanishes(
    config: bytes, tmp_path: Path, template: str, messages: list[dict[str, Any]], why: str
) -> None:
    """Though its text may stand elsewhere in the prompt."""
    with pytest.raises(UserError, match=why):
        prompter(config, tmp_path, template).chat(messages)


def test_a_template_that_takes_no_tools_is_known(config: bytes, tmp_path: Path) -> None:
    assert not prompter(config, tmp_path, PLAIN).takes_tools


def test_a_template_may_refuse_an_order_of_roles(config: bytes, tmp_path: Path) -> None:
    refuses = PLAIN + (
        "{% if messages[0].role != 'user' %}{{ raise_exception('begin as user') }}{% endif %}"
    )
    with pytest.raises(UserError, match=r"failed \(begin as user\)"):
        prompter(config, tmp_path, refuses).chat([said("So."), user("Why?")])


def test_a_prompt_that_is_too_long_is_told_with_both_numbers(config: bytes, tmp_path: Path) -> None:
    asked = prompter(config, tmp_path, PLAIN)
    with pytest.raises(TooLong, match=r"the prompt has 2017 tokens, and .* may be 1024"):
        asked.chat([user("x" * 2000)])
    with pytest.raises(UserError, match="not UTF-8 text"):
        asked.chat([user("Why?"), said("\ud83d")])


def test_tokens_of_a_prompt_are_checked(config: bytes, tmp_path: Path) -> None:
    asked = prompter(config, tmp_path, PLAIN)
    assert asked.checked([5, 6]) == [5, 6]
    for tokens in ([-1], [words.ROWS]):
        with pytest.raises(UserError, match=rf"token {tokens[0]} .*tokens 0 to {words.ROWS - 1}"):
            asked.checked(tokens)


def test_the_next_turn_of_a_chat_begins_with_the_prompt_of_the_last_one() -> None:
    """With the built-in model: so its kept prefix serves."""
    asked = Prompter(resolve("smollm2-135m"))
    messages = [system("Be brief."), user("Name a colour."), said("Blue."), user("Another.")]
    begin = asked.chat(messages[:2])
    answer = asked.tokens("Blue.")
    assert asked.chat(messages)[: len(begin) + len(answer)] == begin + answer
