"""An accelerator made of the CPU: tensors that say they are elsewhere, and refuse to meet those that are not.

A tensor made on `DEVICE` within `another_device()` is one of the CPU under a name of its own. An operation of it and of
a plain tensor of more than one number fails, as it does between two devices, and so does `numpy()`; `cpu()` and `to()`
carry it over. So code that mixes devices is found where there is no other.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

DEVICE = "cuda"
_CARRIED = {torch.Tensor.to, torch.Tensor.cpu}
_INDEXED = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}


class Elsewhere(torch.Tensor):
    """A tensor of the other device."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        named = dict(named or {})
        if function == torch.Tensor.device.__get__:
            return torch.device(DEVICE)
        if function in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError(f"can't convert a {DEVICE} tensor to numpy; use Tensor.cpu() first")
        if function in _CARRIED:
            return _carried(function, arguments, named)
        if _mixed(function, arguments, named):
            raise RuntimeError(f"{getattr(function, '__name__', function)}: tensors of {DEVICE} and of cpu meet")
        if "device" in named:
            named["device"] = "cpu"
        made = super().__torch_function__(function, types, arguments, named)
        return _tagged(made)


class _Factories(TorchFunctionMode):
    """Tensors that are asked for on DEVICE are made on the CPU and named."""

    def __torch_function__(self, function, types, arguments=(), named=None):
        named = dict(named or {})
        asked = named.get("device")
        carried = function == torch.Tensor.to and any(_is_elsewhere(a) for a in arguments[1:])
        if carried or _is_elsewhere(asked):
            if function == torch.Tensor.to:
                return _carried(function, arguments, named)
            named["device"] = "cpu"
            return _tagged(_plain(function(*_bare(arguments), **named)))
        return function(*arguments, **named)


@contextmanager
def another_device() -> Iterator[str]:
    """The name of a device that is none, for as long as it is."""
    with _Factories():
        yield DEVICE


def _carried(function, arguments, named):
    """`to` and `cpu`: to where they say, or where they are."""
    first, *rest = arguments
    target = named.get("device", next((a for a in rest if isinstance(a, str | torch.device | torch.Tensor)), None))
    if function == torch.Tensor.cpu:
        target = "cpu"
    if isinstance(target, torch.Tensor):
        target = target.device
    there = isinstance(first, Elsewhere) if target is None else _is_elsewhere(target)
    types = [a for a in (*rest, *named.values()) if isinstance(a, torch.dtype)]
    types += [a.dtype for a in rest if isinstance(a, torch.Tensor)]
    with torch._C.DisableTorchFunctionSubclass():
        bare = first.as_subclass(torch.Tensor)
        bare = bare.to(types[0]) if types else bare
        return bare.as_subclass(Elsewhere) if there else bare


def _mixed(function, arguments, named) -> bool:
    """Whether tensors of two devices meet where they may not: a copy takes both, and a tensor an index of the CPU."""
    if function == torch.Tensor.copy_ or (function in _INDEXED and isinstance(arguments[0], Elsewhere)):
        return False
    return any(not isinstance(t, Elsewhere) and t.dim() > 0 for t in _tensors((arguments, named)))


def _is_elsewhere(device) -> bool:
    if isinstance(device, torch.Tensor):
        return isinstance(device, Elsewhere)
    return isinstance(device, str | torch.device) and torch.device(device).type == DEVICE


def _tensors(value) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for own in value.values():
            yield from _tensors(own)
    elif isinstance(value, tuple | list):
        for own in value:
            yield from _tensors(own)


def _plain(made):
    return made.as_subclass(torch.Tensor) if isinstance(made, Elsewhere) else made


def _bare(arguments):
    with torch._C.DisableTorchFunctionSubclass():
        return tuple(a.as_subclass(torch.Tensor) if isinstance(a, Elsewhere) else a for a in arguments)


def _tagged(made):
    if isinstance(made, torch.Tensor) and not isinstance(made, Elsewhere):
        with torch._C.DisableTorchFunctionSubclass():
            return made.as_subclass(Elsewhere)
    if isinstance(made, tuple) and type(made) is tuple:
        return tuple(_tagged(one) for one in made)
    return made
