"""Builds resources/graphical_models/districts.model3: our algorithms chained with native ones. Run with QGIS's Python."""

import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import (
    QgsApplication,
    QgsProcessing,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
)
from qgis.PyQt.QtCore import QPointF

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "resources" / "graphical_models" / "districts.model3"
Source = QgsProcessingModelChildParameterSource


def child(model, key, algorithm, description, position, outputs=None, **parameters):  # noqa: ANN001, ANN003, ANN201
    """Add one step; `parameters` hold lists of sources, `outputs` child output → (model output, description)."""
    step = QgsProcessingModelChildAlgorithm(algorithm)
    step.setChildId(key)
    step.setDescription(description)
    step.setPosition(QPointF(*position))
    for name, sources in parameters.items():
        step.addParameterSources(name, sources)
    made = {}
    for child_output, (name, text) in (outputs or {}).items():
        output = QgsProcessingModelOutput(name, text)
        output.setChildId(key)
        output.setChildOutputName(child_output)
        output.setDescription(text)
        output.setPosition(QPointF(position[0] + 220, position[1] + 80))
        made[name] = output
    step.setModelOutputs(made)
    if model.addChildAlgorithm(step) != key:
        raise RuntimeError(f"step {key} was renamed")


def build() -> QgsProcessingModelAlgorithm:
    """Base stations and districts in; KPIs and mean uncertainty per district, best server and density out."""
    model = QgsProcessingModelAlgorithm("KPIs by district", "TelcoLoc", "telcoloc")
    vector = QgsProcessing.SourceType
    inputs = (
        QgsProcessingParameterFeatureSource("base_stations", "Base stations", [vector.TypeVectorPoint]),
        QgsProcessingParameterField("id_field", "Id field", parentLayerParameterName="base_stations"),
        QgsProcessingParameterField(
            "kpi_fields", "KPI fields", parentLayerParameterName="base_stations", allowMultiple=True
        ),
        QgsProcessingParameterFeatureSource("districts", "Districts", [vector.TypeVectorPolygon]),
    )
    for row, definition in enumerate(inputs):
        component = QgsProcessingModelParameter(definition.name())
        component.setPosition(QPointF(120 + 230 * row, 60))
        model.addModelParameter(definition, component)
    given = Source.fromModelParameter
    child(model, "land", "native:dissolve", "Dissolve districts to land", (810, 180), INPUT=[given("districts")])
    child(
        model,
        "geolocation",
        "telcoloc:geolocatebasestations",
        "Geolocate base stations",
        (400, 290),
        {"BEST_SERVER": ("best_server", "Best server")},
        INPUT=[given("base_stations")],
        ID_FIELD=[given("id_field")],
        METHOD=[Source.fromStaticValue("spdi")],
        BETA=[Source.fromStaticValue(4.0)],
        BOUNDARY=[Source.fromChildOutput("land", "OUTPUT")],
    )
    child(
        model,
        "kpis",
        "telcoloc:mapmetadata",
        "Map KPIs",
        (400, 430),
        {"OUTPUT": ("density", "Density")},
        GEOLOCATION=[Source.fromChildOutput("geolocation", "OUTPUT")],
        INPUT=[given("base_stations")],
        ID_FIELD=[given("id_field")],
        FIELDS=[given("kpi_fields")],
        ZONES=[given("districts")],
    )
    child(
        model,
        "uncertainty",
        "native:zonalstatisticsfb",
        "Mean entropy per district",
        (700, 560),
        {"OUTPUT": ("district_totals", "District totals")},
        INPUT=[Source.fromChildOutput("kpis", "ZONE_TOTALS")],
        INPUT_RASTER=[Source.fromChildOutput("geolocation", "BEST_SERVER")],
        RASTER_BAND=[Source.fromStaticValue(3)],
        COLUMN_PREFIX=[Source.fromStaticValue("entropy_bits_")],
        STATISTICS=[Source.fromStaticValue([2])],
    )
    model.setHelpContent(
        {
            "ALG_DESC": "Spreads KPIs of base stations over the land of the districts, sums them per district, and adds the mean "
            "entropy of the best server: how unsure the geolocation is there.",
            "ALG_CREATOR": "TelcoLoc",
        }
    )
    return model


def main() -> None:
    """Write the model file."""
    application = QgsApplication([], False)
    application.initQgis()
    sys.path.append("/usr/share/qgis/python/plugins")
    from processing.core.Processing import Processing

    Processing.initialize()
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    model = build()
    if not model.toFile(str(TARGET)):
        raise SystemExit(f"{TARGET} could not be written")
    print(TARGET)
    sys.stdout.flush()
    os._exit(0)  # leaving through QgsApplication.exit crashed QGIS 3.40


main()
