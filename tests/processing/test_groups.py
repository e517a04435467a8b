"""Outputs that belong together are loaded into one group of the project, in the order asked for, styled and with times."""

import pytest
from processing_helpers import Ran, collecting_feedback
from qgis.core import (
    QgsFeature,
    QgsGeometry,
    QgsProcessingContext,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingParameterFeatureSink,
    QgsProject,
    QgsTemporalUtils,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QDateTime, QMetaType, Qt
from telcoloc.telcoloc_qgis import tracking_styles
from telcoloc.telcoloc_qgis.algorithm import TelcoLocAlgorithm
from telcoloc.telcoloc_qgis.outputs import fields_of

WHEN = QDateTime.fromString("2024-03-07T12:00:00Z", Qt.DateFormat.ISODate)


class Grouping(TelcoLocAlgorithm):
    NAME, TITLE, GROUP, SUMMARY, EXAMPLE = "grouping", "Grouping", "Tests", "Writes two layers.", ""

    def define(self):
        for name in ("EDGES", "PATH", "LONE"):
            self.add(QgsProcessingParameterFeatureSink(name, name.capitalize(), optional=True), "A layer.")

    def work(self, run):
        kind, geometry = QMetaType.Type, QgsWkbTypes.Type
        looks = {
            "EDGES": (
                ("time_to", kind.QDateTime),
                "LINESTRING(0 0,1 1)",
                geometry.LineString,
                tracking_styles.edges_qml(),
            ),
            "PATH": (("kind", kind.QString), "POINT(0 0)", geometry.Point, tracking_styles.path_qml(True, 2.5)),
            "LONE": (("kind", kind.QString), "POINT(0 0)", geometry.Point, tracking_styles.truth_qml()),
        }
        for name, (field, wkt, geometry_type, qml) in looks.items():
            if not run.parameters.wants(name):
                continue
            fields = fields_of(("time", kind.QDateTime), field)
            feature = QgsFeature(fields)
            feature.setGeometry(QgsGeometry.fromWkt(wkt))
            feature.setAttributes([WHEN, WHEN if name == "EDGES" else "landmark"])
            run.style(name, run.outputs.table(name, fields, [feature], geometry_type), qml)
        run.group("Landmark tracking", ("PATH", "EDGES"))
        return {}


@pytest.fixture
def loaded(qgis_app, tmp_path):
    """The project after running with these outputs and loading the results as the toolbox does."""
    from processing.gui.Postprocessing import handleAlgorithmResults

    project = QgsProject.instance()
    project.clear()

    def call(names, folder=None):
        algorithm = Grouping()
        algorithm.initAlgorithm()
        context, ran = QgsProcessingContext(), Ran()
        context.setProject(project)
        parameters = {
            name: QgsProcessingOutputLayerDefinition(str(folder / f"{name}.gpkg") if folder else "memory:", project)
            for name in names
        }
        _, done = algorithm.run(parameters, context, collecting_feedback(ran))
        assert done, ran.text
        assert handleAlgorithmResults(algorithm, context, collecting_feedback(ran), parameters)
        return project

    yield call
    project.clear()


@pytest.mark.parametrize("as_files", [True, False])
def test_one_group_in_order_that_plays(loaded, tmp_path, as_files):
    project = loaded(("EDGES", "PATH", "LONE"), tmp_path if as_files else None)
    group = project.layerTreeRoot().findGroup("Landmark tracking")
    layers = [node.layer() for node in group.children()]
    assert [layer.geometryType() for layer in layers] == [
        QgsWkbTypes.GeometryType.PointGeometry,
        QgsWkbTypes.GeometryType.LineGeometry,
    ]
    assert all(layer.temporalProperties().isActive() for layer in layers)
    assert [layer.renderer().type() for layer in layers] == ["categorizedSymbol", "categorizedSymbol"]
    assert layers[0].temporalProperties().fixedDuration() == 2.5
    assert layers[1].temporalProperties().endField() == "time_to"
    played = QgsTemporalUtils.calculateTemporalRangeForProject(project)
    assert (played.begin(), played.end()) == (WHEN, WHEN.addMSecs(2500))
    outside = [node for node in project.layerTreeRoot().children() if node.nodeType() == node.NodeType.NodeLayer]
    assert len(outside) == 1


def test_outputs_that_nobody_asked_for_are_left_out(loaded):
    group = loaded(("EDGES",)).layerTreeRoot().findGroup("Landmark tracking")
    assert len(group.children()) == 1
