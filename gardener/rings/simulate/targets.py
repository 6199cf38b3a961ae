"""What the target model writes, recorded once for each prompt and kept in the cache folder.

Each prompt has a file for each way to pick. Its name follows from all that decides what is written:
the model, its dtype (float32), the features, the tokens that end an answer, the prompt, and the
sampling with its seed. It holds the number of
tokens that was wanted when it was made; where more are wanted, it is made anew."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gardener.errors import UserError, reason
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.resolve import HOME_ELSEWHERE, home
from gardener.model.checkpoint.tensors import fingerprint
from gardener.model.loader import Whole, load_whole
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.recording import Headway, Recording, record, what_counts
from gardener.runtime.files import make_folder, whole_file

LANES = 32
"""Answers that are computed at the same time: they share the reading of the weights."""

GROUP = 64
"""The number of prompts after which the recordings are saved."""


class Targets:
    """Fills a library with the answers of the model in a folder."""

    def __init__(
        self,
        folder: Path,
        eos: frozenset[int],
        taps: Sequence[int] = (),
        say: Callable[[str], None] = lambda text: None,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`eos`: tokens that end an answer. `taps`: the features that a drafter wants. `progress`
        is often told how far a recording is, and "" at its end.

        Raises UserError if there is no model in the folder.
        """
        self._folder, self._say, self._progress = folder, say, progress
        self.shape = Architecture.read(folder)
        self.fingerprint = fingerprint(folder)
        self.eos = eos
        # If no drafter wants features, those that most heads want: a later drafter may use them.
        self.library = Library(taps=tuple(taps) or (self.shape.layers,), eos=self.eos)

    def prepare(
        self,
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        sampling: Sampling = GREEDY,
    ) -> None:
        """Make sure that there are answers to these prompts, picked like this, with `new_tokens`
        tokens or up to their end. Takes a while for each prompt that was never recorded. Raises
        UserError, and ValueError for noise without a seed."""
        sampling = what_counts(sampling)
        count = new_tokens + 1  # a policy may send the row of the last token, which has a pick too
        wanted = dict.fromkeys(tuple(prompt) for prompt in prompts)
        missing = [prompt for prompt in wanted if not self._have(prompt, count, sampling)]
        if not missing:
            return
        whom = "1 prompt" if len(missing) == 1 else f"{len(missing)} prompts"
        make_folder(self._path(missing[0], sampling).parent, HOME_ELSEWHERE)
        self._say(f"recording what the model writes for {whom}, once")
        whole = load_whole(self._folder, dtype="float32", device="cpu")
        missing.sort(key=len)  # alike together: the longest decides what all lanes of a group take
        try:
            for first in range(0, len(missing), GROUP):
                self._record(whole, missing, first, count, sampling)
        finally:
            self._progress("")

    def _record(
        self,
        whole: Whole,
        missing: Sequence[tuple[int, ...]],
        first: int,
        count: int,
        sampling: Sampling,
    ) -> None:
        """Record one group of the missing prompts, which begins at `first`."""
        group = missing[first : first + GROUP]
        of = f" (group {first // GROUP + 1} of {-(-len(missing) // GROUP)})"

        def tell(headway: Headway) -> None:
            self._progress(f"recording{of if len(missing) > GROUP else ''}: {headway}")

        taps = self.library.taps
        for made in record(whole, group, count, self.eos, taps, LANES, tell, sampling):
            self._save(made)
            self.library.add(made)
        if len(missing) > GROUP:
            self._say(f"recorded {first + len(group)} of {len(missing)}")

    def _have(self, prompt: tuple[int, ...], new_tokens: int, sampling: Sampling) -> bool:
        """Whether that much of an answer is recorded, in the library or in a file."""
        if self._suffices(self.library.get(prompt, sampling), new_tokens):
            return True
        found = self._load(prompt, sampling)
        if found is not None:
            self.library.add(found)
        return self._suffices(found, new_tokens)

    def _suffices(self, recording: Recording | None, new_tokens: int) -> bool:
        if recording is None:
            return False
        written = len(recording.tokens) - recording.prompt
        return written >= new_tokens or recording.tokens[-1] in self.eos

    # --- on the disk -------------------------------------------------------------------------

    def _path(self, prompt: Sequence[int], sampling: Sampling) -> Path:
        key = ["float32", list(self.library.taps), sorted(self.eos), list(prompt)]
        if sampling != GREEDY:
            key.append(msgspec.to_builtins(sampling))
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
        model = self.fingerprint.replace(":", "-")
        return home() / "recordings" / model / f"{digest}.safetensors"

    def _load(self, prompt: tuple[int, ...], sampling: Sampling) -> Recording | None:
        path = self._path(prompt, sampling)
        if not path.exists():
            return None
        try:
            held = load_file(path)
            tokens = tuple(held["tokens"].tolist())
            features = held["features"]
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(f"{path} cannot be read ({reason(error)}): delete it") from error
        size = (len(self.library.taps) * self.shape.width,)
        if tokens[: len(prompt)] != prompt or features.shape[1:] != size:
            raise UserError(f"{path} is not what its name says: delete it")
        return Recording(tokens, len(prompt), features, sampling)

    def _save(self, recording: Recording) -> None:
        path = self._path(recording.tokens[: recording.prompt], recording.sampling)
        held = {
            "tokens": torch.tensor(recording.tokens, dtype=torch.int32),
            "features": recording.features.contiguous(),
        }
        with whole_file(path, HOME_ELSEWHERE) as draft:
            save_file(held, draft)
