"""The page as text: jinja2 puts the sections together, every value escaped, nothing loaded from elsewhere."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from senet_bench.core.union import StoredRun
from senet_bench.gallery.collection import Collection, machine_label, main_timing
from senet_bench.gallery.page.content import Content
from senet_bench.gallery.page.headline import SIGNS, headline, tally
from senet_bench.show.chart import Chart, Mark
from senet_bench.show.style import LIGHT, digest, stylesheet

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes


HERE = Path(__file__).parent
HARDWARE = ("cpu", "isa", "cores", "gpu", "gpu_count", "sm", "gpu_memory_gib", "cuda", "cudnn")


def build_page(collection: Collection, content: Content, drawn: Mapping[str, bytes]) -> str:
    """The whole page; `drawn` has the svg of each chart under its name. The same facts give the same text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, code = stylesheet(), (HERE / "page.js").read_text(encoding="utf-8")
    counts = {status: count for status, count in tally(content.grids).items() if count}
    text = environment.get_template("page.html.j2").render(
        content=content,
        headline=headline(collection, main_timing(collection.timings)),
        tally=counts,
        signs=SIGNS,
        machines=_machines(collection),
        left_out=[(one.path, str(one.error)) for one in collection.left_out],
        policy=f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(code)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704 - files of this package
        script=Markup(code),  # noqa: S704
        inline=lambda chart: Markup(inline(chart, drawn[chart.name])),  # noqa: S704 - escaped by ElementTree
        heads=heads,
        coded=coded,
    )
    return "".join(char if char == "\n" or unicodedata.category(char)[0] != "C" else " " for char in text.lstrip())


def coded(text: str) -> Markup:
    """Text with what stands between backticks as code."""
    from markupsafe import Markup, escape

    parts = [escape(part) for part in text.split("`")]
    odd = len(parts) % 2 == 0  # a backtick without its other
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 and not (odd and place == len(parts) - 1) else part
        for place, part in enumerate(parts)
    )


def heads(groups: Sequence[str]) -> list[tuple[str, int]]:
    """Neighbouring columns of one group as one heading with how many columns it spans; empty without groups."""
    spans = [(group, len(list(same))) for group, same in itertools.groupby(groups)]
    return spans if any(groups) else []


def _machines(collection: Collection) -> list[Mapping[str, Any]]:
    """Each machine with its hardware, its versions and what was stored on it."""
    found: list[Mapping[str, Any]] = []
    for key, newest in collection.machines().items():
        own = [source for source in collection.sources if source.machine == key]
        hard = asdict(newest.hard)
        facts = {name.replace("_", " "): hard[name] for name in HARDWARE if hard[name]}
        facts |= {"virtual": "yes"} if newest.hard.virtual else {}
        facts |= {"platform": newest.platform} if newest.platform else {}
        facts |= {"python": newest.python} if newest.python else {}
        facts |= newest.packages
        if newest.memory_bytes:
            facts["memory"] = f"{newest.memory_bytes / 2**30:.1f} GiB"
        found.append({"key": key, "label": machine_label(newest), "facts": facts, "runs": [_run(one) for one in own]})
    return found


def _run(source: StoredRun) -> Mapping[str, Any]:
    document = source.document
    load = document.environment.load_1min
    return {
        "path": source.path,
        "name": source.path.rpartition("/")[2],
        "command": source.command,
        "created": document.created,
        "version": document.version,
        "rows": len(document.rows),
        "about": _about(source.asked),
        "load": f"{load:.2f}" if load is not None else "",
    }


def _about(conditions: Mapping[str, object]) -> str:
    """What was asked for, in a few words."""
    words = []
    for name, value in conditions.items():
        said = value
        if isinstance(value, dict):
            said = ", ".join(f"{key} {one}" for key, one in value.items() if isinstance(one, int | float | str))
        elif isinstance(value, list):
            said = " ".join(str(one) for one in value if isinstance(one, int | float | str))
        if said not in ("", None, False):
            words.append(f"{name.replace('_', ' ')}: {said}")
    text = "; ".join(words)
    return text if len(text) <= 300 else f"{text[:299]}…"


COLOURS = {colour: f"var(--{role})" for role, colour in LIGHT.items()}
_UNUSED = ("metadata", "style", "clipPath")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
SCALE, WIDE = 1.6, 400
"""Pixels a point on a large screen, and from how many points on a chart is not squeezed into a small one."""
REACH = 9
"""Radius around a mark, in points, within which it is pointed at."""


def inline(chart: Chart, svg: bytes) -> str:
    """The rendered chart as one `<svg>` element without style attributes, every id led by the chart's name."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - matplotlib wrote it just now
    _tidy(root)
    for element in root.iter():
        _plain_attributes(element, chart.name)
    _name_parts(root, chart)
    if chart.zoom is not None:
        _make_zoomable(root, chart, chart.zoom)
    width = chart.figure.bbox.width
    root.attrib |= {"class": "chart wide" if width > WIDE else "chart", "width": f"{SCALE * width:.0f}"}
    root.attrib |= {"role": "group", "aria-label": chart.title, "id": chart.name}
    root.attrib.pop("height", None)
    return ElementTree.tostring(root, encoding="unicode")


def _tidy(root: ElementTree.Element) -> None:
    """Plain tags; no white space, metadata or empty groups; the clipping is done for all lines at once."""
    for element in root.iter():
        element.tag = _local(element.tag)
        element.tail = None
        element.text = element.text if element.tag == "text" else None
    for parent in reversed(list(root.iter())):
        for child in list(parent):
            if child.tag in _UNUSED or (child.tag in ("g", "defs") and not len(child) and not child.get("id")):
                parent.remove(child)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _plain_attributes(element: ElementTree.Element, name: str) -> None:
    """Attributes without namespaces, styles as attributes, colours by their roles, ids of this chart only."""
    found = {_local(key): value for key, value in element.attrib.items()}
    for part in found.pop("style", "").split(";"):
        key, colon, value = part.partition(":")
        if colon and key.strip() != "font-family":  # the page has its own
            found[key.strip()] = COLOURS.get(value.strip(), value.strip())
    found.pop("clip-path", None)
    if found.get("transform", "").startswith("rotate(-0"):
        del found["transform"]
    for key, value in found.items():
        if key == "id":
            found[key] = f"{name}-{value}"
        elif key == "href":
            found[key] = f"#{name}-{value[1:]}"
        elif key in ("d", "transform", "x", "y", "width", "height", "points"):
            found[key] = _NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)
            found[key] = " ".join(found[key].split())
    element.attrib.clear()
    element.attrib.update(found)


def _name_parts(root: ElementTree.Element, chart: Chart) -> None:
    """Marks that say what they show, labels and lines by family, ticks as such."""
    marks = {mark.id: mark for mark in chart.marks}
    axes = {artist.get_gid(): axes for axes in chart.figure.axes for artist in axes.get_children()}
    height = chart.figure.bbox.height
    for element in root.iter("g"):
        own = element.get("id", "").removeprefix(f"{chart.name}-")
        if own in marks:
            x, y = axes[own].transData.transform((marks[own].x, marks[own].y))
            _describe(element, marks[own], f"{x:.2f}", f"{height - y:.2f}")
            if marks[own].row:
                element.attrib["data-row"] = f"{chart.name}-{marks[own].row}"
        elif own.startswith("line-"):
            element.attrib |= {"class": "line", "data-family": own.removeprefix("line-").rpartition("-")[0]}
        elif own.startswith(("xtick", "ytick")):
            element.attrib["class"] = "tick"
        if own not in marks and own != "axes_1":
            element.attrib.pop("id", None)


def _describe(element: ElementTree.Element, mark: Mark, x: str, y: str) -> None:
    element.attrib |= {"class": "mark" if mark.text else "label", "data-x": x, "data-y": y}
    if mark.family:
        element.attrib["data-family"] = mark.family
    if not mark.text:
        return
    element.attrib |= {"tabindex": "0", "role": "img"}
    element.attrib |= {"aria-label": "; ".join(mark.text), "data-tip": "\n".join(mark.text)}
    element.insert(0, ElementTree.Element("circle", {"class": "reach", "cx": x, "cy": y, "r": str(REACH)}))


def _make_zoomable(root: ElementTree.Element, chart: Chart, axes: Axes) -> None:
    """Put the lines of the zoomed axes into one clipped group, and say what range their edges stand for."""
    box = axes.get_window_extent()
    top = chart.figure.bbox.height - box.y1
    edges = {"x": f"{box.x0:.2f}", "y": f"{top:.2f}", "width": f"{box.width:.2f}", "height": f"{box.height:.2f}"}
    root.attrib |= {f"data-{key}": value for key, value in edges.items()}
    for name, scale, (low, high) in (
        ("h", axes.get_xscale(), axes.get_xlim()),
        ("v", axes.get_yscale(), axes.get_ylim()),
    ):
        root.attrib[f"data-{name}"] = f"{scale} {low:.6g} {high:.6g}"
    clip = ElementTree.Element("clipPath", {"id": f"{chart.name}-clip"})
    clip.append(ElementTree.Element("rect", edges))
    outer = ElementTree.Element("g", {"clip-path": f"url(#{chart.name}-clip)"})
    inner = ElementTree.SubElement(outer, "g", {"class": "zoomed"})
    parent = next(element for element in root.iter("g") if element.get("id") == f"{chart.name}-axes_1")
    lines = [child for child in parent if child.get("class") == "line"]
    at = list(parent).index(lines[0]) if lines else len(parent)
    for line in lines:
        parent.remove(line)
        for path in line.iter("path"):
            path.set("vector-effect", "non-scaling-stroke")
        inner.append(line)
    parent.insert(at, outer)
    parent.insert(at, clip)
    parent.insert(at, ElementTree.Element("rect", {"class": "field", **edges}))
    parent.append(ElementTree.Element("g", {"class": "ticks"}))
