"""A stand-in for recorded work: it does the work again, and sees to it that a real recording would
have done the same; and what starts kernels."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from gardener.model.device.graphs import Recording

_WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten._unique2")
"""Operations whose result, or its size, this machine would have to wait for."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation: its name, its numbers, and address and shape of what it reads that the
    work has not made itself."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[object] = []
        self._own: list[Tensor] = []  # kept, or their memory would be taken for something else

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if name.startswith(_WAITS):
            raise AssertionError(f"recorded work waits for the device: {name}")
        made = {_memory(each) for each in self._own}
        parts, _ = tree_flatten((args, kwargs or {}))
        self.seen.append((name, *(_told(part, made) for part in parts)))
        out = func(*args, **(kwargs or {}))
        outputs = [each for each in tree_flatten(out)[0] if isinstance(each, Tensor)]
        taken = {_memory(part) for part in parts if isinstance(part, Tensor)} - made
        self._own += [each for each in outputs if _memory(each) not in taken]
        return out

    def own_among(self, made: Any) -> list[Tensor]:
        """What the work has made itself of what it gave."""
        own = {_memory(each) for each in self._own}
        parts = [each for each in tree_flatten(made)[0] if isinstance(each, Tensor)]
        return [each for each in parts if _memory(each) in own]


def _told(part: object, made: set[int]) -> object:
    if not isinstance(part, Tensor):
        return str(part)
    if part.is_mkldnn:
        return id(part)
    shape = tuple(part.shape), part.stride(), part.dtype
    return shape if _memory(part) in made else (part.data_ptr(), *shape)


def _memory(tensor: Tensor) -> int:
    """Where its storage is, which views share."""
    return id(tensor) if tensor.is_mkldnn else tensor.untyped_storage().data_ptr()


class Replaying:
    """A `Recorder` that counts. `replays`: how often it has replayed.

    As recordings share the memory that they compute in, what one gave is spoilt as soon as another
    one is replayed.
    """

    def __init__(self) -> None:
        self.recordings = self.replays = 0
        self._given: list[list[Tensor]] = []  # by recording

    def record(self, work: Callable[[], Any]) -> Recording:
        """See `Recorder`. The work is done twice by the first replay, as on a real device."""
        self.recordings += 1
        watch = _Watch()
        try:
            with watch:
                made = work()
        except RuntimeError as error:  # `Graphs` would go on without
            raise AssertionError(f"recorded work fails: {error}") from error
        given = watch.own_among(made)
        self._given.append(given)
        first = tree_map(_copied, made)

        def replay() -> None:
            self.replays += 1
            for others in self._given:
                if others is not given:
                    for tensor in others:
                        tensor.fill_(math.nan if tensor.is_floating_point() else -1)
            again = _Watch()
            with again:
                now = work()
            assert again.seen == watch.seen, _difference(watch.seen, again.seen)
            tree_map(_overwrite, made, now)

        return Recording(made, replay, first)


def _copied(made: object) -> object:
    return made.clone() if isinstance(made, Tensor) else made


def _overwrite(then: object, now: object) -> None:
    if isinstance(then, Tensor) and isinstance(now, Tensor) and then is not now:
        then.copy_(now)


def _difference(then: list[object], now: list[object]) -> str:
    for before, after in zip(then, now, strict=False):
        if before != after:
            return f"recorded {before}, but now it would be {after}"
    return f"{len(then)} operations were recorded, but now there are {len(now)}"


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What would start a kernel on a device, in turn; views and empty memory do not."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith(("empty", "_unsafe_view")):
            self.names.append(name)
        return func(*args, **(kwargs or {}))
