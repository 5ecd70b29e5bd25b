"""Calls of a module with other tensors in the place of its parameters and buffers.

`torch.func.functional_call` swaps the tensors inside the module and swaps them back, so
that two threads that share a module see each other's tensors. Here the call runs on a
copy of the module's structure, which shares everything else with the module and is
dropped afterward: the module itself is never written to.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping
from types import CellType, FunctionType, MethodType
from typing import Any, TypeVar

from torch import Tensor, nn

from innerloop.engine.errors import InnerloopError

M = TypeVar("M", bound=nn.Module)

_ORIGINAL = "_original"  # attribute of a copy
_LEAVES = frozenset({type(None), bool, int, float, complex, str, bytes, type})
_EMPTY = frozenset(vars(nn.Module()))  # the attributes that every module has
_HOOKS = frozenset(name for name in _EMPTY if "hooks" in name)


def functional_call(
    module: nn.Module, tensors: Mapping[str, Tensor], args: tuple[Any, ...]
) -> Any:
    """`module(*args)` with `tensors` in the place of its parameters and buffers, by
    name.

    As in torch, a tensor that the module holds under several names is replaced under
    all of them. Unlike in torch, threads do not see each other's tensors, and what
    `forward` assigns to attributes of the module is lost, unless all tensors are the
    module's own.
    """
    return substituted(module, tensors)(*args)


def substituted(module: M, tensors: Mapping[str, Tensor]) -> M:
    """A copy of the module's structure with `tensors` in the place of parameters and
    buffers, by name; all else is shared. The module itself where all are its own.

    Submodules are copied wherever an attribute refers to them: also in lists,
    dictionaries, bound methods and closures.

    Raises InnerloopError for a name that is neither a parameter nor a buffer.
    """
    new: dict[int, Any] = {}
    for name, tensor in tensors.items():
        own = _tensor(module, name)
        if own is not tensor:
            new[id(own)] = tensor
    return _Copier(new).module(module) if new else module


def original(module: nn.Module) -> nn.Module:
    """The module that `module` is a copy of, or itself."""
    return module.__dict__.get(_ORIGINAL, module)


def trainable_names(module: nn.Module) -> list[str]:
    """The names of the parameters that are not frozen, also where `module` is a copy
    with other tensors.
    """
    return [
        name
        for name, p in original(module).named_parameters()
        if p.requires_grad or not isinstance(p, nn.Parameter)
    ]


def frozen_modules(module: nn.Module) -> set[nn.Module]:
    """The submodules that have parameters of which none requires a gradient, with all
    that is inside them.
    """
    own = list(module.parameters())
    if all(p.requires_grad for p in own):
        return set()
    if not any(p.requires_grad for p in own):
        return set(module.modules())
    return set().union(*(frozen_modules(child) for child in module.children()))


def named_tensors(
    module: nn.Module,
) -> tuple[dict[str, nn.Parameter], dict[str, Tensor]]:
    """`dict(module.named_parameters())` and `dict(module.named_buffers())`, in less
    time.
    """
    parameters: dict[str, nn.Parameter] = {}
    buffers: dict[str, Tensor] = {}
    seen = set[int]()

    def visit(part: nn.Module, prefix: str) -> None:
        for found, own in ((parameters, part._parameters), (buffers, part._buffers)):
            for name, tensor in own.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[prefix + name] = tensor  # pyright: ignore[reportArgumentType]
        for name, child in part._modules.items():
            if child is not None:
                visit(child, f"{prefix}{name}.")

    visit(module, "")
    return parameters, buffers


def _tensor(module: nn.Module, name: str) -> Tensor:
    *path, last = name.split(".")
    try:
        for part in path:
            module = module._modules[part]  # pyright: ignore[reportAssignmentType]
        tensor = module._parameters.get(last)
        tensor = module._buffers[last] if tensor is None else tensor
    except (KeyError, AttributeError):
        tensor = None
    if tensor is None:
        raise InnerloopError(
            f"{type(module).__name__} has no parameter or buffer {name!r}"
        )
    return tensor


class _Copier:
    """Copies structure; `new` holds what stands for an object, by its id."""

    def __init__(self, new: dict[int, Any]):
        self.new, self.open = new, set[int]()

    def module(self, module: M) -> M:
        found = self.new.get(id(module))
        if found is not None:
            return found
        twin = object.__new__(type(module))
        self.new[id(module)] = twin
        attributes = module.__dict__.copy()
        twin.__dict__ = attributes
        new = self.new
        for name in ("_parameters", "_buffers"):
            attributes[name] = {
                n: new.get(id(t), t) for n, t in attributes[name].items()
            }
        attributes["_modules"] = {
            name: child if child is None else self.module(child)
            for name, child in attributes["_modules"].items()
        }
        for name, value in module.__dict__.items():
            if name in _EMPTY:
                if value and name in _HOOKS:
                    attributes[name] = self.value(value)
            elif type(value) not in _LEAVES:
                attributes[name] = self.value(value)
        attributes[_ORIGINAL] = original(module)
        return twin

    def value(self, value: Any) -> Any:
        """What stands for a value: itself where nothing in it is replaced."""
        kind = type(value)
        if kind in _LEAVES:
            return value
        found = self.new.get(id(value))
        if found is not None:
            return found
        if isinstance(value, nn.Module):
            return self.module(value)
        copier = _COPIERS.get(kind)
        if copier is None or id(value) in self.open:  # it contains itself
            return value
        self.open.add(id(value))
        twin = copier(self, value)
        self.open.remove(id(value))
        return twin

    def sequence(self, value: Any) -> Any:
        twins = [self.value(item) for item in value]
        same = all(a is b for a, b in zip(value, twins, strict=True))
        return value if same else type(value)(twins)

    def mapping(self, value: Any) -> Any:
        twins = [self.value(item) for item in value.values()]
        same = all(a is b for a, b in zip(value.values(), twins, strict=True))
        return value if same else type(value)(zip(value, twins, strict=True))

    def method(self, value: MethodType) -> Any:
        owner = self.value(value.__self__)
        return value if owner is value.__self__ else MethodType(value.__func__, owner)

    def partial(self, value: functools.partial[Any]) -> Any:
        parts = [value.func, value.args, value.keywords]
        function, args, named = (self.value(part) for part in parts)
        return functools.partial(function, *args, **named)

    def function(self, value: FunctionType) -> Any:
        cells = value.__closure__
        if not cells:
            return value
        twins = []
        for cell in cells:
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                twins.append(cell)
                continue
            twin = self.value(content)
            twins.append(cell if twin is content else CellType(twin))
        if all(a is b for a, b in zip(cells, twins, strict=True)):
            return value
        made = FunctionType(
            value.__code__,
            value.__globals__,
            value.__name__,
            value.__defaults__,
            tuple(twins),
        )
        made.__kwdefaults__ = value.__kwdefaults__
        return functools.update_wrapper(made, value)


_COPIERS: dict[type, Any] = {
    list: _Copier.sequence,
    tuple: _Copier.sequence,
    dict: _Copier.mapping,
    OrderedDict: _Copier.mapping,
    MethodType: _Copier.method,
    functools.partial: _Copier.partial,
    FunctionType: _Copier.function,
}
