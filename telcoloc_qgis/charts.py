"""Charts and pages for HTML reports: SVG from numpy arrays, one self-contained page, no scripts, nothing fetched.

Charts carry light colours as plain attributes, so the SVG alone also works in Qt and in a print layout; the page of
`html_report` restyles them for dark screens through their classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Optional, Union

import numpy as np

from ..models.errors import InputError

#: Lower and upper bound a value can have by its nature; None where there is none.
Limits = tuple[Optional[float], Optional[float]]
TableCell = Union[str, int, float, None]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
#: (on white, on dark): Okabe & Ito (2008) without its yellow, which white paper swallows, plus a neutral grey.
COLOURS = (
    ("#0072b2", "#4ba3d9"),
    ("#d55e00", "#f08a3c"),
    ("#009e73", "#2fbf95"),
    ("#cc79a7", "#dd97be"),
    ("#e69f00", "#efb73e"),
    ("#56b4e9", "#8fd0f5"),
    ("#6b7076", "#a7adb4"),
    ("#1d2125", "#e8eaed"),
)
INK, MUTED, AXIS, RULE, PAPER = "#1d2125", "#5f666d", "#8a9199", "#e4e7ea", "#ffffff"
DASHES = ("", "7 3", "2 3")  # solid for the first methods of a chart, so that curves also differ in black and white
SOLID_CURVES = 4

WIDTH = 760  # of a chart [px]
LABEL_WIDTH = 190  # longest line of a method's name [px]
VALUE_WIDTH = 96  # column of medians [px]
LINE = 17  # height of a line of text [px]
DENSITY_POINTS, DENSITY_BINS = 160, 512
CURVE_POINTS = 400


@dataclass(frozen=True)
class ChartSection:
    """A heading, a chart as SVG and a caption under it."""

    heading: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class TableSection:
    """A heading, a table and a caption under it; columns of numbers are aligned right, None and NaN print as a dash."""

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    caption: str = ""


def violin_chart(samples: Mapping[str, np.ndarray], value_label: str, limits: Limits = (None, None)) -> str:
    """Return an SVG with one violin per method: density, quartiles (bar) and median (dot), on one value axis.

    Parameters
    ----------
    samples
        Values of each method, in the order they are drawn. Values that are not finite are left out and counted.
    value_label
        What the values are, with their unit.
    limits
        Bounds the values cannot cross: the density is reflected there, and the axis starts or ends there.

    Notes
    -----
    Violins are equally thick at their thickest. A sample without spread is drawn as a line.
    """
    methods = _methods(samples)
    axis = _Axis.over([method.values for method in methods], limits, LABEL_WIDTH + 24, WIDTH - VALUE_WIDTH - 28)
    heights = [max(62, LINE * (len(method.lines) + 1) + 16) for method in methods]
    top = 34
    bottom = top + sum(heights)
    right = WIDTH
    parts = [
        _text(right, 14, "Median", anchor="end", size=12, css="muted"),
        _text(right, 27, "quartiles", anchor="end", size=11, css="muted"),
        *_value_axis(axis, top, bottom, value_label),
    ]
    for method, height in zip(methods, heights):
        middle = top + height / 2
        top += height
        parts.append(f'<g class="method"><title>{_clean(method.name)}: {_clean(method.summary)}</title>')
        first = middle - LINE * (len(method.lines) + 1) / 2 + 12.5
        parts += [_text(0, first + LINE * i, line) for i, line in enumerate(method.lines)]
        parts.append(_text(0, first + LINE * len(method.lines), method.count, size=11, css="muted"))
        if method.values.size:
            parts += _violin(method, axis, middle, min(height, 74) / 2 - 8, limits)
            q1, median, q3 = method.quartiles
            parts.append(_text(right, middle - 2, axis.precise(median), anchor="end", weight=600))
            spread = f"{axis.precise(q1)} – {axis.precise(q3)}" if method.values.size > 1 else "–"
            parts.append(_text(right, middle + 13, spread, anchor="end", size=11, css="muted"))
        parts.append("</g>")
    return _svg(f"Violins of {value_label}", bottom + 52, parts)


def cdf_chart(samples: Mapping[str, np.ndarray], value_label: str, limits: Limits = (None, None)) -> str:
    """Return an SVG with one cumulative step curve per method and a legend, ordered by median.

    Parameters
    ----------
    samples
        Values of each method. Values that are not finite are left out and counted.
    value_label
        What the values are, with their unit.
    limits
        Bounds the values cannot cross; the axis starts or ends there.
    """
    methods = _methods(samples)
    legend = WIDTH - LABEL_WIDTH - 30
    axis = _Axis.over([method.values for method in methods], limits, 52, legend - 34)
    by_median = sorted(methods, key=lambda method: (not method.values.size, method.quartiles[1]))
    notes = []
    for method in by_median:
        both = [f"median {axis.precise(method.quartiles[1])}"] * bool(method.values.size) + [method.count]
        joined = " · ".join(both)
        notes.append([joined] if _text_width(joined) * 11 / 13 <= LABEL_WIDTH else both)
    rows = [LINE * len(method.lines) + 15 * len(note) + 16 for method, note in zip(by_median, notes)]
    top = 30
    bottom = top + max(320, sum(rows) - 10)
    parts = [_text(0, 14, "Cumulative share", size=12, css="muted"), *_value_axis(axis, top, bottom, value_label)]
    for quarter in range(5):
        y = bottom + (top - bottom) * quarter / 4
        parts.append(_rule(axis.left, y, axis.right, y, "axis" if quarter == 0 else "rule"))
        parts.append(_text(axis.left - 10, y + 4, f"{25 * quarter}\u202f%", anchor="end", size=12, css="muted"))

    y = top + 12.0
    for method, note, height in zip(by_median, notes, rows):
        title = f"<title>{_clean(method.name)}: {_clean(method.summary)}</title>"
        stroke = f'class="curve c{method.colour}" fill="none" stroke="{COLOURS[method.colour][0]}" stroke-width="2"'
        stroke += ' stroke-linejoin="round"' + (f' stroke-dasharray="{method.dash}"' if method.dash else "")
        if method.values.size:
            parts.append(f'<path {stroke} d="{_steps(method.values, axis, top, bottom)}">{title}</path>')
        parts.append(f'<g class="method">{title}<path {stroke} d="M{legend} {_n(y - 4)}h22"/>')
        parts += [_text(legend + 30, y + LINE * i, line) for i, line in enumerate(method.lines)]
        below = y + LINE * len(method.lines) - 1
        parts += [_text(legend + 30, below + 15 * i, line, size=11, css="muted") for i, line in enumerate(note)]
        parts.append("</g>")
        y += height
    return _svg(f"Cumulative shares of {value_label}", bottom + 52, parts)


def line_chart(values: np.ndarray, value_label: str, step_label: str, marked: Optional[int] = None) -> str:
    """Return an SVG with one value per step as a curve; values that are not finite leave a gap.

    Parameters
    ----------
    values
        Shape (n,), n ≥ 1; steps count from 1.
    value_label, step_label
        What values and steps are.
    marked
        Index of the value to mark with a dot and its number.
    """
    values = np.asarray(values, float)
    top, bottom = 30.0, 290.0
    finite = np.isfinite(values)
    down = _Axis.over([values[finite]], (0.0, None), bottom, top)
    steps = np.arange(1, len(values) + 1)
    across = _Axis.over([steps], (1.0, float(max(len(values), 2))), 64, WIDTH - 30)
    parts = [_text(0, 14, value_label, size=12, css="muted"), *_value_axis(across, top, bottom, step_label)]
    for tick in down.ticks:
        y = float(down.x(tick))
        parts.append(_rule(across.left, y, across.right, y, "rule" if tick > down.low else "axis"))
        parts.append(_text(across.left - 10, y + 4, down.format(tick), anchor="end", size=12, css="muted"))
    path = ""
    for index in np.flatnonzero(finite):
        start = "L" if index and finite[index - 1] else "M"
        path += f"{start}{_n(float(across.x(steps[index])))} {_n(float(down.x(values[index])))}"
    colour = COLOURS[0][0]
    if path:
        parts.append(f'<path class="curve c0" fill="none" stroke="{colour}" stroke-width="2" d="{path}"/>')
    if marked is not None and finite[marked]:
        x, y = float(across.x(steps[marked])), float(down.x(values[marked]))
        parts.append(
            f'<circle class="median" fill="{PAPER}" stroke="{INK}" stroke-width="1.75" cx="{_n(x)}" cy="{_n(y)}" r="4.5"/>'
        )
        parts.append(_text(x, y - 12, down.format(float(values[marked]), 2), anchor="middle", weight=600))
    return _svg(f"{value_label} by {step_label}", bottom + 52, parts)


def html_report(
    title: str, subtitle: str, sections: Sequence[Union[ChartSection, TableSection]], footer: str = ""
) -> str:
    """Return one self-contained HTML page that follows the reader's light or dark screen.

    Parameters
    ----------
    title, subtitle, footer
        Plain text; all text of the page is escaped.
    sections
        Charts and tables in reading order. The SVG of a chart is taken as it is.
    """
    body = []
    for section in sections:
        body.append(f"<section>\n<h2>{_clean(section.heading)}</h2>")
        if isinstance(section, ChartSection):
            body.append(f'<figure>\n<div class="chart">{section.svg}</div>')
            body += [f"<figcaption>{_clean(section.caption)}</figcaption>"] if section.caption else []
            body.append("</figure>")
        else:
            body += [f'<div class="table">{_table(section)}</div>']
            body += [f'<p class="caption">{_clean(section.caption)}</p>'] if section.caption else []
        body.append("</section>")
    end = f"<footer>{_clean(footer)}</footer>\n" if footer else ""
    dark = "".join(
        f".tl-chart .c{index}{{stroke:{colour}}}.tl-chart .f{index}{{fill:{colour}}}"
        for index, (_, colour) in enumerate(COLOURS)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_clean(title)}</title>\n<style>\n{_PAGE_CSS}"
        f"@media screen and (prefers-color-scheme: dark) {{\n{_DARK_CSS}{dark}\n}}\n</style>\n</head>\n"
        f'<body>\n<main>\n<header>\n<h1>{_clean(title)}</h1>\n<p class="subtitle">{_clean(subtitle)}</p>\n</header>\n'
        + "\n".join(body)
        + f"\n{end}</main>\n</body>\n</html>\n"
    )


_PAGE_CSS = f"""\
body {{ margin: 0; background: {PAPER}; color: {INK}; font: 15px/1.55 {FONT}; }}
main {{ max-width: {WIDTH}px; margin: 0 auto; padding: 56px 24px 72px; }}
header {{ border-bottom: 2px solid {INK}; padding-bottom: 18px; }}
h1 {{ font-size: 28px; line-height: 1.2; font-weight: 600; letter-spacing: -0.01em; margin: 0 0 6px; }}
h2 {{ font-size: 18px; line-height: 1.3; font-weight: 600; margin: 0 0 18px; }}
h1, h2, p, figcaption, td, th {{ overflow-wrap: anywhere; }}
.subtitle {{ color: {MUTED}; margin: 0; }}
section {{ margin-top: 48px; break-inside: avoid; }}
figure {{ margin: 0; }}
.tl-chart {{ display: block; max-width: 100%; height: auto; }}
figcaption, .caption {{ color: {MUTED}; font-size: 13.5px; margin: 14px 0 0; max-width: 68ch; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: 14px; }}
th, td {{ padding: 8px 16px 8px 0; text-align: left; vertical-align: top; border-bottom: 1px solid {RULE}; }}
th:last-child, td:last-child {{ padding-right: 0; }}
thead th {{ color: {MUTED}; font-weight: 500; font-size: 12.5px; vertical-align: bottom; border-bottom-color: {AXIS}; }}
tbody th {{ font-weight: 500; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
thead .number {{ white-space: normal; }}
footer {{ margin-top: 56px; padding-top: 14px; border-top: 1px solid {RULE}; color: {MUTED}; font-size: 12.5px; }}
@media print {{ main {{ padding: 0; }} }}
"""
_DARK_CSS = """\
body { background: #16191d; color: #e8eaed; }
header { border-color: #e8eaed; }
.subtitle, figcaption, .caption, thead th, footer { color: #a3abb3; }
th, td, footer { border-color: #31363c; }
thead th { border-bottom-color: #79818a; }
.tl-chart .paper { fill: #16191d; }
.tl-chart .ink { fill: #e8eaed; }
.tl-chart .muted { fill: #a3abb3; }
.tl-chart .axis { stroke: #79818a; }
.tl-chart .rule { stroke: #31363c; }
.tl-chart .bar { stroke: #e8eaed; }
.tl-chart .median { fill: #16191d; stroke: #e8eaed; }
"""


@dataclass(frozen=True)
class _Method:
    """What both charts say about one method."""

    name: str
    values: np.ndarray  # finite and sorted
    given: int
    order: int

    @property
    def colour(self) -> int:
        return self.order % len(COLOURS)

    @property
    def dash(self) -> str:
        return DASHES[min((self.order + len(COLOURS) - SOLID_CURVES) // len(COLOURS), len(DASHES) - 1)]

    @property
    def lines(self) -> list[str]:
        return _wrap(self.name, LABEL_WIDTH)

    @property
    def count(self) -> str:
        """Number of values, and of how many where some are missing."""
        n = self.values.size
        text = f"n = {n:,}" if n == self.given else f"n = {n:,} of {self.given:,}"
        return text.replace(",", "\u202f")

    @property
    def quartiles(self) -> tuple[float, float, float]:
        if not self.values.size:
            return math.nan, math.nan, math.nan
        q1, median, q3 = np.percentile(self.values, [25, 50, 75])
        return float(q1), float(median), float(q3)

    @property
    def summary(self) -> str:
        return f"median {self.quartiles[1]:.4g}, {self.count}" if self.values.size else self.count


@dataclass(frozen=True)
class _Axis:
    """A linear value axis: `low`…`high` is drawn from `left` to `right` [px]."""

    low: float
    high: float
    left: float
    right: float
    step: float

    @classmethod
    def over(cls, samples: Sequence[np.ndarray], limits: Limits, left: float, right: float) -> _Axis:
        """Cover all samples and both limits where given, with round ticks."""
        values = np.concatenate([*samples, [limit for limit in limits if limit is not None]]).astype(float)
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        if high - low <= 1e-9 * max(abs(low), abs(high)):  # no spread: some room on both sides
            room = 0.1 * abs(low) or 1.0
            low, high = low - room, high + room
            low = low if limits[0] is None else max(low, limits[0])
            high = high if limits[1] is None else min(high, limits[1])
        rough = (high - low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = unit * next(factor for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
        low = limits[0] if limits[0] is not None and limits[0] <= low else math.floor(low / step + 1e-9) * step
        high = limits[1] if limits[1] is not None and limits[1] >= high else math.ceil(high / step - 1e-9) * step
        return cls(low, high, left, right, step)

    def x(self, value: float | np.ndarray) -> float | np.ndarray:
        """Return the pixel position of a value."""
        return self.left + (value - self.low) / (self.high - self.low) * (self.right - self.left)

    @property
    def ticks(self) -> list[float]:
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        return [index * self.step for index in range(first, last + 1)]

    def format(self, value: float, extra_decimals: int = 0) -> str:
        """Write a value with as many decimals as the ticks need."""
        if not 1e-6 <= self.step < 1e9:
            return f"{value:.3g}".replace("-", "−")
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9) + extra_decimals)
        text = f"{value:,.{decimals}f}".replace(",", "\u202f")
        return text.replace("-", "−") if float(f"{value:.{decimals}f}") else text.replace("-", "")

    def precise(self, value: float) -> str:
        """Write a value one decimal finer than the ticks."""
        return self.format(value, 1)


def _methods(samples: Mapping[str, np.ndarray]) -> list[_Method]:
    """Clean the samples of a chart."""
    if not samples:
        raise InputError("A chart needs at least one method; none was given.")
    methods = []
    for order, (name, given) in enumerate(samples.items()):
        values = np.asarray(given, dtype=float).ravel()
        methods.append(_Method(name, np.sort(values[np.isfinite(values)]), values.size, order))
    return methods


def _violin(method: _Method, axis: _Axis, middle: float, half_height: float, limits: Limits) -> list[str]:
    """Draw density, quartile bar and median dot of one method around the height `middle`."""
    light = COLOURS[method.colour][0]
    q1, median, q3 = (_n(axis.x(value)) for value in method.quartiles)
    at, density = _density(method.values, limits)
    if at.size:
        x = axis.x(np.clip(at, axis.low, axis.high))
        offset = density / density.max() * half_height
        upper = [f"{_n(px)} {_n(middle - dy)}" for px, dy in zip(x, offset)]
        lower = [f"{_n(px)} {_n(middle + dy)}" for px, dy in zip(x[::-1], offset[::-1])]
        body = f'<path class="violin f{method.colour} c{method.colour}" fill="{light}" fill-opacity="0.28" '
        body += f'stroke="{light}" stroke-width="1.25" stroke-linejoin="round" d="M{"L".join(upper + lower)}Z"/>'
    else:
        body = f'<path class="violin c{method.colour}" fill="none" stroke="{light}" stroke-width="2" '
        body += f'd="M{median} {_n(middle - half_height)}V{_n(middle + half_height)}"/>'
    bar = f'<path class="bar" fill="none" stroke="{INK}" stroke-width="4" d="M{q1} {_n(middle)}H{q3}"/>'
    dot = f'<circle class="median" fill="{PAPER}" stroke="{INK}" stroke-width="1.75" '
    dot += f'cx="{median}" cy="{_n(middle)}" r="4.5"/>'
    return [body, bar, dot]


def _density(values: np.ndarray, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel density of sorted values (Silverman's rule), reflected at the limits; empty without spread.

    The values are binned first, so a million of them cost what a thousand do.
    """
    spread = values[-1] - values[0]
    if spread <= 1e-9 * max(abs(values[0]), abs(values[-1])):
        return np.empty(0), np.empty(0)
    q1, q3 = np.percentile(values, [25, 75])
    scale = min(np.std(values), (q3 - q1) / 1.34) or np.std(values)
    width = max(0.9 * scale * values.size**-0.2, spread / DENSITY_BINS)
    low, high = values[0] - 2.5 * width, values[-1] + 2.5 * width
    low = low if limits[0] is None else min(max(low, limits[0]), values[0])
    high = high if limits[1] is None else max(min(high, limits[1]), values[-1])
    counts, edges = np.histogram(values, DENSITY_BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    at = np.linspace(low, high, DENSITY_POINTS)
    images = [centres] + [2 * limit - centres for limit in limits if limit is not None]
    density = sum(np.exp(-0.5 * ((at[:, None] - image) / width) ** 2) @ counts for image in images)
    return at, density


def _steps(values: np.ndarray, axis: _Axis, top: float, bottom: float) -> str:
    """Path of the empirical distribution function of sorted values, in at most `CURVE_POINTS` steps."""
    ranks = np.unique(np.linspace(0, values.size - 1, min(values.size, CURVE_POINTS)).round().astype(int))
    x = axis.x(values[ranks])
    y = bottom + (top - bottom) * (ranks + 1) / values.size
    steps = "".join(f"H{_n(px)}V{_n(py)}" for px, py in zip(x, y))
    return f"M{_n(axis.left)} {_n(bottom)}{steps}H{_n(axis.right)}"


def _value_axis(axis: _Axis, top: float, bottom: float, label: str) -> list[str]:
    """Draw the horizontal axis: gridlines, ticks, the values and their label."""
    parts = []
    for tick in axis.ticks:
        x = axis.x(tick)
        parts.append(_rule(x, top, x, bottom, "rule"))
        parts.append(_rule(x, bottom, x, bottom + 5, "axis"))
        parts.append(_text(x, bottom + 20, axis.format(tick), anchor="middle", size=12, css="muted tick"))
    parts.append(_rule(axis.left, bottom, axis.right, bottom, "axis"))
    parts.append(_text((axis.left + axis.right) / 2, bottom + 42, label, anchor="middle"))
    return parts


def _svg(label: str, height: float, parts: Sequence[str]) -> str:
    """Wrap the parts of a chart."""
    return (
        f'<svg class="tl-chart" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{_clean(label)}" '
        f'width="{WIDTH}" height="{_n(height)}" viewBox="0 0 {WIDTH} {_n(height)}" '
        f'font-family="{FONT}" font-size="13">\n'
        f'<rect class="paper" width="{WIDTH}" height="{_n(height)}" fill="{PAPER}"/>\n' + "\n".join(parts) + "\n</svg>"
    )


def _text(
    x: float, y: float, text: str, anchor: str = "start", size: int = 13, weight: int = 400, css: str = "ink"
) -> str:
    """Write one line of text."""
    more = "" if anchor == "start" else f' text-anchor="{anchor}"'
    more += "" if size == 13 else f' font-size="{size}"'
    more += "" if weight == 400 else f' font-weight="{weight}"'
    colour = INK if css == "ink" else MUTED
    return f'<text class="{css}" x="{_n(x)}" y="{_n(y)}" fill="{colour}"{more}>{_clean(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """Draw a thin line."""
    colour = AXIS if css == "axis" else RULE
    return f'<path class="{css}" fill="none" stroke="{colour}" d="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}"/>'


def _n(value: float) -> str:
    """Write a pixel position shortly, to a hundredth."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _clean(text: str) -> str:
    """Escape text for HTML and XML; characters XML forbids become a replacement mark."""
    return escape(re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", str(text)))


def _text_width(text: str) -> float:
    """Upper estimate of the width of 13 px text [px]: DejaVu Sans, the widest face in `FONT`."""
    width = 0.0
    for char in text:
        if char in "iljtfrI.,:;|!'()[]/ ":
            width += 0.42
        elif char in "mwMW@%—" or ord(char) >= 0x1100:
            width += 1.0
        else:
            width += 0.7 if char.isupper() or char in "<>&+=_~#" else 0.63
    return 13 * width


def _wrap(name: str, width: float, most: int = 3) -> list[str]:
    """Break a name into at most `most` lines that fit `width`; the rest is cut with an ellipsis."""
    lines = [""]
    for piece in re.findall(r"\s*[^\s_/-]*[_/-]?", " ".join(name.split())):  # a break may follow "_", "-" and "/"
        if _text_width(lines[-1] + piece) <= width:
            lines[-1] += piece
            continue
        lines.append("")
        for char in piece.strip():  # a piece longer than a line is broken anywhere
            if _text_width(lines[-1] + char) > width:
                lines.append("")
            lines[-1] += char
    lines = [line for line in lines if line]
    if len(lines) > most:
        last = lines[most - 1]
        while _text_width(f"{last}…") > width:
            last = last[:-1]
        lines = [*lines[: most - 1], f"{last}…"]
    return lines


def _table(section: TableSection) -> str:
    """Write a table; the first column heads its row."""
    for row in section.rows:
        if len(row) != len(section.header):
            raise InputError(
                f"A row of the table '{section.heading}' has {len(row)} cells, its header has {len(section.header)}."
            )
    columns = list(zip(*section.rows)) or [()] * len(section.header)
    numeric = [any(map(_is_number, column)) and all(map(_is_number_or_missing, column)) for column in columns]
    classes = [' class="number"' if right else "" for right in numeric]
    head = "".join(f'<th scope="col"{css}>{_clean(cell)}</th>' for cell, css in zip(section.header, classes))
    lines = []
    for row in section.rows:
        cells = [_cell(cell) for cell in row]
        first = f'<th scope="row"{classes[0]}>{cells[0]}</th>' if cells else ""
        rest = "".join(f"<td{css}>{cell}</td>" for cell, css in zip(cells[1:], classes[1:]))
        lines.append(f"<tr>{first}{rest}</tr>")
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>\n</table>"


def _cell(cell: TableCell) -> str:
    """Write a table cell: numbers with four significant digits, a dash for None and NaN."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "–"
    if isinstance(cell, float):
        return _clean(f"{cell:.4g}".replace("-", "−"))
    return _clean(str(cell))


def _is_number(cell: TableCell) -> bool:
    """Tell whether a cell holds or spells a number or a range of numbers, maybe with sign, percent or thin spaces."""
    if isinstance(cell, (int, float)):
        return True
    number = r"[-−+±]?\d[\d\u202f\u2009,]*(\.\d+)?(e[-+]?\d+)?(\s?%)?"
    return isinstance(cell, str) and re.fullmatch(rf"{number}(\s?–\s?{number})?", cell.strip()) is not None


def _is_number_or_missing(cell: TableCell) -> bool:
    """Tell whether a cell may stand in a column of numbers."""
    return cell is None or (isinstance(cell, str) and cell.strip() in {"", "–", "-"}) or _is_number(cell)
