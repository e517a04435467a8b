"""A sheet with a map: drawn to PNG or PDF in any thread, with title, key, scale bar, north arrow and a small chart beside it.

QGIS's print layouts belong to the thread of the window and to its project; this needs neither, so the window stays alive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransformContext,
    QgsExpressionContext,
    QgsExpressionContextUtils,
    QgsMapLayer,
    QgsMapRendererCustomPainterJob,
    QgsMapSettings,
    QgsMapSettingsUtils,
    QgsRectangle,
    QgsRenderContext,
    QgsSymbol,
)
from qgis.PyQt.QtCore import QEventLoop, QMarginsF, QPointF, QRectF, QSize, QSizeF, Qt, QTimer
from qgis.PyQt.QtGui import (
    QColor,
    QFont,
    QFontMetricsF,
    QImage,
    QPageSize,
    QPainter,
    QPainterPath,
    QPdfWriter,
    QPen,
    QPolygonF,
    QTextOption,
)

from ..models.errors import Cancelled, InputError, OutputError

if TYPE_CHECKING:
    from ..models.progress import Progress
    from .sheet_chart import TimeChart

INK, MUTED, RULE = QColor("#2b2b2b"), QColor("#6b7076"), QColor("#d9dcdf")
#: Panel beside the map: its width, at most so much of the sheet, and the space around what is in it [mm].
PANEL_MM, LARGEST_PANEL, MARGIN_MM = 62.0, 0.4, 5.0
#: Longest scale bar, as a share of the map's width; space left of and below it [mm].
SCALE_BAR, CORNER_MM = 0.2, 4.0
#: A picture with more pixels is refused.
MOST_PIXELS = 400_000_000
_INCH_MM, _POINT_MM = 25.4, 25.4 / 72


@dataclass(frozen=True)
class Key:
    """A line of the key: symbols side by side, each with a text below where `below` has one, and what they mean."""

    symbols: Sequence[QgsSymbol]
    label: str
    below: Sequence[str] = ()


@dataclass(frozen=True)
class Sheet:
    """What stands beside the map, and how large all is.

    Parameters
    ----------
    title, subtitle
        "" for none.
    keys
        Lines of the key; without any, chart and title there is no panel.
    facts
        Sentences under the key.
    """

    width_mm: float
    height_mm: float
    dpi: int
    title: str = ""
    subtitle: str = ""
    keys: Sequence[Key] = ()
    facts: Sequence[str] = ()
    chart: TimeChart | None = None

    @property
    def panel_mm(self) -> float:
        """Width of the panel [mm]."""
        wanted = self.title or self.keys or self.facts or self.chart
        return min(PANEL_MM, LARGEST_PANEL * self.width_mm) if wanted else 0.0

    @property
    def map_mm(self) -> tuple[float, float]:
        """Width and height of the map [mm]."""
        return self.width_mm - self.panel_mm, self.height_mm

    def px(self, mm: float) -> float:
        """Pixels of a length on paper."""
        return mm * self.dpi / _INCH_MM


def fitted(extent: QgsRectangle, sheet: Sheet) -> QgsRectangle:
    """The least extent of the map's shape around `extent`."""
    width, height = sheet.map_mm
    across = max(extent.width(), extent.height() * width / height)
    return QgsRectangle.fromCenterAndSize(extent.center(), across, across * height / width)


def scale_of(extent: QgsRectangle, sheet: Sheet) -> float:
    """Denominator of the scale of a map in metres."""
    return extent.width() / (sheet.map_mm[0] / 1000)


def write_sheet(
    path: Path,
    sheet: Sheet,
    layers: Sequence[QgsMapLayer],
    crs: QgsCoordinateReferenceSystem,
    extent: QgsRectangle,
    background: str,
    context: QgsCoordinateTransformContext,
    progress: Progress,
) -> list[str]:
    """Draw the map and what stands beside it into a .png or .pdf file; in a PDF lines and text stay what they are.

    Parameters
    ----------
    layers
        First on top; all live in this thread.
    extent
        As `fitted` returns it, in `crs`.

    Returns
    -------
    list of str
        What QGIS says of layers that it could not draw.

    Raises
    ------
    InputError
        When the picture would be too large.
    OutputError
        When the file cannot be written.
    """
    width, height = round(sheet.px(sheet.width_mm)), round(sheet.px(sheet.height_mm))
    if width * height > MOST_PIXELS:
        raise InputError(f"The map would have {width:,} × {height:,} pixels; lower DPI ({sheet.dpi}), WIDTH or HEIGHT.")
    settings = _settings(sheet, layers, crs, extent, background, context)
    if path.suffix == ".pdf":
        writer = QPdfWriter(str(path))
        writer.setResolution(sheet.dpi)
        writer.setPageSize(QPageSize(QSizeF(sheet.width_mm, sheet.height_mm), QPageSize.Unit.Millimeter))
        writer.setPageMargins(QMarginsF())
        writer.setTitle(sheet.title)
        writer.setCreator("TelcoLoc")
        device = writer
    else:
        device = QImage(width, height, QImage.Format.Format_ARGB32_Premultiplied)
        dots = round(1000 * sheet.dpi / _INCH_MM)
        device.setDotsPerMeterX(dots)
        device.setDotsPerMeterY(dots)
        device.fill(Qt.GlobalColor.white)
    painter = QPainter()
    if not painter.begin(device):
        raise OutputError(f"The map cannot be drawn to '{path.name}'. Is the disk full, or the map too large?")
    try:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if path.suffix == ".pdf" and not QgsMapSettingsUtils.containsAdvancedEffects(settings):
            settings.setFlag(Qgis.MapSettingsFlag.ForceVectorOutput, True)
            painter.save()
            painter.setClipRect(QRectF(0, 0, settings.outputSize().width(), settings.outputSize().height()))
            said = _draw_map(settings, painter, progress)
            painter.restore()
        else:
            image = QImage(settings.outputSize(), QImage.Format.Format_ARGB32_Premultiplied)
            image.fill(QColor(background))
            on_image = QPainter(image)
            try:
                said = _draw_map(settings, on_image, progress)
            finally:
                on_image.end()
            painter.drawImage(0, 0, image)
        _draw_scale(painter, sheet, extent)
        if sheet.panel_mm:
            _draw_panel(painter, sheet)
    finally:
        ended = painter.end()
    written = ended and (path.suffix == ".pdf" or device.save(str(path), "PNG"))
    if not written or not path.stat().st_size:
        raise OutputError(f"The map could not be written to '{path.name}'. Is the disk full?")
    return said


def _settings(
    sheet: Sheet,
    layers: Sequence[QgsMapLayer],
    crs: QgsCoordinateReferenceSystem,
    extent: QgsRectangle,
    background: str,
    context: QgsCoordinateTransformContext,
) -> QgsMapSettings:
    settings = QgsMapSettings()
    settings.setLayers(list(layers))
    settings.setDestinationCrs(crs)
    settings.setTransformContext(context)
    settings.setOutputDpi(sheet.dpi)
    settings.setOutputSize(QSize(*(round(sheet.px(length)) for length in sheet.map_mm)))
    settings.setExtent(extent)
    settings.setBackgroundColor(QColor(background))
    settings.setFlag(Qgis.MapSettingsFlag.DrawSelection, False)
    settings.setFlag(Qgis.MapSettingsFlag.HighQualityImageTransforms, True)
    settings.setTextRenderFormat(Qgis.TextRenderFormat.AlwaysText)
    known = QgsExpressionContext()
    known.appendScope(QgsExpressionContextUtils.globalScope())
    known.appendScope(QgsExpressionContextUtils.mapSettingsScope(settings))
    settings.setExpressionContext(known)
    return settings


def _draw_map(settings: QgsMapSettings, painter: QPainter, progress: Progress) -> list[str]:
    """Let QGIS draw a map, with progress and cancel, which need an event loop in this thread."""
    job = QgsMapRendererCustomPainterJob(settings, painter)
    loop, timer, cancelled = QEventLoop(), QTimer(), []
    count, done = max(len(settings.layers()), 1), []

    def tick() -> None:  # nothing may escape from what Qt calls
        try:
            progress(min(len(done) / count, 0.99))
        except Cancelled as error:
            cancelled.append(error)
            job.cancelWithoutBlocking()

    job.layerRendered.connect(done.append)
    job.finished.connect(loop.quit)
    timer.timeout.connect(tick)
    timer.start(30)
    job.start()
    if job.isActive():
        loop.exec(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
    job.waitForFinished()
    timer.stop()
    if cancelled:
        raise cancelled[0]
    return [error.message for error in job.errors()]


def font_of(sheet: Sheet, points: float, bold: bool = False) -> QFont:
    """A font as large on paper whatever the resolution."""
    font = QFont("Sans Serif")
    font.setPixelSize(max(1, round(sheet.px(points * _POINT_MM))))
    font.setBold(bold)
    return font


def draw_text(
    painter: QPainter, sheet: Sheet, box: QRectF, text: str, points: float, colour: QColor = INK, bold: bool = False
) -> float:
    """Write text into the top of a box, in lines as long as it is wide; returns its height [px]."""
    painter.setFont(font_of(sheet, points, bold))
    painter.setPen(colour)
    wrapped = QTextOption(Qt.AlignmentFlag.AlignLeft)
    taken = painter.boundingRect(box, text, wrapped)
    painter.drawText(box, text, wrapped)
    return taken.height()


def _draw_panel(painter: QPainter, sheet: Sheet) -> None:
    left, margin = sheet.px(sheet.map_mm[0]), sheet.px(MARGIN_MM)
    width, height = sheet.px(sheet.panel_mm), sheet.px(sheet.height_mm)
    painter.fillRect(QRectF(left, 0, width, height), Qt.GlobalColor.white)
    painter.setPen(QPen(RULE, sheet.px(0.2)))
    painter.drawLine(QPointF(left, 0), QPointF(left, height))
    box = QRectF(left + margin, margin, width - 2 * margin, height - 2 * margin)

    def write(text: str, points: float, colour: QColor, bold: bool, after_mm: float) -> None:
        if text:
            box.setTop(box.top() + draw_text(painter, sheet, box, text, points, colour, bold) + sheet.px(after_mm))

    write(sheet.title, 12, INK, True, 1.2)
    write(sheet.subtitle, 7.5, MUTED, False, 3.5)
    for key in sheet.keys:
        box.setTop(box.top() + _draw_key(painter, sheet, box, key) + sheet.px(1.7))
    box.setTop(box.top() + sheet.px(1.5))
    for fact in sheet.facts:
        write(fact, 8, INK, False, 1.0)
    if sheet.chart is not None:
        box.setTop(max(box.top() + sheet.px(2.0), box.bottom() - sheet.px(sheet.chart.height_mm)))
        if box.height() > sheet.px(0.45 * sheet.chart.height_mm):
            sheet.chart.draw(painter, sheet, box)


def _draw_key(painter: QPainter, sheet: Sheet, box: QRectF, key: Key) -> float:
    """Draw one line of the key; returns its height [px]."""
    icon, row = sheet.px(9.0), sheet.px(4.0)
    if len(key.symbols) == 1:
        only = key.symbols[0]
        row = max(row, sheet.px(only.size() + 0.8)) if only.type() == Qgis.SymbolType.Marker else row
        _draw_symbol(painter, sheet, only, QRectF(box.left(), box.top(), icon, row))
        text = box.adjusted(icon + sheet.px(2.0), (row - sheet.px(3.1)) / 2, 0, 0)
        return max(row, draw_text(painter, sheet, text, key.label, 7.5) + sheet.px(0.6))
    used = draw_text(painter, sheet, box, key.label, 7.5) + sheet.px(0.8)
    step = box.width() / len(key.symbols)
    for index, (symbol, text) in enumerate(zip(key.symbols, key.below)):
        cell = QRectF(box.left() + index * step, box.top() + used, step, sheet.px(2.6))
        _draw_symbol(painter, sheet, symbol, cell)
        painter.setFont(font_of(sheet, 6))
        painter.setPen(MUTED)
        painter.drawText(
            cell.adjusted(0, sheet.px(2.6), 0, sheet.px(3.0)), text, QTextOption(Qt.AlignmentFlag.AlignHCenter)
        )
    return used + sheet.px(5.4)


def _draw_symbol(painter: QPainter, sheet: Sheet, symbol: QgsSymbol, box: QRectF) -> None:
    """Draw a point or a disc in the middle of a box, or a line across it."""
    context = QgsRenderContext.fromQPainter(painter)
    context.setScaleFactor(sheet.dpi / _INCH_MM)
    context.setFlag(Qgis.RenderContextFlag.ForceVectorOutput, True)  # else markers would be small pictures
    copy = symbol.clone()
    painter.save()
    copy.startRender(context)
    if copy.type() == Qgis.SymbolType.Line:
        ends = (QPointF(box.left(), box.center().y()), QPointF(box.right(), box.center().y()))
        copy.renderPolyline(QPolygonF(ends), None, context)
    elif copy.type() == Qgis.SymbolType.Fill:
        disc = QPainterPath()
        disc.addEllipse(box.center(), 0.45 * box.height(), 0.45 * box.height())
        copy.renderPolygon(disc.toFillPolygon(), None, None, context)
    else:
        copy.renderPoint(box.center(), None, context)
    copy.stopRender(context)
    painter.restore()


def _draw_scale(painter: QPainter, sheet: Sheet, extent: QgsRectangle) -> None:
    """Draw a scale bar and an arrow to the north into the lower left corner of the map."""
    map_px = sheet.px(sheet.map_mm[0])
    most_m = SCALE_BAR * extent.width()
    unit = 10 ** math.floor(math.log10(most_m))
    length_m = max(step * unit for step in (1, 2, 5) if step * unit <= most_m)
    length = length_m / extent.width() * map_px
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    left, bottom = sheet.px(CORNER_MM), sheet.px(sheet.height_mm - CORNER_MM)
    tick = sheet.px(1.2)
    bar = QPainterPath(QPointF(left, bottom - tick))
    for x, y in ((left, bottom), (left + length, bottom), (left + length, bottom - tick)):
        bar.lineTo(x, y)
    north = left + length + sheet.px(6.0)
    top, half = bottom - sheet.px(4.6), sheet.px(1.3)
    arrow = QPolygonF(
        [
            QPointF(north, top),
            QPointF(north + half, bottom),
            QPointF(north, bottom - sheet.px(1.1)),
            QPointF(north - half, bottom),
        ]
    )
    painter.save()
    plate = QRectF(QPointF(left - sheet.px(2), top - sheet.px(4.2)), QPointF(north + sheet.px(3), bottom + sheet.px(2)))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(255, 255, 255, 190))
    painter.drawRoundedRect(plate, sheet.px(1), sheet.px(1))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    halo = QColor(255, 255, 255, 200)
    round_ = (Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin)
    for colour, width in ((halo, 1.3), (INK, 0.35)):
        painter.strokePath(bar, QPen(colour, sheet.px(width), *round_))
    painter.setPen(QPen(halo, sheet.px(0.9), *round_))
    painter.setBrush(halo)
    painter.drawPolygon(arrow)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(INK)
    painter.drawPolygon(arrow)
    painter.restore()
    _haloed(painter, sheet, QPointF(left + length / 2, bottom - sheet.px(1.9)), text)
    _haloed(painter, sheet, QPointF(north, top - sheet.px(0.8)), "N")


def _haloed(painter: QPainter, sheet: Sheet, at: QPointF, text: str) -> None:
    """Write text centred above a point, with a white halo."""
    font = font_of(sheet, 7.5)
    outline = QPainterPath()
    outline.addText(at.x() - QFontMetricsF(font).horizontalAdvance(text) / 2, at.y(), font, text)
    halo = QPen(QColor(255, 255, 255, 220), sheet.px(0.9))
    halo.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    painter.strokePath(outline, halo)
    painter.fillPath(outline, INK)
