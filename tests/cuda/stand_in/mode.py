"""Each operation on the device runs for real, and is queued once more on the processor."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from stand_in import operations
from stand_in.aliases import CUDA, alias, names_device, on_device, seen_from_here
from stand_in.attention import ATTENTION, cudnn_outputs
from stand_in.copies import converted, copy
from stand_in.operations import aten
from stand_in.products import PRODUCTS
from stand_in.runtime import NotImitated, push, seen

_OWN = PRODUCTS | ATTENTION
"""Values that the processor has not, or with other bits."""

_POISONED = 64 << 20
"""Bytes up to which memory that is taken is filled with what is no number; more takes too long."""


_MASKS = (torch.bool, torch.uint8)


class Values(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Queues the values of what runs in this thread."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        parts, _ = tree_flatten((args, kwargs))
        if not any(names_device(part) for part in parts):
            return func(*args, **kwargs)
        with seen():
            return self._on_device(func, args, kwargs)

    def _on_device(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if operations.is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        if func is aten.copy_.default:
            return copy(*args, **kwargs)
        if func is aten._to_copy.default:
            return converted(*args, **kwargs)
        if operations.is_without_kernel(func):
            return func(*args, **kwargs)
        if _waits(func, args, kwargs):
            return _fetched(func, args, kwargs)
        return _computed(func, args, kwargs)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What the real operation gives, with its values under way."""
    _check(func, args)
    if func.overloadpacket is aten._scaled_dot_product_cudnn_attention:
        out = cudnn_outputs(*args, **kwargs)
    else:
        out = func(*args, **kwargs)
    if func.overloadpacket in operations.EMPTY:
        _poison(out)
    else:
        _queue(func, args, kwargs, tree_flatten(out)[0])
    return out


def _check(func: Any, args: Any) -> None:
    """Refuse what would come to other values than on a device."""
    own = func.overloadpacket in _OWN
    if not own and operations.is_random(func):
        raise NotImitated(f"{func}: random numbers, of which CUDA draws its own")
    if not own and not operations.has_kernel(func, "CPU"):
        raise NotImitated(f"{func}: the processor has no such kernel")
    if own and func._overloadname not in ("default", "out"):
        raise NotImitated(f"{func}: only the plain kernel is imitated")
    if operations.writes(func) and operations.makes(func):
        raise NotImitated(f"{func}: it writes, and gives something new")


def _queue(func: Any, args: Any, kwargs: dict[str, Any], outputs: list[Any]) -> None:
    own = _OWN.get(func.overloadpacket)
    if not operations.writes(func) and not any(on_device(each) for each in outputs):
        return
    parts, spec = tree_flatten((args, kwargs))
    here, how = tree_unflatten([seen_from_here(part) for part in parts], spec)
    how.pop("pin_memory", None)
    in_place = operations.writes(func) and own is None
    if own is not None:
        how.pop("out", None)
    targets = [alias(each) if on_device(each) else None for each in outputs]

    def work() -> None:
        made, _ = tree_flatten((own or func)(*here, **how))
        if not in_place:
            _fill(targets, made, str(func))

    push(work, str(func))


def _fill(targets: list[Tensor | None], made: list[Any], what: str) -> None:
    """Write values where the operation said that they would be."""
    if len(targets) != len(made):
        raise NotImitated(f"{what}: {len(made)} results for {len(targets)}")
    for target, values in zip(targets, made, strict=True):
        if target is None or not isinstance(values, Tensor):
            continue
        if target.shape != values.shape:
            raise NotImitated(f"{what}: {tuple(values.shape)} for {tuple(target.shape)}")
        target.copy_(values)


def _poison(out: Any) -> None:
    """In turn with everything else: what was there before may still be read by what is queued."""
    size, address = out.untyped_storage().nbytes(), out.untyped_storage().data_ptr()
    if out.is_cuda and 0 < size <= _POISONED:
        push(lambda: ctypes.memset(address, 0xFF, size), "poison")


def _waits(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether CUDA has to fetch something first. With masks it counts how many are set in them."""
    if func.overloadpacket not in (aten.index, aten.index_put, aten.index_put_):
        return operations.waits(func) and kwargs.get("output_size") is None
    if not any(isinstance(each, Tensor) and each.dtype in _MASKS for each in args[1]):
        return False
    if func.overloadpacket is aten.index:
        return True
    if args[2].numel() == 1 and len(args[1]) == 1:  # a fill, without counting
        return False
    raise NotImitated(f"{func}: written by a mask")


def _fetched(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Wait for the device, as the real one does, which is illegal while recording."""
    if not operations.has_kernel(func, "CUDA"):
        raise NotImplementedError(f"{func} has no kernel of CUDA")
    torch.cuda.current_stream().synchronize()
    parts, spec = tree_flatten((args, kwargs))
    here, how = tree_unflatten([seen_from_here(part) for part in parts], spec)
    return tree_map(_sent, func(*here, **how))


def _sent(part: Any) -> Any:
    return copy(torch.empty_like(part, device=CUDA), part) if isinstance(part, Tensor) else part
