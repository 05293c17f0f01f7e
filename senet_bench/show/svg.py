"""A chart as SVG: as a file of its own in light colours, or inside a page, whose colours and script it follows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from html import escape

from senet_bench.show.drawing import Area, Chart, DrawnItem, DrawnPart, Frame, Mark, Place, Point, Stroke, Text
from senet_bench.show.style import LIGHT

FONTS = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', 'DejaVu Sans', sans-serif"
SCALE, WIDE = 1.6, 400
"""Pixels a point on a large screen, and from how many points on a chart is not squeezed into a small one."""
REACH = 7
"""Radius around a mark, in points, within which it is pointed at."""


def svg_file(chart: Chart, text: str | None = None) -> bytes:
    """The chart as a file of its own; `text` is its element of a page where that is there already."""
    text = re.sub(r' (class|data-\w+|tabindex|role|id|aria-label)="[^"]*"', "", _UNSEEN.sub("", text or inline(chart)))
    text = re.sub(r"var\(--([\w-]+)\)", lambda match: LIGHT[match[1]], text)
    clip = f"url(#{chart.name}-clip)"
    text = text.replace(f' clip-path="{clip}"', "")
    head, _, body = text.partition(">")
    size = f'width="{_n(chart.width)}pt" height="{_n(chart.height)}pt"'
    head = re.sub(' width="[^"]*"', f" {size}", head, count=1)
    head = head.replace("<svg ", f'<svg {NAMESPACE} font-family="{FONTS}" ', 1)
    ground = f'<rect width="{_n(chart.width)}" height="{_n(chart.height)}" fill="{LIGHT["surface"]}"/>'
    return f"{head}><title>{escape(printable(chart.title), quote=False)}</title>{ground}{body}\n".encode()


NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'
_UNSEEN = re.compile(r'<(circle class="reach"|rect class="field")[^>]*/>|<clipPath.*?</clipPath>|<g class="ticks"></g>')
"""What of a chart only a page has."""


def inline(chart: Chart) -> str:
    """The chart as one element of a page; marks say what they show, every id is led by the chart's name."""
    about = {"class": "chart wide" if chart.width > WIDE else "chart", "width": f"{SCALE * chart.width:.0f}"}
    about |= {"viewBox": f"0 0 {_n(chart.width)} {_n(chart.height)}", "role": "group", "aria-label": chart.title}
    about |= {"id": chart.name, "stroke-width": "1.4", "stroke-linejoin": "round"}  # of its points
    frame = chart.zoom
    if frame is None:
        body = "".join(_part(part) for part in chart.parts)
        return f"<svg {_attributes(about)}>{body}</svg>"
    about |= _zoomed(frame)
    lines = "".join(_part(part) for part in chart.parts if part.kind == "line")
    behind = "".join(_part(part) for part in chart.parts if part.kind in ("plain", "tick"))
    front = "".join(_part(part) for part in chart.parts if part.kind == "mark")
    edges = _attributes({key: about[f"data-{key}"] for key in ("x", "y", "width", "height")})
    clip = f'<clipPath id="{chart.name}-clip"><rect {edges}/></clipPath>'
    zoomed = f'<g clip-path="url(#{chart.name}-clip)"><g class="zoomed">{lines}</g></g>'
    field = f'<rect class="field" {edges}/>'
    return f'<svg {_attributes(about)}>{behind}{field}{clip}{zoomed}{front}<g class="ticks"></g></svg>'


def _colour(role: str | None) -> str:
    """The colour of a role, which the page decides."""
    return "none" if role is None else f"var(--{role})"


def _zoomed(frame: Frame) -> dict[str, str]:
    """The frame's place, and what range its edges stand for."""
    edges = {"x": frame.left, "y": frame.top, "width": frame.width, "height": frame.height}
    ranges = {"h": frame.x, "v": frame.y}
    return {f"data-{key}": _n(value) for key, value in edges.items()} | {
        f"data-{key}": f"{'log' if scale.log else 'linear'} {scale.low:.6g} {scale.high:.6g}"
        for key, scale in ranges.items()
    }


def _part(part: DrawnPart) -> str:
    body = "".join(map(_item, part.items))
    about: dict[str, str] = {}
    if part.kind in ("line", "tick"):
        about["class"] = part.kind
    if part.family:
        about["data-family"] = part.family
    if part.mark is not None:
        about, reach = _marked(part.mark)
        body = reach + body
    return f"<g {_attributes(about)}>{body}</g>" if about else body


def _marked(mark: Mark) -> tuple[dict[str, str], str]:
    """The attributes of a part with a mark, and the circle within which it is pointed at."""
    x, y = _n(mark.x), _n(mark.y)
    about = {"class": "mark" if mark.text else "label", "data-x": x, "data-y": y}
    if mark.family:
        about["data-family"] = mark.family
    if mark.row:
        about["data-row"] = mark.row
    if not mark.text:
        return about, ""
    about |= {"data-tip": "\n".join(mark.text)}  # the page's script makes its label of it
    return about, f'<circle class="reach" cx="{x}" cy="{y}" r="{REACH}"/>'


def _item(item: DrawnItem) -> str:
    match item:
        case Stroke():
            line = f'stroke="{_colour(item.colour)}" stroke-width="{_n(item.width)}" fill="none"'
            dash = f' stroke-dasharray="{" ".join(map(_n, item.dash))}"' if item.dash else ""
            return f'<path d="{path(item.places)}" {line}{_alpha("stroke-opacity", item.alpha)}{dash}/>'
        case Area():
            fill = f'fill="{_colour(item.colour)}"{_alpha("fill-opacity", item.alpha)}'
            return f'<path d="{path(item.places)}Z" {fill}/>'
        case Point():
            paint = f'stroke="{_colour(item.colour)}" fill="{_colour(item.fill)}"{_alpha("opacity", item.alpha)}'
            if item.shape == "circle":
                across, down = map(_n, item.place)
                return f'<circle {paint} cx="{across}" cy="{down}" r="{_n(item.size / 2)}"/>'
            return f'<path d="{path(outline(item))}{"" if item.shape == "bar" else "Z"}" {paint}/>'
        case Text():
            x, y = map(_n, item.place)
            about = f'x="{x}" y="{y}" font-size="{_n(item.size)}" fill="{_colour(item.colour)}"'
            about += "" if item.anchor == "start" else f' text-anchor="{item.anchor}"'
            about += f' transform="rotate({_n(item.turn)} {x} {y})"' if item.turn else ""
            return f"<text {about}>{escape(printable(item.text), quote=False)}</text>"


_ROUND = tuple((math.cos(math.tau * step / 16), math.sin(math.tau * step / 16)) for step in range(16))


def outline(point: Point) -> tuple[Place, ...]:
    """The corners of a shape; those of a circle are a polygon of 16."""
    (x, y), half = point.place, point.size / 2
    match point.shape:
        case "diamond":
            return (x - half, y), (x, y - half), (x + half, y), (x, y + half)
        case "square":
            return (x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)
        case "bar":
            return (x, y - half), (x, y + half)
        case "arrow":
            angles = (math.radians(point.turn + turn) for turn in (0, 140, 220))
            return tuple((x + half * math.cos(angle), y + half * math.sin(angle)) for angle in angles)
        case "circle":
            return tuple((x + half * right, y + half * down) for right, down in _ROUND)


def path(places: Iterable[Place]) -> str:
    """The `d` of a path through some places."""
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in places)


def _alpha(name: str, alpha: float) -> str:
    return "" if alpha == 1 else f' {name}="{_n(alpha)}"'


def _attributes(about: Mapping[str, str]) -> str:
    return " ".join(f'{key}="{_quoted(value)}"' for key, value in about.items())


def _quoted(value: str) -> str:
    """A value between quotation marks."""
    if value.isprintable() and not _MARKUP.search(value):
        return value
    return escape(printable(value), quote=False).replace('"', "&quot;").replace("\n", "&#10;")


_MARKUP = re.compile('[<>&"]')


def printable(text: str) -> str:
    """Text without the characters that XML has no place for."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else " " for c in text)


@lru_cache(maxsize=65536)
def _n(value: float) -> str:
    """A number with two digits at most."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def numbers(values: Iterable[float]) -> Iterator[str]:
    """Numbers as SVG and PDF have them."""
    return map(_n, values)
