"""`telcoloc:trainlocalizer`: learn where devices are from measurement reports with a true position, and say how far off that is."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsCoordinateTransform,
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
    QgsRectangle,
)

from ..models.errors import InputError
from ..models.trajectory.methods import METHODS, parts_of
from ..models.trajectory.splits import SPLITS
from ..telcoloc_qgis import charts
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.crs import metric_crs
from ..telcoloc_qgis.localization import (
    Judged,
    add_figures,
    cdf_section,
    check_method,
    circles_table,
    device_of,
    figures,
    figures_table,
    say_errors,
    wgs84,
    write_judged,
)
from ..telcoloc_qgis.measurements import read_cell_sites, read_measurements
from ..telcoloc_qgis.sites import counted
from ..telcoloc_qgis.tracks import transformed

if TYPE_CHECKING:
    from ..models.trajectory.evaluate import Errors
    from ..models.trajectory.measurements import CellSites, Measurements
    from ..models.trajectory.street_lines import StreetLines
    from ..models.trajectory.training import Trained, TrainJob

#: Streets are read this far beyond the true positions [m].
_MARGIN_M = 2500.0


class TrainLocalizer(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "trainlocalizer"
    TITLE = "Train localizer"
    GROUP = "Trajectories"
    SUMMARY = "Learn to localise devices from measurement reports with a true position, and learn how far off that is."
    DESCRIPTION = (
        "Learns from those measurement reports (MRs) whose true position is known, and writes a model file that 'Localize measurements' "
        "takes. What is judged is never learned from: whole trajectories (or days) are held out, and the errors are those of a model that "
        "has not seen them.\n\n"
        "With SPLIT trajectory or day the figures are what new walks and drives will get. SPLIT sample holds out single records, as in the "
        "DeepLoc paper: neighbouring seconds of one walk are then on both sides, and the errors look several times smaller than what a "
        "user gets.\n\n"
        "auto is the method that does best on held-out trajectories. nbl: Gaussians per cell and grid square. raf: a random forest. ccr: "
        "two layers of forests with what came before and after. hmm: hidden Markov model. cnn, lstm, stacklstm, seq2seq, convlstm, "
        "reculstm, deeploc: neural networks; they need torch. _f: particle-filtered afterwards. _m: matched to STREETS afterwards.\n\n"
        "Every position comes with two radii, calibrated on records that were not learned from: the circles that hold about 50 % and 90 % "
        "of the true positions. The log says what they held. On one computer, equal data, settings and seeds make equal models."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:trainlocalizer --INPUT=measurements.gpkg --METHOD=nbl --MODEL=localizer.safetensors "
        "--EVALUATION=held_out.gpkg --REPORT=localizer.html"
    )
    TAGS = ("telecom", "measurement reports", "mr", "localisation", "localization", "positioning", "fingerprinting", "deeploc",
            "random forest", "lstm", "cnn", "neural network", "trajectory", "training", "torch", "cuda")  # fmt: skip
    ICON = "train_localizer.svg"

    def define(self) -> None:
        number, kinds = QgsProcessingParameterNumber, QgsProcessing.SourceType
        self.add(
            QgsProcessingParameterFeatureSource("INPUT", self.tr("Measurements"), [kinds.TypeVector]),
            self.tr(
                "Measurement reports in the normal form, as 'Import measurements' writes it. The true positions are its points or "
                "truth_lon and truth_lat; records without one help as context only."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "BASE_STATIONS", self.tr("Base stations"), [kinds.TypeVector], optional=True
            ),
            self.tr(
                "Where the cells stand: CELLS of 'Import measurements', or any point layer of cells or base stations in any CRS. Several "
                "methods do better with it on streets that nobody has measured."
            ),
        )
        self.add(
            QgsProcessingParameterField(
                "BS_ID_FIELD",
                self.tr("Id field of the base stations"),
                parentLayerParameterName="BASE_STATIONS",
                allowMultiple=True,
                optional=True,
            ),
            self.tr(
                "Field that names a cell as the measurements do; several are joined as 6188-26051. By default the fields are taken that "
                "name most of the cells."
            ),
        )
        self.add(
            QgsProcessingParameterEnum(
                "METHOD", self.tr("Method"), list(METHODS), defaultValue=METHODS[0], usesStaticStrings=True
            ),
            self.tr("What to train; see above. _f and _m: with a particle filter, or map matching, behind it."),
        )
        self.add(
            QgsProcessingParameterEnum(
                "SPLIT", self.tr("Hold out by"), list(SPLITS), defaultValue=SPLITS[0], usesStaticStrings=True
            ),
            self.tr(
                "What is judged by: whole trajectories, whole days, or single records (sample: as in the paper, too good to be true)."
            ),
        )
        self.add(
            number("TEST_SHARE", self.tr("Share held out"), number.Type.Double, 0.2, False, 0.0, 0.9),
            self.tr(
                "Share of the records with a true position to judge by; at least one trajectory or day. 0: learn from all, unjudged."
            ),
        )
        self.add(
            number("SEED", self.tr("Seed"), number.Type.Integer, 0, False, 0, 2**31 - 1),
            self.tr("Of what is held out, and of every random choice of the method."),
        )
        self.add(
            QgsProcessingParameterBoolean("REFIT", self.tr("Learn from all in the end"), True),
            self.tr(
                "Once judged, learn again from all records with a true position, so that the model knows what was held out too. The errors "
                "are those of the model before that."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSource("STREETS", self.tr("Streets"), [kinds.TypeVectorLine], optional=True),
            self.tr(
                "Line layer in any CRS that methods with _m match to. The model keeps the streets within 2 km of the true positions."
            ),
        )
        self.add(
            QgsProcessingParameterField(
                "ONEWAY_FIELD", self.tr("One-way field"), parentLayerParameterName="STREETS", optional=True
            ),
            self.tr(
                "Field that says which streets are one-way, in the notation of OpenStreetMap (yes, no, -1). By default it is recognised by "
                "its name."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterString("OPTIONS", self.tr("Options of the method"), "", optional=True),
            self.tr(
                "Settings of the method itself as name=value, with commas between them, e.g. trees=200, min_leaf=4. A name that the method "
                "does not have is refused, with those it has."
            ),
            advanced=True,
        )
        self.add_device()
        self.add(
            QgsProcessingParameterFileDestination("MODEL", self.tr("Model"), self.tr("Model files (*.safetensors)")),
            self.tr("The model file: all that was learned, with a card that says from what and how far off it was."),
        )
        self.add(
            QgsProcessingParameterFeatureSink(
                "EVALUATION", self.tr("Evaluation"), kinds.TypeVectorPoint, optional=True, createByDefault=True
            ),
            self.tr(
                "The held-out records at their predicted positions: device, trajectory, time, error_m, uncertainty_m and uncertainty_90_m "
                "(radii of the 50 % and 90 % circles), inside_50, inside_90, serving_cell, true_lon, true_lat, source_row, method."
            ),
        )
        self.add(
            QgsProcessingParameterFileDestination(
                "REPORT", self.tr("Report"), self.tr("HTML files (*.html)"), optional=True, createByDefault=True
            ),
            self.tr("Page with the cumulative curve of the errors, their figures, and the facts of the training."),
        )
        add_figures(self, "over the held-out records", " Empty with TEST_SHARE 0.")
        for name, label, text in (
            ("TEST_COUNT", "Records held out", "Number of records judged."),
            ("TRAIN_COUNT", "Records learned from", "Number of records with a true position that the judged model learned from."),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):  # fmt: skip
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        self.add_result(QgsProcessingOutputString("DEVICE_USED", self.tr("Device used")), self.tr("cpu or cuda."))

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.trajectory.model_file import save_localizer
        from ..models.trajectory.training import TrainJob, train_localizer

        parameters = run.parameters
        method = parameters.choice("METHOD")
        check_method(method)
        options = options_of(self.parameterAsString(parameters.values, "OPTIONS", run.context))
        self._check_streets(run, method)
        device = device_of(run, method)
        data = read_measurements(
            run, parameters.source("INPUT"), progress=run.progress.phase(self.tr("Reading the measurements"), 0.0, 0.08)
        )
        _say_data(run, data)
        sites = _sites(run, data)
        streets = _streets(run, data) if parts_of(method)[1] == "m" and data.has_truth.any() else None
        job = TrainJob(
            method=method,
            split=parameters.choice("SPLIT"),
            test_share=parameters.number("TEST_SHARE") or 0.0,
            seed=parameters.integer("SEED") or 0,
            device=device,
            threads=run.threads,
            refit=parameters.flag("REFIT"),
            options=options,
        )
        trained = train_localizer(data, sites, job, streets, run.progress.phase(f"Training {method}", 0.1, 0.97))
        run.info("Seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in trained.seconds.items()) + ".")
        judged = _judged(run, data, trained)
        save_localizer(run.outputs.file("MODEL", ".safetensors"), trained.model)
        learned = int(data.has_truth.sum()) - len(trained.test_rows)
        if parameters.wants("REPORT"):
            page = _page(trained, job, judged, learned, device)
            run.outputs.file("REPORT", ".html").write_text(page, encoding="utf-8")
        if parameters.wants("EVALUATION"):
            write_judged(run, "EVALUATION", judged, run.progress.phase(self.tr("Writing"), 0.97, 1.0), method)
        return {
            **figures(trained.errors),
            "TEST_COUNT": trained.errors.count if trained.errors else 0,
            "TRAIN_COUNT": learned,
            "SECONDS": round(run.seconds, 2),
            "DEVICE_USED": device,
        }

    def _check_streets(self, run: Run, method: str) -> None:
        name, variant = parts_of(method)
        given = run.parameters.given("STREETS")
        if variant == "m" and not given:
            raise InputError(
                f"Method '{method}' matches to streets, but there is no street layer. Choose STREETS, or '{name}'."
            )
        if variant != "m" and given:
            run.warn(f"STREETS is not used: method '{method}' does not match to streets, '{name}_m' does.")


def options_of(text: str | None) -> dict[str, float | int | bool | str]:
    """Read "name=value, name=value" as numbers, true or false, or text.

    Raises
    ------
    InputError
        When a part has no name or no value, or a name comes twice.
    """
    options: dict[str, float | int | bool | str] = {}
    for part in re.split(r"[,;\n]", text or ""):
        if not part.strip():
            continue
        name, equals, value = (piece.strip().strip("'\"") for piece in part.partition("="))
        if not (equals and name and value):
            raise InputError(f"OPTIONS has '{part.strip()}', but must be name=value with commas between them.")
        if name in options:
            raise InputError(f"OPTIONS names '{name}' twice.")
        options[name] = _value_of(value)
    return options


def _value_of(text: str) -> float | int | bool | str:
    if text.lower() in ("true", "false", "yes", "no"):
        return text.lower() in ("true", "yes")
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


def _say_data(run: Run, data: Measurements) -> None:
    known = data.has_truth
    run.info(
        f"{counted(len(data), 'record')} of {counted(len(data.devices), 'device')} in "
        f"{counted(len(data.starts) - 1, 'trajectory', 'trajectories')}, {counted(len(data.cells), 'cell')}; with a true position: "
        f"{counted(int(known.sum()), 'record')} in "
        f"{counted(len(np.unique(data.trajectory[known])), 'trajectory', 'trajectories')}."
    )


def _sites(run: Run, data: Measurements) -> CellSites:
    """Positions of the cells, none without a layer."""
    from ..models.trajectory.measurements import CellSites

    if not run.parameters.given("BASE_STATIONS"):
        return CellSites.none()
    source = run.parameters.source("BASE_STATIONS")
    sites = read_cell_sites(run, source, run.parameters.fields("BS_ID_FIELD", source), cells=data.cells)
    known = int(np.isfinite(sites.positions_of(data.cells)[0]).sum())
    text = f"BASE_STATIONS tells where {known:,} of the {len(data.cells):,} cells of the measurements are."
    (run.info if 2 * known >= len(data.cells) else run.warn)(text)
    return sites


def _streets(run: Run, data: Measurements) -> StreetLines:
    """The streets around the true positions, in degrees."""
    from ..models.trajectory.street_lines import StreetLines
    from ..models.trajectory.streets import BACKWARD, BOTH, FORWARD
    from ..telcoloc_qgis.streets import read_streets

    known = data.has_truth
    lon, lat = data.lon[known], data.lat[known]
    context = run.context.transformContext()
    east = lon % 360 if np.ptp(lon) > 180 else lon  # on both sides of the antimeridian
    metric, _ = metric_crs(wgs84(), QgsRectangle(east.min(), lat.min(), east.max(), lat.max()), context)
    x_m, y_m = transformed(QgsCoordinateTransform(wgs84(), metric, context), lon, lat)
    around = QgsRectangle(np.nanmin(x_m), np.nanmin(y_m), np.nanmax(x_m), np.nanmax(y_m)).buffered(_MARGIN_M)
    reading = run.progress.phase("Reading the streets", 0.08, 0.1)
    streets = read_streets(run, "STREETS", metric, around, "ONEWAY_FIELD", reading).streets
    back = QgsCoordinateTransform(metric, wgs84(), context)
    direction = np.where(streets.forward & streets.backward, BOTH, np.where(streets.forward, FORWARD, BACKWARD))
    return StreetLines(
        np.ascontiguousarray(transformed(back, *streets.xy_m.T).T), streets.first, direction.astype(np.int8)
    )


def _judged(run: Run, data: Measurements, trained: Trained) -> Judged:
    """The held-out records that have a fix; what they are and what is missing goes to the log."""
    from ..models.trajectory.evaluate import distance_m

    rows, located = trained.test_rows, trained.located
    nothing = np.empty(0)
    if located is None:
        empty = (("",), np.empty(0, dtype=int))
        run.info("Nothing was held out, so nothing says how far off the model is.")
        return Judged(empty, empty, empty, *([nothing] * 8), np.empty(0, dtype=int))
    fixed = np.isfinite(located.lon)
    kept = rows[fixed]
    if trained.errors is not None:
        how = {"sample": "records", "trajectory": "trajectories", "day": "days"}[str(trained.model.card["split"])]
        say_errors(run, trained.errors, f"held-out {how}")
    if len(kept) < len(rows):
        run.warn(
            f"{len(rows) - len(kept):,} of the {len(rows):,} held-out records could not be localised: neither they nor their "
            "neighbours heard a cell that the others did. They are not in the figures."
        )
    return Judged(
        (data.devices, data.device[kept]),
        (data.trajectories, data.trajectory[kept]),
        (data.cells, data.cell[kept, 0]),
        data.time_s[kept],
        located.lon[fixed],
        located.lat[fixed],
        data.lon[kept],
        data.lat[kept],
        distance_m(located.lon[fixed], located.lat[fixed], data.lon[kept], data.lat[kept]),
        located.radius_50_m[fixed],
        located.radius_90_m[fixed],
        data.row[kept],
    )


def _page(trained: Trained, job: TrainJob, judged: Judged, learned: int, device: str) -> str:
    sections: list[charts.ChartSection | charts.TableSection] = []
    errors: Errors | None = trained.errors
    if errors is not None:
        sections = [
            figures_table(
                [(job.method, errors)],
                "Method",
                "Errors",
                "Distance from the true position of records the model had not seen.",
            ),
            cdf_section(judged.error_m, job.method),
            circles_table(errors),
        ]
    facts = [
        ("Method", job.method),
        ("Options", ", ".join(f"{name}={value}" for name, value in (job.options or {}).items()) or "none"),
        ("Held out by", f"{job.split}, a share of {job.test_share:g}"),
        ("Learned from", f"{learned:,} records, then all" if job.refit and errors else f"{learned:,} records"),
        ("Cells known", f"{len(trained.model.localizer.cells_):,}"),
        ("Seed", str(job.seed)),
        ("Device", device),
        *((f"Seconds {stage}", f"{seconds:.1f}") for stage, seconds in trained.seconds.items()),
    ]
    sections.append(charts.TableSection("Training", ["", ""], facts))
    return charts.html_report("Training of a localizer", f"Model '{job.method}'", sections, "TelcoLoc")
