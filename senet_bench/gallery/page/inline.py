"""A chart as an SVG element of a page: its colours are CSS variables, its marks can be pointed at and focused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from senet_bench.show.chart import Chart, Mark
from senet_bench.show.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
