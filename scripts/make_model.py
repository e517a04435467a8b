"""Builds resources/graphical_models/*.model3: our algorithms chained with native ones. Run with QGIS's Python."""

import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["QT_HASH_SEED"] = "0"  # the XML in the same order each time

from qgis.core import (
    QgsApplication,
    QgsProcessing,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
)
from qgis.PyQt.QtCore import QMetaType, QPointF

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "resources" / "graphical_models"
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


def add_inputs(model, inputs):  # noqa: ANN001, ANN201
    """Give a model its parameters, side by side."""
    for row, definition in enumerate(inputs):
        component = QgsProcessingModelParameter(definition.name())
        component.setPosition(QPointF(120 + 230 * row, 60))
        model.addModelParameter(definition, component)


def aggregate(name: str, function: str, expression: str, kind: QMetaType.Type) -> dict:
    """One column of native:aggregate."""
    type_name = {
        QMetaType.Type.QString: "text",
        QMetaType.Type.Int: "integer",
        QMetaType.Type.Double: "double precision",
        QMetaType.Type.QDateTime: "datetime",
    }[kind]
    return {
        "name": name,
        "aggregate": function,
        "input": expression,
        "delimiter": ",",
        "type": int(kind.value) if hasattr(kind, "value") else int(kind),
        "type_name": type_name,
        "length": 0,
        "precision": 0,
    }


def districts() -> QgsProcessingModelAlgorithm:
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
    add_inputs(model, inputs)
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


def trajectories() -> QgsProcessingModelAlgorithm:
    """A table of measurements in; trajectories on the streets, and who spent how long in which district at which hour out."""
    model = QgsProcessingModelAlgorithm("Time spent by district", "TelcoLoc", "telcoloc")
    vector = QgsProcessing.SourceType
    inputs = (
        QgsProcessingParameterFeatureSource("measurements", "Measurement reports", [vector.TypeVector]),
        QgsProcessingParameterFile("localizer", "Trained localizer", extension="safetensors"),
        QgsProcessingParameterFeatureSource("streets", "Streets", [vector.TypeVectorLine]),
        QgsProcessingParameterFeatureSource("districts", "Districts", [vector.TypeVectorPolygon]),
    )
    add_inputs(model, inputs)
    given, made, value = Source.fromModelParameter, Source.fromChildOutput, Source.fromStaticValue
    child(
        model,
        "records",
        "telcoloc:importmeasurements",
        "Import measurements",
        (230, 180),
        INPUT=[given("measurements")],
    )
    child(
        model,
        "positions",
        "telcoloc:localizemeasurements",
        "Localise measurements",
        (330, 290),
        INPUT=[made("records", "OUTPUT")],
        MODEL=[given("localizer")],
    )
    child(
        model,
        "matched",
        "telcoloc:matchtostreets",
        "Match to streets",
        (430, 400),
        {"POINTS": ("points", "Points"), "TRAJECTORIES": ("trajectories", "Trajectories")},
        INPUT=[made("positions", "POINTS")],
        STREETS=[given("streets")],
    )
    child(
        model,
        "numbered",
        "native:addautoincrementalfield",
        "Number the districts",
        (860, 180),
        INPUT=[given("districts")],
        FIELD_NAME=[value("district_no")],
        START=[value(1)],
    )
    child(
        model,
        "placed",
        "native:joinattributesbylocation",
        "District of each point",
        (640, 560),
        INPUT=[made("matched", "POINTS")],
        JOIN=[made("numbered", "OUTPUT")],
        PREDICATE=[value([0])],  # intersects
        JOIN_FIELDS=[value(["district_no"])],
        METHOD=[value(1)],  # the first district only
        DISCARD_NONMATCHING=[value(True)],
    )
    hour = "format_date(\"time\", 'yyyy-MM-dd HH:00')"
    number, whole, moment = QMetaType.Type.Double, QMetaType.Type.Int, QMetaType.Type.QDateTime
    child(
        model,
        "summed",
        "native:aggregate",
        "Devices by district and hour",
        (640, 680),
        INPUT=[made("placed", "OUTPUT")],
        GROUP_BY=[value('"district_no" || \' \' || floor(epoch("time") / 3600000)')],
        AGGREGATES=[
            value(
                [
                    aggregate("district_no", "first_value", '"district_no"', whole),
                    aggregate("hour", "first_value", hour, QMetaType.Type.QString),
                    aggregate("begin", "minimum", '"time"', moment),
                    aggregate("end", "maximum", '"time"', moment),
                    aggregate("devices", "count_distinct", '"device"', whole),
                    # Minutes in which a device was there at all: this does not depend on how often it reports.
                    aggregate(
                        "device_minutes",
                        "count_distinct",
                        '"device" || \' \' || floor(epoch("time") / 60000)',
                        whole,
                    ),
                    aggregate("reports", "count", '"device"', whole),
                    aggregate("uncertainty_m", "mean", '"uncertainty_m"', number),
                ]
            )
        ],
    )
    child(
        model,
        "hours",
        "native:joinattributestable",
        "Districts, one for each hour",
        (860, 800),
        {"OUTPUT": ("district_hours", "District hours")},
        INPUT=[made("numbered", "OUTPUT")],
        FIELD=[value("district_no")],
        INPUT_2=[made("summed", "OUTPUT")],
        FIELD_2=[value("district_no")],
        FIELDS_TO_COPY=[value(["hour", "begin", "end", "devices", "device_minutes", "reports", "uncertainty_m"])],
        METHOD=[value(0)],  # a feature for each match
        DISCARD_NONMATCHING=[value(True)],
    )
    model.setHelpContent(
        {
            "ALG_DESC": "Turns a table of measurement reports into trajectories on the streets, with a localizer that was trained before, "
            "and counts for each district and hour the devices that were there and the minutes they spent.",
            "ALG_CREATOR": "TelcoLoc",
        }
    )
    return model


def landmark_tracking() -> QgsProcessingModelAlgorithm:
    """Cells, buildings, measurements and recognised landmarks in; the path over the city map and all that it was chosen from out."""
    model = QgsProcessingModelAlgorithm("Landmark tracking", "TelcoLoc", "telcoloc")
    vector, number = QgsProcessing.SourceType, QgsProcessingParameterNumber
    inputs = (
        QgsProcessingParameterFeatureSource("cells", "Cells", [vector.TypeVectorPoint]),
        QgsProcessingParameterFeatureSource("buildings", "Buildings", [vector.TypeVectorPolygon]),
        QgsProcessingParameterExtent("area", "Area (empty: around the cells)", optional=True),
        number("cell_size", "Side of the grid's cells [m]", number.Type.Double, 10.0, False, 0.5),
        QgsProcessingParameterFeatureSource("measurements", "Measurements", [vector.TypeVector]),
        QgsProcessingParameterFeatureSource("streets", "Streets", [vector.TypeVectorLine], optional=True),
        QgsProcessingParameterFeatureSource("landmarks", "Landmarks", [vector.TypeVectorPoint], optional=True),
        QgsProcessingParameterFeatureSource("matches", "Recognised landmarks", [vector.TypeVector], optional=True),
        number("top_speed", "Top speed [m/s]", number.Type.Double, 20.0, False, 0.1, 200.0),
    )
    add_inputs(model, inputs)
    given, made, value = Source.fromModelParameter, Source.fromChildOutput, Source.fromStaticValue
    child(
        model,
        "maps",
        "telcoloc:pathlossmaps",
        "Path loss maps",
        (230, 180),
        INPUT=[given("cells")],
        BUILDINGS=[given("buildings")],
        EXTENT=[given("area")],
        CELL_SIZE=[given("cell_size")],
        REACH=[value(2000.0)],
    )
    child(
        model,
        "candidates",
        "telcoloc:signalcandidates",
        "Signal candidates",
        (460, 310),
        INPUT=[given("measurements")],
        RADIO_MAPS=[made("maps", "RADIO_MAPS")],
    )
    child(
        model,
        "path",
        "telcoloc:tracklandmarks",
        "Track with landmarks",
        (690, 440),
        {
            "PATH": ("path", "Path"),
            "LINES": ("lines", "Lines"),
            "EDGES": ("edges", "Edges"),
            "CANDIDATES": ("candidates", "Candidates"),
        },
        INPUT=[made("candidates", "CANDIDATES")],
        BUILDINGS=[given("buildings")],
        STREETS=[given("streets")],
        LANDMARKS=[given("landmarks")],
        MATCHES=[given("matches")],
        TOP_SPEED=[given("top_speed")],
    )
    model.setHelpContent(
        {
            "ALG_DESC": "Computes radio maps of the cells within 2 km of the area, finds for each measurement report the places where it "
            "fits best, and chooses the path between these over the streets, or around the buildings where there are none, through the "
            "landmarks that were recognised. Measurements are as 'Import measurements' writes them.",
            "ALG_CREATOR": "TelcoLoc",
        }
    )
    return model


def main() -> None:
    """Write the model files."""
    application = QgsApplication([], False)
    application.initQgis()
    sys.path.append("/usr/share/qgis/python/plugins")
    from processing.core.Processing import Processing

    Processing.initialize()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for build in (districts, trajectories, landmark_tracking):
        target = FOLDER / f"{build.__name__}.model3"
        if not build().toFile(str(target)):
            raise SystemExit(f"{target} could not be written")
        print(target)
    sys.stdout.flush()
    os._exit(0)  # leaving through QgsApplication.exit crashed QGIS 3.40


main()
