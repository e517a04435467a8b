"""`telcoloc:deepmendteacher`: from a truth, the β of each base station whose sPDI map comes nearest to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsFeature,
    QgsFields,
    QgsGeometry,
    QgsPointXY,
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import InputError
from ..telcoloc_qgis import styles
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.geolocation_outputs import write_stack
from ..telcoloc_qgis.outputs import fields_of
from ..telcoloc_qgis.sites import only
from ..telcoloc_qgis.truths import Truth, read_truth, report

if TYPE_CHECKING:
    from ..models.geolocation.teacher import Teaching

#: More steps than this make no better β.
MOST_BETAS = 1000
SMALLEST_BETA, LARGEST_BETA = 0.01, 20.0


class DeepMendTeacher(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "deepmendteacher"
    TITLE = "Teach β from a truth"
    GROUP = "Training"
    SUMMARY = "For operators with a truth: the β of each base station whose sPDI map comes nearest to it."
    DESCRIPTION = (
        "The teacher of the DeepMEND paper (section IV-A). For every base station (BS) of a layer with a true map, tries the attenuations "
        "β between BETA_MIN and BETA_MAX and keeps the one whose sPDI map has the smallest KS2 from the truth.\n\n"
        "OUTPUT can be given to 'Geolocate base stations' as INPUT, with BETA_FIELD beta. BSs without a truth are in it too, with the "
        "median β of their urbanisation and without ks2.\n\n"
        "A truth is a stack as 'Geolocate base stations' or 'Simulate a network' writes it, or any raster in metres with one band per BS, "
        "described by the BS's id, that sums to one over cells (or all bands at each cell)."
    )
    EXAMPLE = "qgis_process run telcoloc:deepmendteacher --INPUT=simulated.gpkg --ID_FIELD=bs_id --TRUTH=simulated.tif --OUTPUT=beta.gpkg"
    TAGS = (
        "telecom",
        "deepmend",
        "teacher",
        "soft labels",
        "beta",
        "attenuation",
        "spdi",
        "calibration",
        "ground truth",
    )
    ICON = "teacher.svg"

    def define(self) -> None:
        number = QgsProcessingParameterNumber
        point = QgsProcessing.SourceType.TypeVectorPoint
        self.add(
            QgsProcessingParameterFeatureSource("INPUT", self.tr("Base stations"), [point]),
            self.tr("Point layer of base stations in any CRS: all of the network, also those without a true map."),
        )
        self.add(
            QgsProcessingParameterField(
                "ID_FIELD", self.tr("Id field"), parentLayerParameterName="INPUT", optional=True
            ),
            self.tr("Field that names the BS as the truth's bands do. Without it the feature id is used."),
        )
        self.add(
            QgsProcessingParameterRasterLayer("TRUTH", self.tr("Truth")),
            self.tr("Stack that counts as the truth: one band per BS, described by the BS id."),
        )
        for name, label, default, text in (
            ("BETA_MIN", "Smallest β", 0.1, "Smallest β to try; the paper's is 0.1."),
            ("BETA_MAX", "Largest β", 6.0, "Largest β to try; the paper's is 6."),
            ("BETA_STEP", "Step of β", 0.1, "Distance between the β to try."),
        ):
            self.add(
                number(name, self.tr(label), number.Type.Double, default, False, SMALLEST_BETA, LARGEST_BETA),
                self.tr(text),
                advanced=True,
            )
        self.add(
            QgsProcessingParameterBoolean("EXHAUSTIVE", self.tr("Try every β"), defaultValue=False),
            self.tr(
                "Try every β, as the paper does. Otherwise every fifth, then all around the best two: three times as quick."
            ),
            advanced=True,
        )
        self.add_device()
        self.add(
            QgsProcessingParameterFeatureSink("OUTPUT", self.tr("β of base stations"), point),
            self.tr(
                "One point per BS: bs_id, beta, ks2 (of its sPDI map from the truth, within a window), urbanisation and local spacing_m."
            ),
        )
        self.add(
            QgsProcessingParameterRasterDestination("SOFT_LABELS", self.tr("Soft labels"), optional=True),
            self.tr("Stack with the sPDI map of each taught BS at its β: what DeepMEND's student learns from."),
        )
        for name, label, text in (
            (
                "KS2_MEDIAN",
                "Median KS2",
                "Median over the taught BSs of the KS2 that remains: what sPDI cannot do better.",
            ),
            ("BETA_MEDIAN", "Median β", "Median β of the taught BSs."),
            ("BS_COUNT", "Base stations taught", "Number of base stations with a true map."),
            ("SKIPPED", "Not matched", "Number of BSs without a band or with an empty one, and of bands without a BS."),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        self.add_result(QgsProcessingOutputString("DEVICE_USED", self.tr("Device used")), self.tr("cpu or cuda."))

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.geolocation.sites import URBANISATIONS
        from ..models.geolocation.teacher import teach

        parameters = run.parameters
        betas = _betas(run)
        labelled = parameters.wants("SOFT_LABELS")
        device = run.device() if labelled else "cpu"
        source = parameters.source("INPUT")
        id_field = parameters.field("ID_FIELD", source)
        reading = run.progress.phase(self.tr("Reading the truth"), 0.0, 0.1)
        truth = read_truth(run, source, id_field, self.raster_sources("TRUTH")[0], reading)
        skipped = report(run, [truth])
        network = truth.network
        run.info(
            f"{len(network.targets):,} of {len(truth.sites):,} base stations have a true map; {len(betas)} β to choose from."
        )
        taught = teach(
            network.sites_m,
            network.grid,
            network.maps,
            network.targets,
            betas=betas,
            mask=network.mask,
            exhaustive=parameters.flag("EXHAUSTIVE"),
            threads=run.threads,
            progress=run.progress.phase(self.tr("Teaching"), 0.1, 0.6 if labelled else 0.95),
        )
        beta = _of_all(truth, taught)
        kinds = network.urbanisation[network.targets]
        for index, name in enumerate(URBANISATIONS):
            if (kinds == index).any():
                of_kind = kinds == index
                run.info(
                    f"{name}: {of_kind.sum():,} base stations, median β {np.median(taught.beta[of_kind]):.2f}, median KS2 "
                    f"{np.median(taught.ks2[of_kind]):.3f}"
                )
        at_end = int(np.isin(taught.beta, (betas[0], betas[-1])).sum())
        if at_end:
            run.info(f"{at_end:,} base stations have the smallest or largest β; a wider range may suit them better.")
        if labelled:
            _write_labels(run, truth, beta, device)
        _write_betas(run, truth, taught, beta)
        return {
            "KS2_MEDIAN": float(np.median(taught.ks2)),
            "BETA_MEDIAN": float(np.median(taught.beta)),
            "BS_COUNT": len(network.targets),
            "SKIPPED": skipped,
            "SECONDS": round(run.seconds, 2),
            "DEVICE_USED": device,
        }


def _betas(run: Run) -> tuple[float, ...]:
    low, high, step = (run.parameters.number(f"BETA_{name}") for name in ("MIN", "MAX", "STEP"))
    if low > high:
        raise InputError(f"BETA_MIN is {low:g}, above BETA_MAX {high:g}. Exchange them.")
    count = int((high - low) / step + 1 + 1e-6)
    if count > MOST_BETAS:
        raise InputError(
            f"BETA_STEP {step:g} makes {count:,} β to try; at most {MOST_BETAS:,} make sense. Use a larger step."
        )
    return tuple(round(low + index * step, 6) for index in range(count))


def _of_all(truth: Truth, taught: Teaching) -> np.ndarray:
    """β of every BS, shape (n_bs,): those without a truth get the median of their urbanisation, or of all."""
    network = truth.network
    beta = np.full(len(truth.sites), float(np.median(taught.beta)))
    kinds = network.urbanisation
    for kind in np.unique(kinds[network.targets]):
        beta[kinds == kind] = np.median(taught.beta[kinds[network.targets] == kind])
    beta[network.targets] = taught.beta
    return beta.round(4)


def _write_labels(run: Run, truth: Truth, beta: np.ndarray, device: str) -> None:
    """Write SOFT_LABELS."""
    from ..models.geolocation.engine import GeolocationJob, geolocate

    network = truth.network
    job = GeolocationJob(
        network.sites_m,
        network.grid,
        network.mask,
        method="spdi",
        beta=beta,
        min_probability=1e-4,
        device=device,
        threads=run.threads,
    )
    maps = geolocate(job, run.progress.phase("Computing soft labels", 0.6, 0.85)).location_given_bs()
    rows = network.targets
    facts = {"TELCOLOC_METHOD": "spdi", "TELCOLOC_BETA_BY": "teacher", "TELCOLOC_TRUTH": network.name}
    writing = run.progress.phase("Writing soft labels", 0.85, 0.95)
    write_stack(run, "SOFT_LABELS", network.grid, maps[rows], only(truth.sites, rows), facts, writing)


def _write_betas(run: Run, truth: Truth, taught: Teaching, beta: np.ndarray) -> None:
    kind = QMetaType.Type
    fields = fields_of(
        ("bs_id", kind.QString),
        ("beta", kind.Double),
        ("ks2", kind.Double),
        ("urbanisation", kind.QString),
        ("spacing_m", kind.Double),
    )
    layer = run.outputs.table(
        "OUTPUT",
        fields,
        _points(truth, taught, beta, fields),
        QgsWkbTypes.Type.Point,
        truth.crs,
        run.progress.phase("Writing β", 0.95, 1.0),
        len(beta),
    )
    run.style("OUTPUT", layer, styles.points_qml("beta", beta))


def _points(truth: Truth, taught: Teaching, beta: np.ndarray, fields: QgsFields) -> Iterator[QgsFeature]:
    from ..models.geolocation.sites import URBANISATIONS

    network = truth.network
    ks2 = dict(zip(network.targets.tolist(), taught.ks2.tolist()))
    spacing, kinds = network.spacing_m, network.urbanisation
    for index, name in enumerate(truth.sites.ids):
        feature = QgsFeature(fields)
        feature.setGeometry(QgsGeometry.fromPointXY(QgsPointXY(*network.sites_m[index])))
        feature.setAttributes(
            [name, float(beta[index]), ks2.get(index), URBANISATIONS[kinds[index]], round(float(spacing[index]), 1)]
        )
        yield feature
