"""The recordings by prompt and sampling, and which of them each request in the ring plays back."""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from gardener.errors import LocalError
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.protocol.tensors import Tensor
from gardener.rings.simulate.recording import Recording, what_counts


class Library:
    """Shared by the stages of one simulated ring, which all are in this process.

    taps  which features the recordings have, in this order
    eos   tokens that end a text for good
    """

    def __init__(
        self,
        recordings: Iterable[Recording] = (),
        taps: Sequence[int] = (),
        eos: frozenset[int] = frozenset(),
    ) -> None:
        self.taps, self.eos = tuple(taps), eos
        self._held: dict[Sampling, dict[tuple[int, ...], Recording]] = {}  # by prompt
        self._playing: dict[int, Recording] = {}
        for recording in recordings:
            self.add(recording)

    def add(self, recording: Recording) -> None:
        """In place of one of the same prompt and sampling, if there is one."""
        by_prompt = self._held.setdefault(what_counts(recording.sampling), {})
        by_prompt[recording.tokens[: recording.prompt]] = recording

    def get(self, prompt: Sequence[int], sampling: Sampling = GREEDY) -> Recording | None:
        """The recording of this prompt, picked like this, if there is one."""
        return self._held.get(what_counts(sampling), {}).get(tuple(prompt))

    def beginning(self, text: Sequence[int], sampling: Sampling = GREEDY) -> Recording | None:
        """One that begins with this text and is picked like this, if there is one."""
        start = tuple(text)
        every = self._held.get(what_counts(sampling), {}).values()
        return next((r for r in every if r.tokens[: len(start)] == start), None)

    def play(
        self,
        request: int,
        text: Sequence[int],
        whole: bool,
        sampling: Sampling = GREEDY,
        written: int = 0,
    ) -> Recording:
        """Choose the recording for a request whose prompt is `text`, or begins with it if it is not
        `whole`. `written`: so many of its last tokens are of the answer, which goes on. Raises
        LocalError if there is none."""
        if whole:
            found = self.get(text[: len(text) - written], sampling)
        else:
            found = self.beginning(text, sampling)
        if found is None:
            raise LocalError(
                f"nothing was recorded for this prompt{_how(sampling)}: it must be prepared first"
            )
        self._playing[request] = found
        return found

    def forget(self, request: int) -> None:
        self._playing.pop(request, None)

    def follows(self, recording: Recording, position: int) -> int:
        """The token after this position of the text. Raises LocalError where the recording ends."""
        tokens = recording.tokens
        if position + 1 < len(tokens):
            return tokens[position + 1]
        if tokens[-1] in self.eos:
            return 0  # nobody asks what comes after the end
        raise LocalError(
            f"an answer is longer than the {len(tokens) - recording.prompt} tokens that were "
            "recorded: more must be prepared"
        )

    def features(
        self, request: int, tap: int, positions: NDArray[np.int64], true: NDArray[np.bool_]
    ) -> Tensor:
        """One feature of the rows at these positions; zeros where a row is not true to the text."""
        recorded = self._playing[request].features.numpy()
        width = recorded.shape[1] // len(self.taps)
        first = self.taps.index(tap) * width
        rows = np.zeros((len(positions), width), np.float32)
        known = true & (positions < len(recorded))
        rows[known] = recorded[positions[known], first : first + width]
        return Tensor("float32", rows.shape, rows.tobytes())


def _how(sampling: Sampling) -> str:
    """What to say of settings: those that are not as usual."""
    told = [
        f"{name}={value}"
        for name, value in msgspec.structs.asdict(what_counts(sampling)).items()
        if value != getattr(GREEDY, name)
    ]
    return f" with {', '.join(told)}" if told else ""
