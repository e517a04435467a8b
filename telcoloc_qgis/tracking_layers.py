"""The layers of a tracking map, made of what was read for it and styled for its scale, and their key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from qgis.core import (
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsRectangle,
    QgsSingleSymbolRenderer,
    QgsSymbol,
    QgsVectorLayer,
)
from qgis.PyQt.QtXml import QDomDocument

from ..models.landmarks.landmark_set import Landmarks, Matches
from . import tracking_styles as styles
from .map_sheet import Key
from .sites import id_text
from .tracking_scene import TrackingScene, Window

#: Up to so many instants are drawn as points, and up to so many have a text beside them.
MOST_POINTS, MOST_TEXTS = 80, 15
#: Share of a window's candidates and edges that its map holds, and its least width [m].
_INSIDE, _LEAST_EXTENT_M = 0.5, 120.0


@dataclass(frozen=True)
class Part:
    """Layers, the first on top, and their lines of the key."""

    layers: Sequence[QgsVectorLayer] = ()
    keys: Sequence[Key] = field(default_factory=list)


def tracking_layers(
    scene: TrackingScene, landmarks: Landmarks | None, matches: Matches | None, radius_m: float, numbered: bool
) -> tuple[list[QgsVectorLayer], list[Key]]:
    """The layers of a scene, the first on top, and the key that explains them.

    Parameters
    ----------
    radius_m
        Of the circles around candidates in which landmarks were searched [m]; 0 for none.
    numbered
        Whether instants are called t, t+1, … as in the paper.
    """
    points, (inside, outside), beside = _path_points(scene, numbered), _path_lines(scene), _error_lines(scene)
    candidates, circles, truth = _candidates(scene), _circles(scene, radius_m), _truth(scene)
    chosen, possible = _edges(scene)
    known = _landmarks(scene, landmarks, matches)
    dots = (truth, candidates) if scene.window.whole else (candidates, truth)  # many dots would hide the line
    drawn = (points, known, beside, inside, chosen, *dots, possible, outside, circles)
    explained = (inside, chosen, points, outside, truth, beside, known, candidates, possible, circles)
    return [layer for part in drawn for layer in part.layers], [key for part in explained for key in part.keys]


def natural_extent(scene: TrackingScene) -> QgsRectangle:
    """The path and the truth of the window with a margin; close up, the path in the middle of the nearer half of what was possible."""
    xy = [scene.path.xy_m[scene.shown], scene.true_xy_m[scene.shown]]
    if scene.window.whole and scene.truth is not None:
        xy.append(scene.truth.xy_m)
    places = np.concatenate(xy)
    places = places[np.isfinite(places).all(axis=1)]
    low, high = places.min(axis=0), places.max(axis=0)
    middle, size = (low + high) / 2, np.maximum(1.16 * (high - low), _LEAST_EXTENT_M)
    possible = [rows.xy_m for rows in (scene.edges, scene.candidates) if rows is not None and len(rows)]
    if possible and not scene.window.whole:
        away = [np.abs(places - middle).max(axis=1) for places in possible]
        size = np.maximum(size, 2 * max(float(np.quantile(far, _INSIDE)) for far in away))
    return QgsRectangle.fromCenterAndSize(QgsPointXY(*middle.tolist()), *size.tolist())


def _path_points(scene: TrackingScene, numbered: bool) -> Part:
    rows = np.flatnonzero(scene.shown)
    kinds = [id_text(value).lower() for value in scene.path.columns.get("kind", ["candidate"] * len(scene.path))]
    if len(rows) > MOST_POINTS:  # they would hide the line
        rows = np.array([row for row in rows if kinds[row] == "landmark"], dtype=int)
    moments = np.unique(scene.path.time_s[scene.shown])
    begin = int(np.searchsorted(moments, _middle(moments)))
    texts = []
    for row in rows:
        error = scene.error_m[row]
        text = f"{error:.0f} m" if np.isfinite(error) else ""
        if numbered:
            step = int(np.searchsorted(moments, scene.path.time_s[row])) - begin
            name = f"t{step:+d}".replace("-", "−") if step else "t"
            text = f"{name} · {text}" if text else name
        texts.append(text if len(moments) <= MOST_TEXTS else "")
    picked = [kinds[row] if kinds[row] in styles.PATH_KINDS else "candidate" for row in rows]
    layer = _layer(
        scene, "Point", "kind:string,text:string", (scene.path.geometry[row] for row in rows), zip(picked, texts)
    )
    _dress(layer, styles.path_qml(size_mm=1.3 if len(rows) > MOST_TEXTS else 2.0))
    if any(texts):
        styles.label_points(layer, '"text"', styles.CHOSEN, 7.5)
    return Part([layer], _keys(layer, set(picked)))


def _middle(moments: np.ndarray) -> float:
    """The one of rising times that is called t."""
    return float(moments[len(moments) // 2])


def _path_lines(scene: TrackingScene) -> tuple[Part, Part]:
    """The path within the window in red, and the rest of it thin and pale."""
    inside, outside = [], []
    for first, last in zip(scene.parts[:-1], scene.parts[1:]):
        xy, shown = scene.path.xy_m[first:last], scene.shown[first:last]
        joined = shown[:-1] & shown[1:]
        inside += _stretches(xy, joined)
        outside += _stretches(xy, ~joined)
    red, pale = (_layer(scene, "LineString", "", lines) for lines in (inside, outside))
    _dress(red, styles.path_lines_qml(0.7, edge=True))
    _dress(pale, styles.path_lines_qml(0.25, edge=True))
    pale.renderer().symbol().setOpacity(0.4)
    rest = Part([pale], [Key([_symbol(pale)], "The rest of the path")] if outside else [])
    if scene.edges is not None and not scene.window.whole:  # the edges chosen say more: which of them skip instants
        return Part(), rest
    return Part([red], [Key([_symbol(red)], "The path chosen")] if inside else []), rest


def _stretches(xy_m: np.ndarray, joined: np.ndarray) -> list[QgsGeometry]:
    """Lines through neighbouring points whose step is `joined`, shape (n - 1,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], joined, [False]]).astype(int)))
    return [_line(xy_m[first : last + 1]) for first, last in zip(edges[::2], edges[1::2])]


def _line(xy_m: np.ndarray) -> QgsGeometry:
    return QgsGeometry.fromPolylineXY([QgsPointXY(x, y) for x, y in xy_m.tolist()])


def _error_lines(scene: TrackingScene) -> Part:
    """Thin lines from where the path is to where the device was, for a few instants."""
    rows = np.flatnonzero(scene.shown & np.isfinite(scene.true_xy_m).all(axis=1))
    if not len(rows) or len(rows) > MOST_POINTS:
        return Part()
    lines = [_line(np.stack([scene.path.xy_m[row], scene.true_xy_m[row]])) for row in rows]
    layer, dots = _layer(scene, "LineString", "", lines), _layer(scene, "Point", "", _points(scene.true_xy_m[rows]))
    _dress(layer, styles.error_lines_qml())
    _dress(dots, styles.truth_qml(size_mm=1.4))
    return Part([dots, layer], [Key([_symbol(layer)], "Error at an instant")])


def _landmarks(scene: TrackingScene, landmarks: Landmarks | None, matches: Matches | None) -> Part:
    if landmarks is None:
        return Part()
    kinds = ["location" if fiducial else "service" for fiducial in landmarks.fiducial]
    layer = _layer(scene, "Point", "id:string,kind:string", _points(landmarks.xy_m), zip(landmarks.ids, kinds))
    _dress(layer, styles.landmarks_qml("id", "kind"))
    keys = _keys(layer, {int(kind == "service") for kind in kinds})
    if matches is None:
        return Part([layer], keys)
    steps = np.diff(np.unique(scene.path.time_s))
    half_s = float(np.median(steps)) / 2 if len(steps) else 0.0  # a photo belongs to the nearest instant
    shown = Window(scene.window.begin_s - half_s, scene.window.end_s + half_s, False).holds(matches.time_s)
    drawn = {device for device, _ in scene.path.group}
    strange = [code for code, name in enumerate(matches.devices) if "" not in drawn and name not in drawn]
    shown &= ~np.isin(matches.device, strange)
    sure = matches.fiducial[shown].astype(int).tolist()
    around = _layer(
        scene, "Point", "fiducial:integer", _points(landmarks.xy_m[matches.landmark[shown]]), ((each,) for each in sure)
    )
    _dress(around, styles.matches_qml())
    return Part([around, layer], [*keys, *_keys(around, set(sure))])


def _candidates(scene: TrackingScene) -> Part:
    rows = scene.candidates
    if rows is None or not len(rows):
        return Part()
    error = rows.numbers("error_db")
    size = float(np.clip(2.4 - 0.45 * np.log10(len(rows)), 0.6, 1.8))
    layer = _layer(scene, "Point", "error_db:double", rows.geometry, ((value,) for value in _nulls(error)))
    _dress(layer, styles.candidates_qml(error, size_mm=size))
    ranges = layer.renderer().ranges()
    limits = [f"{each.lowerValue():.3g}–{each.upperValue():.3g}" for each in ranges]
    return Part(
        [layer],
        [Key([each.symbol().clone() for each in ranges], "Candidates, by error of the signal [dB]", limits)],
    )


def _circles(scene: TrackingScene, radius_m: float) -> Part:
    """Circles around the candidates of the instant in the middle: the filter I(S_t, r) of the paper."""
    rows = scene.candidates
    if not radius_m or rows is None or not len(rows) or scene.window.whole:
        return Part()
    moments = np.unique(rows.time_s)
    discs = [rows.geometry[row].buffer(radius_m, 24) for row in np.flatnonzero(rows.time_s == _middle(moments))]
    together = QgsGeometry.unaryUnion(discs)
    outlines = [QgsGeometry(disc.constGet().exteriorRing().clone()) for disc in discs]
    area, lines = _layer(scene, "MultiPolygon", "", [together]), _layer(scene, "LineString", "", outlines)
    for layer, line in ((area, False), (lines, True)):
        _dress(layer, styles.circles_qml(line))
    return Part([lines, area], [Key([_symbol(area)], f"Where landmarks are looked for at t ({radius_m:g} m)")])


def _edges(scene: TrackingScene) -> tuple[Part, Part]:
    """Edges that were chosen (only close up: else the path is drawn itself), and the others."""
    rows = scene.edges
    if rows is None or not len(rows):
        return Part(), Part()
    forwarding, chosen = ((np.nan_to_num(rows.numbers(name)) > 0).astype(int) for name in ("forwarding", "chosen"))
    crowd = float(np.clip(np.log10(len(rows)) - 2, 0, 2))  # 0 for a hundred edges, 2 for ten thousand
    parts = []
    for which in (1, 0):
        kept = np.flatnonzero(chosen == which)
        layer = _layer(
            scene,
            "LineString",
            "forwarding:integer,chosen:integer",
            (rows.geometry[row] for row in kept),
            ((int(forwarding[row]), which) for row in kept),
        )
        _dress(layer, styles.edges_qml(0.2 - 0.05 * crowd, 0.75 - 0.25 * crowd))
        parts.append(Part([layer], _keys(layer, set((forwarding[kept] + 2 * which).tolist()))))
    return (Part() if scene.window.whole else parts[0]), parts[1]


def _truth(scene: TrackingScene) -> Part:
    rows = scene.truth
    if rows is None:
        return Part()
    same = np.array([first == second for first, second in zip(rows.group[:-1], rows.group[1:])], dtype=bool)
    layer = _layer(scene, "LineString", "", _stretches(rows.xy_m, same))
    _dress(layer, styles.truth_qml(line=True))
    return Part([layer], [Key([_symbol(layer)], "Where the device was")])


def _points(xy_m: np.ndarray) -> list[QgsGeometry]:
    return [QgsGeometry.fromPointXY(QgsPointXY(x, y)) for x, y in xy_m.tolist()]


def _nulls(values: np.ndarray) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]


def _layer(
    scene: TrackingScene,
    kind: str,
    fields: str,
    geometry: Iterable[QgsGeometry],
    attributes: Iterable[Sequence[Any]] | None = None,
) -> QgsVectorLayer:
    """A layer in memory, in this thread."""
    definition = "&".join(f"field={each}" for each in fields.split(",") if each)
    layer = QgsVectorLayer(f"{kind}?{definition}", "tracking", "memory")
    layer.setCrs(scene.crs)
    features = []
    values = iter(attributes) if attributes is not None else None
    for place in geometry:
        feature = QgsFeature(layer.fields())
        feature.setGeometry(place)
        if values is not None:
            feature.setAttributes(list(next(values)))
        features.append(feature)
    layer.dataProvider().addFeatures(features)
    layer.updateExtents()
    return layer


def _dress(layer: QgsVectorLayer, qml: str) -> None:
    """Give a layer a style that is always there, whatever its times."""
    document = QDomDocument()
    document.setContent(qml)
    layer.importNamedStyle(document)
    layer.temporalProperties().setIsActive(False)


def _symbol(layer: QgsVectorLayer) -> QgsSymbol:
    renderer = layer.renderer()
    return renderer.symbol().clone() if isinstance(renderer, QgsSingleSymbolRenderer) else renderer.ranges()[0].symbol()


def _keys(layer: QgsVectorLayer, present: set[Any]) -> list[Key]:
    """A line of the key for each class that is there."""
    categories = layer.renderer().categories()
    keys = [Key([each.symbol().clone()], each.label()) for each in categories if each.value() in present]
    for key in keys:
        key.symbols[0].setOpacity(1.0)  # one line alone is fainter than a crowd of them
    return keys
