"""Layers of landmarks and tables of matches, in every form a user can hand them over."""

import re

import pytest
from processing_helpers import Ran, collecting_feedback, layer_of

UTM = "EPSG:32633"
FIELDS = "landmark_id:string,kind:string,photo:string"
ROWS = [
    ("Point (500000 5800000)", "church", "location", "/photos/a.jpg"),
    ("Point (500100 5800000)", "kiosk", "service", "/photos/b.jpg"),
    ("Point (500020 5800000)", "church", "location", "/photos/c.jpg"),
    ("Point (500200 5800000)", "tower", None, None),
]


@pytest.fixture
def read(qgis_app):
    """`read(layer)`: (Landmarks, LandmarkLayer), Ran; `read(layer, matches=table)`: Matches, Ran; or the sentence it failed with, Ran."""
    from qgis.core import (
        QgsCoordinateReferenceSystem,
        QgsProcessing,
        QgsProcessingContext,
        QgsProcessingException,
        QgsProcessingParameterFeatureSource,
        QgsProject,
    )
    from telcoloc.telcoloc_qgis.algorithm import TelcoLocAlgorithm
    from telcoloc.telcoloc_qgis.landmarks import read_landmarks, read_matches

    def call(layer, matches=None, crs=UTM):
        found = {}

        class Reader(TelcoLocAlgorithm):
            NAME = "reader"

            def define(self):
                kind = QgsProcessing.SourceType.TypeVector
                self.add(QgsProcessingParameterFeatureSource("LANDMARKS", "in", [kind]), "in")
                self.add(QgsProcessingParameterFeatureSource("MATCHES", "in", [kind], optional=True), "in")

            def work(self, run):
                system = QgsCoordinateReferenceSystem(crs)
                value = read_landmarks(run, run.parameters.source("LANDMARKS"), system)
                if matches is not None:
                    value = read_matches(run, run.parameters.source("MATCHES"), value[0])
                found["value"] = value
                return {}

        ran = Ran()
        algorithm = Reader().create()
        given = {"LANDMARKS": layer, **({"MATCHES": matches} if matches is not None else {})}
        try:
            context = QgsProcessingContext()
            context.setProject(QgsProject.instance())
            _, good = algorithm.run(given, context, collecting_feedback(ran), {}, False)
        except QgsProcessingException as error:
            good, ran.errors = False, [str(error)]
        return (found["value"] if good else ran.errors[-1]), ran

    return call


def landmarks(rows=ROWS, crs=UTM, fields=FIELDS, geometry="Point"):
    return layer_of(rows, crs, fields, geometry, "places")


def table(rows, fields="time:string,landmark_id:string,device:string,fiducial:bool"):
    return layer_of([(None, *row) for row in rows], None, fields, "None", "found")


def test_rows_of_one_name_are_photos_of_one_landmark(read):
    (found, layer), ran = read(landmarks())
    assert found.ids == ("church", "kiosk", "tower")
    assert found.xy_m.tolist() == [[500010, 5800000], [500100, 5800000], [500200, 5800000]]  # the middle of both rows
    assert found.fiducial.tolist() == [True, False, True]
    assert layer.photos == ("/photos/a.jpg", "/photos/b.jpg", "/photos/c.jpg")
    assert layer.landmark.tolist() == [0, 1, 0]
    assert ran.warnings == []


def test_positions_come_in_the_crs_asked_for(read):
    (found, _), _ = read(landmarks([("Point (15 52)", "a", None, None)], "EPSG:4326"))
    assert found.xy_m[0] == pytest.approx([500000, 5761038.21], abs=0.01)  # on the central meridian of zone 33


def test_what_import_geotagged_photos_writes_fits(read):
    fields = (
        "photo:string,filename:string,directory:string,altitude:double,direction:double,rotation:int,longitude:double,"
        "latitude:double,timestamp:datetime"
    )
    rows = [
        (f"PointZ (15 52.00{k} 3)", f"/d{k}/IMG_1.jpg", "IMG_1", f"/d{k}", 3.0, 0.0, 0, 15.0, 52.0, None)
        for k in range(2)
    ]
    (found, layer), _ = read(landmarks(rows[:1], "EPSG:4326", fields, "PointZ"))
    assert (found.ids, layer.photos) == (("IMG_1",), ("/d0/IMG_1.jpg",))
    (found, _), _ = read(landmarks(rows, "EPSG:4326", fields, "PointZ"))  # cameras count anew in each folder
    assert found.ids == ("/d0/IMG_1.jpg", "/d1/IMG_1.jpg")


def test_photos_are_looked_for_beside_the_layer(read, tmp_path):
    from qgis.core import QgsCoordinateTransformContext, QgsVectorFileWriter

    path = tmp_path / "places.gpkg"
    rows = [("Point (500000 5800000)", "a", None, "photos/a.jpg"), ("Point (500000 5800000)", "b", None, "/x/b.jpg")]
    QgsVectorFileWriter.writeAsVectorFormatV3(
        landmarks(rows), str(path), QgsCoordinateTransformContext(), QgsVectorFileWriter.SaveVectorOptions()
    )
    (_, layer), _ = read(str(path))
    assert layer.photos == (str(tmp_path / "photos" / "a.jpg"), "/x/b.jpg")


def test_odd_landmarks_are_said(read):
    rows = [
        *ROWS,
        (None, "lost", None, None),
        ("Point (500000 5800000)", None, None, None),
        ("Point (500900 5800000)", "tower", "church", None),
        ("Point (500900 5800000)", "chapel", "church", None),
    ]
    (found, _), ran = read(landmarks(rows))
    assert found.ids == ("church", "kiosk", "tower", "chapel")
    assert found.fiducial.tolist() == [True, False, True, False]
    assert "2 of 8 rows cannot be used: feature 5: no geometry; feature 6: landmark_id is empty." in ran.text
    assert "1 landmarks have rows far apart, as if they were several with one name: tower." in ran.text
    assert "landmarks of another kind count as service: church." in ran.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"geometry": "LineString", "rows": []}, "LANDMARKS: layer 'places' holds LineString, not points; give .+"),
        ({"rows": []}, r"LANDMARKS: layer 'places' has no features \(check its filter and selection\)\."),
        ({"rows": [(None, "a", None, None)]}, r"LANDMARKS: none of the 1 rows of layer 'places' can be used \(.+\)\."),
        (
            {"rows": [("Point (500000 95)", "a", None, None)], "crs": "EPSG:4326"},
            "LANDMARKS: 'a' at 500000, 95 cannot be placed in EPSG:32633 .+",
        ),
    ],
)
def test_landmarks_that_cannot_be_used(read, options, sentence):
    said, _ = read(landmarks(**options))
    assert re.fullmatch(sentence, said), said


def test_matches_of_ours(read):
    rows = [
        ("2024-05-01T08:00:00Z", "church", "phone", True),
        ("2024-05-01T08:00:10Z", "kiosk", "phone", True),  # of service: never fiducial
        ("2024-05-01T08:00:20Z", "church", "", False),
        ("2024-05-01T08:00:30Z", None, "phone", False),  # a photo that showed none
    ]
    found, ran = read(landmarks(), table(rows))
    assert found.devices == ("phone",)
    assert found.device.tolist() == [0, 0, -1]
    assert (found.time_s - 1714550400).tolist() == [0, 10, 20]
    assert found.landmark.tolist() == [0, 1, 0]
    assert found.fiducial.tolist() == [True, False, False]
    assert found.row.tolist() == [1, 2, 3]
    assert "MATCHES: 1 rows name no landmark." in ran.infos


def test_names_that_a_shapefile_cut_are_known(read):
    (found, _), _ = read(landmarks(fields=FIELDS.replace("landmark_id", "landmark_i")))
    assert found.ids == ("church", "kiosk", "tower")
    rows = [("2024-05-01T08:00:00Z", "church", "nave")]
    found, _ = read(landmarks(), table(rows, "time:string,landmark_i:string,name:string"))
    assert found.landmark.tolist() == [0]


def test_matches_of_any_other_recogniser(read):
    rows = [(1714550400.5, "church"), (1714550401.0, "castle"), (None, "tower"), (1714550402.0, "tower")]
    found, ran = read(landmarks(), table(rows, "timestamp:double,landmark:string"))
    assert found.devices == ()
    assert found.device.tolist() == [-1, -1]
    assert (found.time_s - 1714550400).tolist() == [0.5, 2.0]
    assert found.landmark.tolist() == [0, 2]
    assert found.fiducial.tolist() == [True, True]
    assert "1 rows name a landmark that is not there: castle." in ran.text
    assert "1 rows have no time that can be read" in ran.text


@pytest.mark.parametrize(
    ("rows", "fields", "sentence"),
    [
        ([], "time:string,landmark_id:string", "MATCHES: layer 'found' has no features .+"),
        (
            [("a", 3)],
            "landmark_id:string,x:int",
            r"MATCHES: table 'found' has no field of its time \(such as time_s\); .+",
        ),
        (
            [("a", 3)],
            "time:string,x:int",
            "MATCHES: table 'found' has no field of its landmark .+ its fields: time, x.",
        ),
        (
            [("2024-05-01", "castle")],
            "time:string,landmark_id:string",
            "MATCHES: table 'found' knows none of the 3 landmarks: its names are such as 'castle', theirs such as 'church'.",
        ),
        (
            [("soon", "tower")],
            "time:string,landmark_id:string",
            r"MATCHES: no row of table 'found' can be used \(1 without a time, 0 without a landmark\).",
        ),
    ],
)
def test_matches_that_cannot_be_used(read, rows, fields, sentence):
    said, _ = read(landmarks(), table(rows, fields))
    assert re.fullmatch(sentence, said), said


def test_a_layer_without_crs_is_refused(read):
    from qgis.core import QgsCoordinateReferenceSystem

    layer = landmarks()
    layer.setCrs(QgsCoordinateReferenceSystem())
    assert read(layer)[0].startswith("LANDMARKS: layer 'places' has no known CRS. Set it with ")


def test_selected_rows_come_in_the_order_of_the_layer(read):
    from qgis.core import QgsProcessingFeatureSourceDefinition, QgsProject

    layer = landmarks()
    layer.selectByIds([4, 1, 2])
    QgsProject.instance().addMapLayer(layer, False)
    (found, _), _ = read(QgsProcessingFeatureSourceDefinition(layer.id(), True))
    QgsProject.instance().removeMapLayer(layer)
    assert found.ids == ("church", "kiosk", "tower")
    assert found.xy_m[:, 0].tolist() == [500000, 500100, 500200]
