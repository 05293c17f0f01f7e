"""A user's formulas for work that no counter here knows: by the name of an operator or of a module's class."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from senet_bench.core.foreign import contained
from senet_bench.core.source import imported
from senet_bench.errors import MeasurementError, UsageError

LARGEST_COUNT = 2**62
"""The most multiply-adds that one call is taken to have."""
FORM = 'a formula is written {"fft_c2c": lambda x, *rest, out_shape: x[-1] * 10}'
Formula = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class CountedCall:
    """A call of an operator or a module: what it was given and what it gave."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any


@dataclass(frozen=True, slots=True)
class Formulas:
    """Formulas by the name of what they are of, and the import string that they were found by.

    A name is an operator's, as a row's `uncounted` has it (`fft_c2c`, `mylib.mix`), or that of a module's class,
    `Mixer` or `package.module.Mixer`, whose forward pass is then counted by its formula alone. A formula is given what
    the call was given, each tensor as the tuple of its sides, and `out_shape` where it has such a parameter; it returns
    multiply-adds.
    """

    source: str
    functions: Mapping[str, Formula]

    def name_of(self, kind: type) -> str | None:
        """The name by which modules of a class have a formula, None where they have none."""
        names = (f"{kind.__module__}.{kind.__qualname__}", kind.__name__)
        return next((name for name in names if name in self.functions), None)

    def operations(self, name: str, call: CountedCall) -> int | None:
        """The multiply-adds of a call, None without a formula; whatever fails is a `MeasurementError` that names it."""
        formula = self.functions.get(name)
        if formula is None:
            return None
        args, kwargs = _shapes(tuple(call.args)), {key: _shapes(value) for key, value in call.kwargs.items()}
        where = f"the formula {name!r} of {self.source}"
        with contained(where):
            signature = _signature(formula)
            if signature is not None and "out_shape" in signature.parameters:
                kwargs["out_shape"] = _shapes(call.out)
            try:
                if signature is not None:
                    signature.bind(*args, **kwargs)
            except TypeError as error:
                given = ", ".join([*map(str, args), *(f"{key}={value}" for key, value in kwargs.items())])
                raise MeasurementError(f"{where} does not take ({given}): {error}", FORM) from error
            amount = formula(*args, **kwargs)
        number = float(amount) if isinstance(amount, numbers.Real) else -1.0
        if not 0 <= number <= LARGEST_COUNT or not number.is_integer():
            raise MeasurementError(
                f"{where} gives {str(amount)[:40]!r}", f"give a whole number from 0 to {LARGEST_COUNT:,}"
            )
        return int(amount)


def formulas_at(path: str) -> Formulas:
    """The formulas at an import string, `package.module:name` of a mapping; `UsageError` for anything else."""
    functions = imported(path, "formulas")
    if not isinstance(functions, Mapping) or not functions:
        raise UsageError(f"formulas {path!r}: {type(functions).__name__} is no mapping, or empty", FORM)
    for name, formula in functions.items():
        if not isinstance(name, str) or not callable(formula):
            raise UsageError(f"formulas {path!r}: {str(name)[:40]!r} has no function", FORM)
    return Formulas(path, dict(functions))


def _signature(formula: Formula) -> inspect.Signature | None:
    try:
        return inspect.signature(formula)
    except (TypeError, ValueError):
        return None


def _shapes(value: Any) -> Any:
    """A value with the tuple of its sides in the place of every tensor."""
    if isinstance(value, tuple | list):
        return type(value)(map(_shapes, value)) if type(value) in (tuple, list) else tuple(map(_shapes, value))
    shape = getattr(value, "shape", None)
    return value if shape is None or isinstance(value, type) else tuple(map(int, shape))
