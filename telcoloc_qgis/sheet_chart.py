"""The small chart beside a tracking map: the error at each instant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qgis.PyQt.QtCore import QPointF, QRectF, Qt
from qgis.PyQt.QtGui import QColor, QFontMetricsF, QPainter, QPen, QPolygonF, QTextOption

from .map_sheet import INK, MUTED, RULE, draw_text, font_of

if TYPE_CHECKING:
    from .map_sheet import Sheet


@dataclass(frozen=True)
class Curve:
    """Values [m] at rising times [s since 1970], both of shape (n,); NaN leave a gap."""

    time_s: np.ndarray
    value_m: np.ndarray
    colour: str
    width_mm: float


@dataclass(frozen=True)
class TimeChart:
    """Curves over time.

    Parameters
    ----------
    curves
        The first is drawn first, hence below.
    marks_s
        Times to mark with a square on the axis, shape (k,).
    window_s
        First and last time that the map shows, to be shaded; None for no shade.
    caption
        What is drawn, in a sentence above it.
    """

    curves: Sequence[Curve]
    marks_s: np.ndarray
    mark_colour: str
    window_s: tuple[float, float] | None
    caption: str
    height_mm: float = 44.0

    def draw(self, painter: QPainter, sheet: Sheet, box: QRectF) -> None:
        """Draw all into `box` [px]."""
        used = draw_text(painter, sheet, box, self.caption, 7.5) + sheet.px(2.0)
        begin = min(float(curve.time_s[0]) for curve in self.curves)
        end = max(float(curve.time_s[-1]) for curve in self.curves)
        span = max(end - begin, 1.0)
        known = np.concatenate([curve.value_m[np.isfinite(curve.value_m)] for curve in self.curves])
        step = _round_step(float(known.max(initial=1.0)), 4)
        top_value = step * math.ceil(float(known.max(initial=1.0)) / step)
        font = font_of(sheet, 6)
        wide = QFontMetricsF(font).horizontalAdvance(f"{top_value:g}")
        area = box.adjusted(wide + sheet.px(1.5), used, -sheet.px(1.0), -sheet.px(4.0))

        def x(time_s: float) -> float:
            return area.left() + area.width() * (time_s - begin) / span

        def y(value: float) -> float:
            return area.bottom() - area.height() * value / top_value

        if self.window_s is not None:
            left, right = (min(max(x(limit), area.left()), area.right()) for limit in self.window_s)
            least = sheet.px(0.6)
            shade = QRectF(left, area.top(), max(right - left, least), area.height())
            painter.fillRect(shade, QColor(200, 35, 44, 28))
        painter.setFont(font)
        right = QTextOption(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        for tick in np.arange(0, top_value + step / 2, step):
            painter.setPen(QPen(INK if tick == 0 else RULE, sheet.px(0.15)))
            painter.drawLine(QPointF(area.left(), y(tick)), QPointF(area.right(), y(tick)))
            label = QRectF(box.left(), y(tick) - sheet.px(2), wide, sheet.px(4))
            painter.setPen(MUTED)
            painter.drawText(label, f"{tick:g}", right)
        unit, name = (60.0, "min") if span >= 240 else (1.0, "s")
        across = _round_step(span / unit, 5)
        for tick in np.arange(0, span / unit + 1e-9, across):
            last = tick + across > span / unit
            text = f"{tick:g} {name}" if last else f"{tick:g}"
            label = QRectF(
                x(begin + tick * unit) - sheet.px(6), area.bottom() + sheet.px(0.8), sheet.px(12), sheet.px(3.5)
            )
            painter.drawText(label, text, QTextOption(Qt.AlignmentFlag.AlignHCenter))
        for curve in self.curves:
            painter.setPen(QPen(QColor(curve.colour), sheet.px(curve.width_mm)))
            for part in _unbroken(curve):
                painter.drawPolyline(QPolygonF([QPointF(x(at), y(value)) for at, value in part]))
        painter.setPen(QPen(Qt.GlobalColor.white, sheet.px(0.15)))
        painter.setBrush(QColor(self.mark_colour))
        half = sheet.px(0.75)
        for at in self.marks_s:
            painter.drawRect(QRectF(x(at) - half, area.bottom() - half, 2 * half, 2 * half))
        painter.setBrush(Qt.BrushStyle.NoBrush)


def _unbroken(curve: Curve) -> list[list[tuple[float, float]]]:
    """Stretches of known values."""
    known = np.isfinite(curve.value_m)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
    rows = zip(edges[::2], edges[1::2])
    return [list(zip(curve.time_s[a:b].tolist(), curve.value_m[a:b].tolist())) for a, b in rows]


def _round_step(span: float, most: int) -> float:
    """The least of 1, 2 and 5 times a power of ten that goes into `span` at most so often."""
    unit = 10.0 ** math.floor(math.log10(span / most))
    return next(factor * unit for factor in (1, 2, 5, 10) if span / (factor * unit) <= most)
