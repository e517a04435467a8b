"""`telcoloc:trackingmap`: landmark-assisted tracking as a map for a report or a talk, to PNG or PDF."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from qgis.core import (
    QgsMapLayer,
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDateTime,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
)

from ..models.errors import InputError
from ..telcoloc_qgis import tracking_styles as styles
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.base_map import PAPER, adopt, copies, raster_keys
from ..telcoloc_qgis.landmarks import read_landmarks, read_matches
from ..telcoloc_qgis.map_sheet import Key, Sheet, fitted, scale_of, write_sheet
from ..telcoloc_qgis.sheet_chart import Curve, TimeChart
from ..telcoloc_qgis.temporal import utc
from ..telcoloc_qgis.tracking_layers import natural_extent, tracking_layers
from ..telcoloc_qgis.tracking_scene import TrackingScene, read_scene

MUTED = ("unstyled", "all", "none")


class TrackingMap(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "trackingmap"
    TITLE = "Draw tracking map"
    GROUP = "Landmarks"
    SUMMARY = "Candidates, graph, landmarks and the chosen path over a city map, as a picture or a PDF."
    DESCRIPTION = (
        "Draws what 'Track with landmarks' found: candidates shaded by how far their signal is off, the motion that was possible in grey "
        "(dashed over skipped instants), the path chosen in red, landmarks as squares, and the truth in blue where it is known, with the "
        "error at each instant in a chart.\n\n"
        "Without a time the map shows the whole path. With AROUND it shows a few instants close up, as Figures 2 and 7 of the paper on "
        "landmark-assisted tracking do; with RADIUS also where landmarks were looked for, as its Figure 6.\n\n"
        "Layers below the map keep the style they have in the project; those without one are drawn calmly. Nothing is added to the "
        "project, and no print layout is needed."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:trackingmap --PATH=path.gpkg --EDGES=edges.gpkg --CANDIDATES=candidates.gpkg "
        "--LANDMARKS=landmarks.gpkg --BASE=streets.gpkg --BASE=buildings.gpkg --MAP=map.png"
    )
    TAGS = ("telecom", "landmark", "time-forwarding graph", "tfg", "map", "figure", "print", "png", "pdf", "trajectory")
    ICON = "tracking_map.svg"

    def __init__(self) -> None:
        super().__init__()
        self._base: list[QgsMapLayer] = []

    def define(self) -> None:
        point, line = QgsProcessing.SourceType.TypeVectorPoint, QgsProcessing.SourceType.TypeVectorLine
        source, number = QgsProcessingParameterFeatureSource, QgsProcessingParameterNumber
        self.add(
            source("PATH", self.tr("Path"), [point]),
            self.tr(
                "PATH of 'Track with landmarks', or any points with a field of times. They are joined in the order of time."
            ),
        )
        for name, label, kind, text in (
            ("EDGES", "Edges of the graph", line, "EDGES of 'Track with landmarks'."),
            (
                "CANDIDATES",
                "Candidates",
                point,
                "CANDIDATES of 'Track with landmarks' or of 'Signal candidates': points with error_db [dB].",
            ),
            (
                "LANDMARKS",
                "Landmarks",
                point,
                "The landmarks, with a name and, where there are two kinds, with kind (location or service).",
            ),
            (
                "MATCHES",
                "Recognised landmarks",
                QgsProcessing.SourceType.TypeVector,
                "MATCHES of 'Match landmarks', or a table of another recogniser. It needs LANDMARKS.",
            ),
            (
                "TRUTH",
                "True positions",
                point,
                "Where the devices really were, with times and, where there are several, with device.",
            ),
        ):
            self.add(source(name, self.tr(label), [kind], optional=True), self.tr(text))
        self.add(
            QgsProcessingParameterMultipleLayers(
                "BASE", self.tr("Layers below"), QgsProcessing.SourceType.TypeMapLayer, optional=True
            ),
            self.tr(
                "Layers to draw below, such as streets, buildings or a raster, the first on top. They keep their style."
            ),
        )
        self.add(
            QgsProcessingParameterString("DEVICE", self.tr("Device"), optional=True),
            self.tr("Draw only this device or trajectory; by default all of them."),
        )
        for name, label, text in (
            ("AROUND", "Around", "Show a few instants around this time (UTC unless it names a time zone), close up."),
            ("FROM", "From", "Show instants from this time on; by default from the first one."),
            ("TO", "To", "Show instants up to this time; by default up to the last one."),
        ):
            self.add(
                QgsProcessingParameterDateTime(name, self.tr(label), optional=True),
                self.tr(text),
                advanced=name != "AROUND",
            )
        self.add(
            number("INSTANTS", self.tr("Instants around"), number.Type.Integer, 5, False, 1, 1000),
            self.tr("How many instants AROUND shows."),
        )
        self.add(
            number("RADIUS", self.tr("Search radius [m]"), number.Type.Double, 0.0, False, 0.0, 10_000.0),
            self.tr("Radius of circles to draw around candidates [m]: where landmarks were looked for. 0 draws none."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterExtent("EXTENT", self.tr("Extent"), optional=True),
            self.tr("What the map shows, widened to its shape. By default the path with a margin."),
        )
        self.add(
            QgsProcessingParameterString(
                "TITLE", self.tr("Title"), self.tr("Landmark-assisted tracking"), optional=True
            ),
            self.tr("Title beside the map."),
        )
        self.add(
            QgsProcessingParameterBoolean("KEY", self.tr("Key and chart"), True),
            self.tr("Whether title, key and the chart of errors (where the truth is known) stand beside the map."),
        )
        for name, label, default, low, high, text in (
            (
                "WIDTH",
                "Width [mm]",
                254.0,
                50.0,
                2000.0,
                "Width of the picture on paper [mm]. The default is that of a slide.",
            ),
            ("HEIGHT", "Height [mm]", 143.0, 50.0, 2000.0, "Height of the picture on paper [mm]."),
        ):
            self.add(
                number(name, self.tr(label), number.Type.Double, default, False, low, high),
                self.tr(text),
                advanced=True,
            )
        self.add(
            number("DPI", self.tr("Resolution [dpi]"), number.Type.Integer, 200, False, 30, 1200),
            self.tr("Pixels per inch of paper."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterEnum(
                "MUTED", self.tr("Muted layers"), list(MUTED), defaultValue="unstyled", usesStaticStrings=True
            ),
            self.tr(
                "Which vector layers of BASE are drawn in calm colours instead of their own: unstyled ones (one symbol that QGIS chose), "
                "all, or none."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterFileDestination(
                "MAP", self.tr("Map"), self.tr("PNG pictures (*.png);;PDF files (*.pdf)")
            ),
            self.tr("The map, a picture (.png) or a document (.pdf) in which lines and text stay sharp."),
        )
        for name, label, text in (
            ("SCALE", "Scale", "Denominator of the map's scale."),
            ("INSTANT_COUNT", "Instants", "Number of instants of the path that are shown."),
            (
                "MEAN_ERROR",
                "Mean error [m]",
                "Mean distance of the shown path to the truth [m]; empty where no truth is known.",
            ),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        if not super().prepareAlgorithm(parameters, context, feedback):
            return False
        layers = self.parameterAsLayerList(parameters, "BASE", context)
        for layer in layers:
            if not layer.isValid():
                raise QgsProcessingException(f"BASE: layer '{layer.name()}' cannot be read.")
            self._input_files[os.path.realpath(layer.source().split("|")[0])] = "BASE"
        self._base = copies(layers, context.project())
        return True

    def work(self, run: Run) -> dict[str, Any]:
        base, self._base = self._base, []
        adopt(base, run.parameters.choice("MUTED"))
        if run.parameters.given("MATCHES") and not run.parameters.given("LANDMARKS"):
            raise InputError("MATCHES is given without LANDMARKS; give the layer of landmarks, too.")
        scene = read_scene(run, run.progress.phase(self.tr("Reading layers"), 0.0, 0.4))
        landmarks = matches = None
        source, table = run.parameters.source("LANDMARKS"), run.parameters.source("MATCHES")
        if source is not None:
            landmarks, _ = read_landmarks(run, source, scene.crs)
            matches = read_matches(run, table, landmarks) if table is not None else None
        numbered = run.parameters.given("AROUND")
        layers, keys = tracking_layers(scene, landmarks, matches, run.parameters.number("RADIUS"), numbered)
        sheet = _sheet(run, scene, [*keys, *raster_keys(base)])
        wanted = run.parameters.extent("EXTENT", scene.crs, run.parameters.source("PATH").sourceCrs())
        extent = fitted(wanted if wanted is not None else natural_extent(scene), sheet)
        scale = scale_of(extent, sheet)
        run.info(f"The map shows {int(scene.shown.sum()):,} instants at 1:{scale:,.0f}.")
        path = run.outputs.file("MAP", ".png", ".pdf")
        progress = run.progress.phase(self.tr("Drawing"), 0.4, 0.98)
        context = run.context.transformContext()
        for text in write_sheet(path, sheet, [*layers, *base], scene.crs, extent, PAPER, context, progress):
            run.warn(f"A layer could not be drawn: {text}")
        error = scene.error_m[scene.shown]
        known = error[np.isfinite(error)]
        return {
            "SCALE": round(scale),
            "INSTANT_COUNT": int(scene.shown.sum()),
            "MEAN_ERROR": round(float(known.mean()), 2) if known.size else None,
            "SECONDS": round(run.seconds, 2),
        }


def _sheet(run: Run, scene: TrackingScene, keys: list[Key]) -> Sheet:
    """Page, title, key, facts and chart."""
    parameters = run.parameters
    size = parameters.number("WIDTH"), parameters.number("HEIGHT"), parameters.integer("DPI")
    if not parameters.flag("KEY"):
        return Sheet(*size)
    title = parameters.algorithm.parameterAsString(parameters.values, "TITLE", parameters.context).strip()
    shown = scene.shown
    names = list(dict.fromkeys(device or trajectory for device, trajectory in scene.path.group))
    who = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    begin, end = (utc(value) for value in (scene.path.time_s[shown].min(), scene.path.time_s[shown].max()))
    same_day = begin[:10] == end[:10]
    when = begin if begin == end else f"{begin} – {end[11:] if same_day else end}"
    return Sheet(*size, title, f"{who}{chr(10) if who else ''}{when} UTC", keys, _facts(scene), _chart(scene))


def _facts(scene: TrackingScene) -> list[str]:
    """What the truth says of the instants shown."""
    error = scene.error_m[scene.shown]
    known = error[np.isfinite(error)]
    if not known.size:
        return []
    facts = [
        f"Mean error {known.mean():.0f} m over {known.size:,} instants" if known.size > 1 else f"Error {known[0]:.0f} m"
    ]
    best = _best_candidates(scene)
    if best is not None and np.isfinite(best[1]).any():
        facts.append(f"{np.nanmean(best[1]):.0f} m with the best single candidate")
    return facts


def _best_candidates(scene: TrackingScene) -> tuple[np.ndarray, np.ndarray] | None:
    """Times and errors [m] of the candidates of rank 1 in the window, in order."""
    if scene.candidates is None:
        return None
    first = np.flatnonzero(scene.candidates.numbers("rank") == 1)
    first = first[np.argsort(scene.candidates.time_s[first], kind="stable")]
    return scene.candidates.time_s[first], scene.candidate_error_m[first]


def _chart(scene: TrackingScene) -> TimeChart | None:
    """The error over the whole path, or over several from the start of each, with the window in it; None where no truth is known."""
    path, error = scene.path, scene.error_m
    if not np.isfinite(error).any() or len(path) < 3:
        return None
    caption = "Error [m] at each instant"
    at_landmark = np.array([str(value).lower() == "landmark" for value in path.columns.get("kind", [""] * len(path))])
    changes = [row for row in range(1, len(path)) if path.group[row] != path.group[row - 1]]
    if changes:
        limits = zip([0, *changes], [*changes, len(path)])
        parts = [(path.time_s[a:b] - path.time_s[a], error[a:b], at_landmark[a:b]) for a, b in limits]
        curves = [Curve(time_s, value, "#90c8232c", 0.25) for time_s, value, _ in parts]
        marks = np.concatenate([time_s[marked] for time_s, _, marked in parts])
        return TimeChart(curves, marks, styles.CHOSEN, None, f"{caption}, from the start of each path")
    curves = [Curve(path.time_s, error, styles.CHOSEN, 0.35)]
    best = _best_candidates(scene)
    if scene.window.whole and best is not None and np.isfinite(best[1]).any():
        curves.insert(0, Curve(*best, styles.POSSIBLE, 0.2))
        caption += ", in grey of the best single candidate"
    window = None if scene.window.whole else (scene.window.begin_s, scene.window.end_s)
    return TimeChart(curves, path.time_s[at_landmark], styles.CHOSEN, window, caption)
