"""Tracing with known sizes, for networks whose code asks for them: `if h % 8`, `range(w)`.

Every value of the graph carries the tensor it stands for, without memory, so that its sides are numbers; that of the
batch stays open. What is traced so is the network for images of that size alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from senet_bench.errors import UsageError

BATCH = 3
"""Images that values are made for; graphs are compared with their networks for another number of them."""


def _counted() -> UsageError:
    return UsageError(
        "its forward pass counts the images of a batch, or takes them one by one, for which a graph has no place",
        "let it take all images at once, or put the block into it yourself and compare both with --pair",
    )


class SizedProxy(fx.Proxy):
    """A value of a graph that knows its sides."""

    value: Any = None

    @property
    def shape(self) -> Any:
        """The sides, that of the batch open where the first is the batch's."""
        sides = tuple(self.value.shape)
        batch = self.tracer.create_proxy("call_method", "size", (self, 0), {}) if sides[:1] == (BATCH,) else None
        return sides if batch is None else (batch, *sides[1:])

    def size(self, dim: int | None = None) -> Any:
        """The sides, or one of them."""
        if dim is None:
            return self.shape
        first = dim % max(1, self.value.dim()) == 0 and self.value.shape[0] == BATCH
        return self.shape[0] if first else int(self.value.shape[dim])

    def __len__(self) -> int:
        """The first side, or how many values there are."""
        return len(self._whole())

    def __iter__(self) -> Iterator[Any]:
        """The parts along the first side, or the values of a tuple, as values of the graph."""
        whole: Any = self
        return (whole[place] for place in range(len(self)))

    def __index__(self) -> int:
        """Never: what is no plain number here is how many images there are."""
        raise _counted()

    def _whole(self) -> Any:
        """The value, unless its parts are those of a batch, which stays open."""
        several = isinstance(self.value, list | tuple)
        parts = self.value if several else [self.value]
        of_batch = [isinstance(part, Tensor) and part.shape[:1] == (BATCH,) for part in parts]
        if self.value is None or (False in of_batch if several else True in of_batch):
            raise _counted()
        return self.value

    def dim(self) -> int:
        """The number of dimensions."""
        return int(self.value.dim())

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return int(self.value.dim())


class Sized:
    """What makes values carry their tensors, beside an `fx.Tracer`: `prepare` first."""

    meta: nn.Module
    image: Tensor
    computing = False

    def prepare(self, meta: nn.Module, image: Tensor) -> None:
        """Take a copy of the network without memory, and the image that it is traced for."""
        self.meta, self.image = meta, image

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A value that knows its sides."""
        return SizedProxy(node, self)  # type: ignore[arg-type]

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **named: Any) -> Any:
        """The value of an operation."""
        made = super().create_proxy(kind, target, args, kwargs, *rest, **named)  # type: ignore[misc]
        if isinstance(made, SizedProxy) and kind != "output":
            given, options = (_values(one) for one in (args, kwargs))
            self.computing = True
            try:
                with torch.no_grad(), torch.device("meta"):
                    made.value = self._computed(kind, target, given, options)
            finally:
                self.computing = False
        return made

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The call of a module; one of the copy without memory is no part of the graph."""
        if self.computing:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)  # type: ignore[misc]

    def _computed(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        match kind:
            case "placeholder":
                return self.image
            case "get_attr":
                value: Any = self.meta
                for part in str(target).split("."):
                    value = getattr(value, part)
                return value
            case "call_module":
                return self.meta.get_submodule(target)(*args, **kwargs)
            case "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
        return target(*args, **kwargs)


def _values(given: Any) -> Any:
    """What is given, with the tensors that values stand for in their place."""
    return fx.node.map_aggregate(given, lambda one: one.value if isinstance(one, SizedProxy) else one)
