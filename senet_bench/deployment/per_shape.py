"""A network that is run by something made of it for each shape of images."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from torch import nn

Run = TypeVar("Run")


class PerShape(nn.Module, Generic[Run]):
    """`runs` is what was made of its weights, by shape; anew once they were loaded or have moved.

    Copies and files of `torch.save` hold none of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[object, Run] = {}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.runs.clear()
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.runs.clear()
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "runs": {}}
