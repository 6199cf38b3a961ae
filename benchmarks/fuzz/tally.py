"""What came of a run: how often each sentence was heard, what went wrong, what the process took."""

import gc
import re
from collections import Counter
from dataclasses import dataclass, field

import psutil

MOST_KEPT = 4000
"""Inputs that are kept to be changed further."""

LONGEST = 2048
"""Bytes of the longest of these: longer ones take their time and say nothing more."""


@dataclass(frozen=True)
class Taken:
    """Bytes in memory and open files of this process."""

    memory: int
    files: int

    @classmethod
    def now(cls) -> "Taken":
        """After all that can be freed was."""
        gc.collect()
        return cls.of(psutil.Process())

    @classmethod
    def of(cls, process: psutil.Process) -> "Taken":
        """Of another process."""
        return cls(process.memory_info().rss, process.num_fds())

    def __str__(self) -> str:
        return f"{self.memory / 2**20:.1f} MiB, {self.files} files"


@dataclass
class Tally:
    """`corpus`: inputs that are changed; those that brought something new are added."""

    corpus: list[bytes] = field(default_factory=list)
    heard: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def hear(self, sentence: str, given: bytes = b"") -> None:
        """This was said of an input."""
        kind = shape(sentence)
        wanted = given and len(given) <= LONGEST and len(self.corpus) < MOST_KEPT
        if wanted and kind not in self.heard:
            self.corpus.append(given)
        self.heard[kind] += 1

    def fault(self, what: str) -> None:
        """Something that must not be."""
        self.faults.append(what)

    def common(self, most: int) -> list[str]:
        """The sentences that were heard most often."""
        return [f"{count:9,}  {kind}" for kind, count in self.heard.most_common(most)]


def shape(sentence: str) -> str:
    """A sentence without its figures and quotations: what it has in common with its like."""
    sentence = sentence.partition("broke the protocol: ")[2] or sentence
    sentence = re.sub(r"'[^']*'|`[^`]*`|\"[^\"]*\"|\[[^\]]*\]|\([^)]*\)", "_", sentence)
    return re.sub(r"-?\d[\d.]*(e[+-]\d+)?", "#", sentence)[:160]
