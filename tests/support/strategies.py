"""Hypothesis strategies of what a user's disk and keyboard may hold: documents, configurations, command lines.

Sound documents are made from their types; damage makes of them what editors, disks and other versions do.
"""

from __future__ import annotations

import copy
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

RAW = {"RAW 400": "9" * 400, "RAW 5000": "9" * 5000, "RAW nan": "NaN", "RAW deep": "[" * 3000 + "]" * 3000}
"""What a writer does not write: it stands in a document as a text, and is put in when that is written."""
NAMES = ("seresnet20_cifar", "resnet50", "SE-ResNet-50", "digits", "m:Net", "a/b", "../x", "", "[/red]", "| $x$ <b>")
TEXTS = st.sampled_from((*NAMES, "\x00\x1b[31m\u202e", "\U0001f600", "x" * 300, "nan")) | st.text(max_size=5)
NUMBERS = st.sampled_from((0.0, -0.0, 1e-320, 1e308, -1e308, 0.1, 0.5, 1.0, -1.0, 3.0)) | st.floats(-10, 10)
WHOLE = st.sampled_from((0, 1, 2, 16, 2**31, 2**53 + 1, 2**63 - 1, -1)) | st.integers(-3, 40)
ODD = st.sampled_from((None, True, "", "x", -1, 0, 0.5, 1e308, 2**64, [], {}, [None], {"a": 1}, "9" * 400, *RAW))


def sound(kind: Any) -> st.SearchStrategy[Any]:
    """JSON values that are of a type, from its description by msgspec."""
    make = MADE.get(type(kind).__name__)
    return st.none() if make is None else make(kind)


def _bounded(values: st.SearchStrategy[Any]) -> Callable[[Any], st.SearchStrategy[Any]]:
    """Those of the values that lie within the bounds of a type."""

    def inside(kind: Any) -> st.SearchStrategy[Any]:
        bounds = (kind.ge, operator.ge), (kind.le, operator.le), (kind.gt, operator.gt), (kind.lt, operator.lt)
        return values.filter(lambda value: all(bound is None or fits(value, bound) for bound, fits in bounds))

    return inside


def _object(kind: Any) -> st.SearchStrategy[dict[str, Any]]:
    fields = {field.encode_name: sound(field.type) for field in kind.fields}
    needed = {field.encode_name: fields.pop(field.encode_name) for field in kind.fields if field.required}
    if getattr(kind, "tag", None) is not None:
        needed[kind.tag_field] = st.just(kind.tag)
    return st.fixed_dictionaries(needed, optional=fields)


def _list(kind: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(sound(kind.item_type), min_size=kind.min_length or 0, max_size=min(kind.max_length or 3, 3))


MADE: dict[str, Callable[[Any], st.SearchStrategy[Any]]] = {
    "DataclassType": _object,
    "StructType": _object,
    "UnionType": lambda kind: st.one_of(*map(sound, kind.types)),
    "LiteralType": lambda kind: st.sampled_from(kind.values),
    "ListType": _list,
    "VarTupleType": _list,
    "TupleType": lambda kind: st.tuples(*map(sound, kind.item_types)).map(list),
    "DictType": lambda kind: st.dictionaries(sound(kind.key_type), sound(kind.value_type), max_size=3),
    "FloatType": _bounded(NUMBERS),
    "IntType": _bounded(WHOLE),
    "BoolType": lambda _: st.booleans(),
    "StrType": lambda _: TEXTS,
}
"""What makes the values of a type, by msgspec's name of its kind."""


def of_kind(kind: Any, schema: str) -> st.SearchStrategy[Any]:
    """Sound documents of a type."""
    document: st.SearchStrategy[Any] = sound(inspect.type_info(kind))
    return document.map(lambda fields: {**fields, "schema": schema})


@st.composite
def damaged(draw: Any, document: Any) -> Any:
    """A document in which up to three values are another, missing, or in another place."""
    whole = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = [*_places(whole)]
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(("odd", "odd", "gone", "elsewhere", "renamed"))):
            case "odd":
                holder[key] = copy.deepcopy(draw(ODD))
            case "gone":
                del holder[key]
            case "elsewhere":
                other, name = draw(st.sampled_from(places))
                holder[key] = copy.deepcopy(other[name])
            case _ if isinstance(holder, dict):
                holder[draw(TEXTS)] = holder.pop(key)
    return whole


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in a tree of JSON, as what holds it and its key there."""
    keys: Sequence[Any] = [*tree] if isinstance(tree, dict) else [*range(len(tree))] if isinstance(tree, list) else []
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def written(document: Any) -> bytes:
    """A document as JSON in a file."""
    return _with_raw(json.dumps(document))


def toml(table: Any) -> bytes:
    """A table of a configuration as TOML, nothing of it over several lines."""
    lines = (f"{json.dumps(key)} = {_toml(value)}\n" for key, value in table.items() if value is not None)
    return _with_raw("".join(lines))


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        parts = (f"{json.dumps(key)} = {_toml(part)}" for key, part in value.items() if part is not None)
        return f"{{ {', '.join(parts)} }}"
    if isinstance(value, list):
        return f"[{', '.join(_toml(part) for part in value if part is not None)}]"
    return str(value) if isinstance(value, date) else json.dumps(value, ensure_ascii=False)


def _with_raw(text: str) -> bytes:
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode(errors="replace")


@st.composite
def cut(draw: Any, data: bytes) -> Any:
    """Bytes of a file of which some are lost or others."""
    place = draw(st.integers(0, len(data)))
    match draw(st.sampled_from(("ended", "other", "lost"))):
        case "ended":
            return data[:place]
        case "other":
            return data[:place] + draw(st.binary(min_size=1, max_size=3)) + data[place + 1 :]
        case _:
            return data[:place] + data[place + draw(st.integers(1, 40)) :]
