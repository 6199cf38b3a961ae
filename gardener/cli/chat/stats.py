"""What `/stats` says of the last answer and of the whole chat."""

from collections.abc import Sequence

from gardener.cli.chat.source import TurnFigures


def lines(answers: Sequence[TurnFigures], used: str) -> list[str]:
    """`used`: how much of the context is."""
    if not answers:
        return ["nothing was answered yet"]
    last = answers[-1]
    return [
        _line("last answer", _pace(last), f"ended: {last.finish}"),
        _line("its prompt", _prompt(last), *_policy(last)),
        _line("its guesses", *_guesses([last])),
        _line("this chat", *_whole(answers)),
        _line("all guesses", *_guesses(answers)),
        _line("context", used),
    ]


def _line(name: str, *facts: str) -> str:
    return f"{name:<13}{', '.join(fact for fact in facts if fact)}"


def _pace(figures: TurnFigures) -> str:
    """Tokens and times of one answer."""
    facts = [f"{figures.tokens} tokens"]
    if figures.rate is not None:
        facts.append(f"{figures.rate:.1f} tokens/s")
    if figures.first is not None:
        facts.append(f"first text after {figures.first:.2f} s")
    return ", ".join(facts)


def _prompt(figures: TurnFigures) -> str:
    if figures.prompt is None:
        return "nobody says how long it was"
    cached = "" if figures.cached is None else f", {figures.cached} of them cached"
    return f"{figures.prompt} tokens{cached}"


def _policy(figures: TurnFigures) -> list[str]:
    return [] if figures.policy is None else [f"policy {figures.policy}"]


def _guesses(answers: Sequence[TurnFigures]) -> list[str]:
    """Sums over the answers of which the figure is known."""
    sums = [
        (name, [value for each in answers if (value := getattr(each, name)) is not None])
        for name in ("accepted", "drafted", "missed")
    ]
    facts = [f"{sum(values)} {name}" for name, values in sums if values]
    segments = sum(each.segments or 0 for each in answers)
    if segments:
        tokens = sum(each.tokens for each in answers if each.segments)
        facts.append(f"{tokens / segments:.2f} tokens a segment")
    return facts or ["nobody says what became of them"]


def _whole(answers: Sequence[TurnFigures]) -> list[str]:
    seconds = sum(each.decode for each in answers if each.rate is not None)
    tokens = sum(each.tokens - 1 for each in answers if each.rate is not None)
    cached = [each.cached for each in answers if each.cached is not None]
    facts = [
        f"{len(answers)} answer{'s' * (len(answers) > 1)}",
        f"{sum(each.tokens for each in answers)} tokens",
    ]
    facts += [f"{tokens / seconds:.1f} tokens/s"] if seconds else []
    return facts + ([f"{sum(cached)} tokens of prompts cached"] if cached else [])
