"""Matching landmarks: photos in any format, as QGIS imports them, near candidates; tables instead of photos; what is odd is said."""

import csv
import json
import re
import shutil
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processing_helpers import ROOT, SAMPLE, Ran, collecting_feedback, layer_of, leftovers

UTM = "EPSG:32633"
START = int(datetime(2024, 5, 1, 8, tzinfo=timezone.utc).timestamp())
PLACES = [(500000, 5800000), (500200, 5800000), (500400, 5800000), (500000, 5800400)]
NAMES = ("bank", "school", "church", "mill")


def stamp(seconds):
    return datetime.fromtimestamp(START + seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="session")
def pictures(qgis_app, tmp_path_factory):
    """Photos of four façades, from the front ("bank.png") and by a passer-by ("saw bank.jpg"), and of a stranger."""
    from telcoloc.models.landmarks import facade_photos, facades

    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(NAMES):
        facade, rng = facades.make_facade([31, number]), np.random.default_rng([32, number])
        for view, path in (
            (facade_photos.reference_view(facade, rng), f"{name}.png"),
            (facade_photos.query_view(facade, rng, 0.5), f"saw {name}.jpg"),
        ):
            Image.fromarray(facade_photos.photograph(facade, view, rng)).save(folder / path, quality=92)
    Image.fromarray(facade_photos.unknown_photo(np.random.default_rng(35))).save(folder / "stranger.jpg")
    return folder


@pytest.fixture
def landmarks(pictures):
    def make(names=NAMES, kinds=None, folder=pictures, crs=UTM, places=PLACES):
        kinds = kinds or ["location"] * len(names)
        rows = [
            (f"Point ({x} {y})", name, kind, str(folder / f"{name}.png"))
            for (x, y), name, kind in zip(places, names, kinds)
        ]
        return layer_of(rows, crs, "landmark_id:string,kind:string,photo:string", "Point", "landmarks")

    return make


@pytest.fixture
def queries(pictures):
    def make(rows=None):
        rows = rows or [(f"saw {name}.jpg", stamp(10 * number), "phone") for number, name in enumerate(NAMES)]
        rows = [(None, str(pictures / photo) if photo else photo, *rest) for photo, *rest in rows]
        return layer_of(rows, None, "photo:string,time:string,device:string", "None", "snaps")

    return make


def candidates(instants, crs=UTM):
    """A layer of candidates from (seconds, device, [places])."""
    rows = [
        (f"Point ({x} {y})", device, device, START + seconds, rank + 1)
        for seconds, device, places in instants
        for rank, (x, y) in enumerate(places)
    ]
    return layer_of(rows, crs, "device:string,trajectory:string,time_s:double,rank:int", "Point", "candidates")


@pytest.fixture
def match(run, landmarks, queries):
    def call(**parameters):
        defaults = {"LANDMARKS": landmarks(), "QUERIES": queries(), "MATCHES": "memory:"}
        ran = run("matchlandmarks", **{**defaults, **parameters})
        return ran, list(ran["MATCHES"].getFeatures())

    return call


@pytest.fixture
def no_match(refused, landmarks, queries, tmp_path):
    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        defaults = {"LANDMARKS": landmarks(), "QUERIES": queries(), "MATCHES": str(folder / "matches.gpkg")}
        refused("matchlandmarks", sentence, **{**defaults, **parameters})
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


def test_photos_find_their_landmarks(match):
    ran, found = match()
    assert [each["landmark_id"] for each in found] == list(NAMES)
    assert [each["photo"] for each in found] == [f"saw {name}.jpg" for name in NAMES]
    assert [each["time_s"] - START for each in found] == [0, 10, 20, 30]
    assert [each["time"].toMSecsSinceEpoch() / 1000 - START for each in found] == [0, 10, 20, 30]
    assert [(each.geometry().asPoint().x(), each.geometry().asPoint().y()) for each in found] == PLACES
    assert {each["device"] for each in found} == {"phone"}
    for each in found:
        assert each["votes"] >= 3
        assert each["fiducial"] == (each["margin"] >= 0.2)
    assert ran["MATCHED"] == ran["PHOTOS"] == 4
    assert ran["FIDUCIAL"] == sum(each["fiducial"] for each in found) >= 2
    assert ran["UNREADABLE"] == ran["SAVED"] == 0
    assert "Without CANDIDATES all 4 landmarks are searched for each photo." in ran.infos
    assert ran.warnings == []


def test_a_margin_makes_matches_fiducial_and_service_never_is(match, landmarks):
    all_of_them, _ = match(MARGIN=0)
    assert all_of_them["FIDUCIAL"] == 4
    none, _ = match(MARGIN=0.9)
    assert (none["FIDUCIAL"], none["MATCHED"]) == (0, 4)
    _, found = match(MARGIN=0, LANDMARKS=landmarks(kinds=["location", "service", "service", "location"]))
    assert [each["fiducial"] for each in found] == [1, 0, 0, 1]
    assert [each["kind"] for each in found] == ["location", "service", "service", "location"]


def test_only_landmarks_near_the_candidates_are_searched(match):
    layer = candidates(
        [
            (0, "phone", [(500010, 5800000), (501000, 5801000)]),
            (10, "phone", [(500190, 5800020), (500390, 5800000)]),
            (20, "phone", [(500390, 5800000)]),
            (30, "phone", [(500600, 5800400)]),  # far from all
            (10, "another", [(500000, 5800400)]),
        ]
    )
    ran, found = match(CANDIDATES=layer, TOP_SPEED=400)
    assert [each["landmark_id"] for each in found] == ["bank", "school", "church"]
    assert ran["SAVED"] == 0.75  # 1, 2, 1 and 0 of 4 are searched
    assert "1.0 landmarks were searched for each photo; the filter saved 75 %." in ran.infos
    assert "1 photos have no landmark near their candidates." in ran.infos


def test_the_path_thins_landmarks_out(match, queries):
    layer = candidates(
        [
            (9, "phone", [(500000, 5800000)]),
            (10, "phone", [(500000, 5800000), (500200, 5800000)]),
            (11, "phone", [(500000, 5800000)]),
        ]
    )
    one = queries([("saw school.jpg", stamp(10), "phone")])
    ran, found = match(CANDIDATES=layer, QUERIES=one, TOP_SPEED=400)
    assert [each["landmark_id"] for each in found] == ["school"]
    assert ran["SAVED"] == 0.5
    ran, found = match(CANDIDATES=layer, QUERIES=one, TOP_SPEED=20)  # 200 m in a second
    assert ran["SAVED"] == 0.75
    assert [each["landmark_id"] for each in found if each["fiducial"]] == []


def test_a_stranger_is_not_fiducial(match, queries):
    _, found = match(QUERIES=queries([("stranger.jpg", stamp(0), "phone"), ("saw mill.jpg", stamp(5), "phone")]))
    assert [each["landmark_id"] for each in found if each["fiducial"]] in ([], ["mill"])


def test_photos_need_not_travel(match, run, landmarks, queries, tmp_path):
    table = tmp_path / "described.csv"
    ran, there = match(DESCRIBED=str(table))
    nowhere = Path("/nowhere/photos")
    rows = [(None, str(nowhere / f"saw {name}.jpg"), START + 10.0 * i) for i, name in enumerate(NAMES)]
    away = layer_of(rows, None, "photo:string,time_s:double", "None", "snaps")
    ran, found = match(LANDMARKS=landmarks(folder=nowhere), QUERIES=away, DESCRIPTORS=str(table))
    assert [each["distance"] for each in found] == [each["distance"] for each in there]
    assert [each["margin"] for each in found] == [each["margin"] for each in there]
    assert ran["UNREADABLE"] == 0
    assert "QUERIES: 4 photos are described in DESCRIPTORS." in ran.infos
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["photo", "descriptor", "version", "values"]
    assert len(lines) == 8 * 5
    (layout,) = [line for line in lines if line["photo"] == "bank.png" and line["descriptor"] == "color_layout"]
    assert layout["version"] == "1"
    assert len(json.loads(layout["values"])) == 12


def test_some_descriptors_are_enough(match, landmarks, queries, tmp_path):
    table = tmp_path / "described.gpkg"
    match(DESCRIBED=str(table))
    ran, found = match(
        LANDMARKS=landmarks(folder=Path("/nowhere")), DESCRIPTORS=f"{table}|subset=\"descriptor\" = 'edge_histogram'"
    )
    assert "Not all photos have all descriptions; compared by: edge_histogram." in ran.warnings
    assert sum(each["landmark_id"] == name for each, name in zip(found, NAMES)) >= 3


def test_photos_that_cannot_be_read_are_named_and_the_others_go_on(match, queries, pictures):
    (pictures / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (pictures / "empty.jpg").write_bytes(b"")
    rows = [(name, stamp(i), "phone") for i, name in enumerate(["phone.heic", "empty.jpg", "gone.jpg", "saw bank.jpg"])]
    ran, found = match(QUERIES=queries(rows))
    assert ran["UNREADABLE"] == 3
    assert [each["landmark_id"] for each in found] == ["bank"]
    assert [each["photo"] for each in found] == ["saw bank.jpg"]
    (warning,) = ran.warnings
    assert re.fullmatch(
        r"QUERIES: 3 of 4 photos cannot be read and are left out: \S+/phone\.heic: [^;]+; \S+/empty\.jpg: [^;]+; "
        r"\S+/gone\.jpg: there is no such file\.",
        warning,
    ), warning


def test_a_photo_is_turned_as_it_was_held(pictures, qgis_app, tmp_path):
    from telcoloc.telcoloc_qgis.photos import read_photo

    upright = Image.open(pictures / "bank.png").convert("RGB").resize((160, 120))
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise
    lying.save(tmp_path / "lying.jpg", quality=95, exif=exif)
    read = read_photo(str(tmp_path / "lying.jpg"))
    assert read.shape == (120, 160, 3)
    assert np.abs(read.astype(int) - np.asarray(upright)).mean() < 4


def test_formats_and_sizes(pictures, qgis_app, tmp_path):
    from telcoloc.telcoloc_qgis.photos import read_photo

    picture = Image.open(pictures / "bank.png").convert("RGB")
    for name, image in (
        ("a.bmp", picture.resize((319, 241))),  # rows are padded
        ("b.png", picture.convert("L")),
        ("c.png", picture.convert("RGBA")),
        ("d.jpg", picture.resize((2000, 1500))),
    ):
        image.save(tmp_path / name)
        read = read_photo(str(tmp_path / name))
        assert read.shape == ((480, 640, 3) if name == "d.jpg" else (image.height, image.width, 3))
        small = Image.fromarray(read).resize((32, 24), Image.Resampling.BOX)
        expected = image.convert("RGB").resize((32, 24), Image.Resampling.BOX)
        assert np.abs(np.asarray(small).astype(int) - np.asarray(expected)).mean() < 3


def geotagged(path, source, lon, lat, seconds):
    """Copy a picture as a JPEG with EXIF, as a phone writes it."""

    def sexagesimal(value):
        value = abs(value)
        return (float(int(value)), float(int(value * 60) % 60), round(value * 3600 % 60, 4))

    moment = datetime.fromtimestamp(START + seconds, timezone.utc).strftime("%Y:%m:%d %H:%M:%S")
    exif = Image.Exif()
    exif[0x8769] = {0x9003: moment}
    exif[0x8825] = {
        1: "N" if lat > 0 else "S",
        2: sexagesimal(lat),
        3: "E" if lon > 0 else "W",
        4: sexagesimal(lon),
    }
    Image.open(source).convert("RGB").save(path, quality=92, exif=exif)


def test_what_import_geotagged_photos_writes_fits_as_it_is(match, run, pictures, tmp_path):
    for folder, prefix, end in (("known", "", "png"), ("snaps", "saw ", "jpg")):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(NAMES):
            source = pictures / f"{prefix}{name}.{end}"
            geotagged(tmp_path / folder / f"{name}.jpg", source, 15 + 0.002 * number, 52.0, 10 * number)
    layers = {
        folder: run("native:importphotos", FOLDER=str(tmp_path / folder), RECURSIVE=False, OUTPUT="memory:")["OUTPUT"]
        for folder in ("known", "snaps")
    }
    assert layers["known"].featureCount() == 4
    ran, found = match(LANDMARKS=layers["known"], QUERIES=layers["snaps"])
    assert {each["landmark_id"]: each["photo"] for each in found} == {name: f"{name}.jpg" for name in NAMES}
    assert sorted(each["time_s"] - START for each in found) == [0, 10, 20, 30]
    assert {each["device"] for each in found} == {None} or all(not each["device"] for each in found)
    assert ran.warnings == []
    # candidates in another CRS, of one device that the photos do not name
    near = candidates([(10 * n, "phone", [(15 + 0.002 * n, 52.0)]) for n in range(4)], "EPSG:4326")
    ran, found = match(LANDMARKS=layers["known"], QUERIES=layers["snaps"], CANDIDATES=near)
    assert ran["SAVED"] == 0.75
    assert ran["MATCHED"] == 4


def test_devices_of_other_names_are_searched_near_all(match):
    layer = candidates([(10 * n, "imsi 1", [PLACES[n]]) for n in range(4)])
    ran, _ = match(CANDIDATES=layer, TOP_SPEED=400)
    assert "QUERIES: no candidates are of phone; their photos are searched near those of all devices." in ran.warnings
    assert ran["MATCHED"] == 4


def test_photos_of_no_instant_are_named(match):
    layer = candidates([(0, "phone", [PLACES[0]]), (300, "phone", [PLACES[0]])])
    ran, found = match(CANDIDATES=layer)
    assert [each["landmark_id"] for each in found] == ["bank"]
    assert (
        "QUERIES: 2 photos are more than 10 s from any candidates of their device and cannot be recognised: saw church.jpg; "
        "saw mill.jpg." in ran.warnings
    )


@pytest.mark.parametrize(
    ("rows", "fields", "sentence"),
    [
        (
            [],
            "photo:string,time:string",
            r"QUERIES: layer 'snaps' has no features \(check its filter and selection\)\.",
        ),
        (
            [(None, "x")],
            "time:string",
            r"QUERIES: layer 'snaps' has no field of photos \(such as photo, path\); .+: time\.",
        ),
        (
            [(None, "x")],
            "photo:string",
            r"QUERIES: layer 'snaps' has no field of times \(such as time_s, time\), and no photo tells in its EXIF when it was taken; .+",
        ),
        (
            [(None, "a.jpg", "soon"), (None, None, "2024-05-01")],
            "photo:string,time:string",
            r"QUERIES: none of the 2 rows of layer 'snaps' can be used \(feature 2: no photo; feature 1: no time\)\.",
        ),
        (
            [(None, "/nowhere/a.jpg", "2024-05-01"), (None, "/nowhere/b.jpg", "2024-05-01")],
            "photo:string,time:string",
            r"QUERIES: none of the 2 photos can be read \(/nowhere/a.jpg: there is no such file; /nowhere/b.jpg: .+\)\.",
        ),
    ],
)
def test_photos_that_cannot_be_used(no_match, rows, fields, sentence):
    no_match(sentence, QUERIES=layer_of(rows, None, fields, "None", "snaps"))


def test_times_that_do_not_overlap(no_match):
    layer = candidates([(7200, "phone", [PLACES[0]]), (7300, "phone", [PLACES[0]])])
    no_match(
        "The photos were taken from 2024-05-01 08:00:00 UTC to 2024-05-01 08:00:30 UTC, but the candidates are of 2024-05-01 10:00:00 "
        "UTC to 2024-05-01 10:01:40 UTC: these times do not overlap. Check the clocks and time zones of both, or "
        "give TIME_SHIFT.",
        CANDIDATES=layer,
    )


def test_photos_in_local_time(match):
    layer = candidates([(10 * n - 7200, "phone", [PLACES[n]]) for n in range(4)])
    _, found = match(CANDIDATES=layer, TIME_SHIFT=-7200, TOP_SPEED=400)
    assert [each["landmark_id"] for each in found] == list(NAMES)
    assert [each["time_s"] - START for each in found] == [-7200, -7190, -7180, -7170]


def test_landmarks_without_photos(no_match, landmarks):
    plain = layer_of([("Point (500000 5800000)", "a")], UTM, "name:string", "Point", "places")
    no_match("LANDMARKS: no row of layer 'places' names a photo, in a field such as photo.", LANDMARKS=plain)
    no_match(
        r"LANDMARKS: none of the 4 photos can be read \(/nowhere/bank.png: there is no such file; .+\)\.",
        LANDMARKS=landmarks(folder=Path("/nowhere")),
    )


@pytest.mark.parametrize(
    ("rows", "fields", "sentence"),
    [
        (
            [("a.jpg", 3)],
            "photo:string,x:int",
            "DESCRIPTORS: table 'known' is no table of descriptions .it has no descriptor, no version, no values.; make one with .+",
        ),
        (
            [("a.jpg", "sift", 1, "[1]")],
            "photo:string,descriptor:string,version:int,values:string",
            "DESCRIPTORS: table 'known' holds no descriptor that is known; those are: scalable_color, .+",
        ),
        (
            [("a.jpg", "color_layout", 1, "[1,2]")],
            "photo:string,descriptor:string,version:int,values:string",
            r"DESCRIPTORS: feature 1 \('a.jpg'\) cannot be used. A description by color_layout is an array of 12 numbers, not .+",
        ),
        (
            [("a.jpg", "color_layout", 7, "[1,2]")],
            "photo:string,descriptor:string,version:int,values:string",
            r"DESCRIPTORS: feature 1 \('a.jpg'\) cannot be used. This is version 7 of color_layout; only version 1 is .+",
        ),
    ],
)
def test_tables_that_hold_no_descriptions(no_match, rows, fields, sentence):
    no_match(sentence, DESCRIPTORS=layer_of([(None, *row) for row in rows], None, fields, "None", "known"))


@pytest.fixture(scope="module")
def portmare(tmp_path_factory):
    """The sample city with its photos, in a folder of its own."""
    folder = tmp_path_factory.mktemp("portmare")
    shutil.copy(SAMPLE, folder / "sample_city.gpkg")
    shutil.copytree(ROOT / "resources" / "sample_city" / "photos", folder / "photos")
    return folder


def test_portmare_is_recognised_from_its_photos(match, portmare, sample):
    from qgis.core import QgsVectorLayer

    file = portmare / "sample_city.gpkg"
    truth = {}
    for each in QgsVectorLayer(sample("walks_truth"), "truth", "ogr").getFeatures():
        time_s = each["time"].toMSecsSinceEpoch() / 1000
        truth.setdefault(each["device"], []).append((time_s, *each.geometry().asPoint()))
    way = {device: np.array(rows) for device, rows in truth.items()}

    def error_m(found):
        rows = way[found["device"]]
        here = [np.interp(found["time_s"], rows[:, 0], rows[:, axis]) for axis in (1, 2)]
        return float(np.hypot(*(np.array(found.geometry().asPoint()) - here)))

    rng = np.random.default_rng(3)  # candidates: one near the true place, the others in the streets around
    rows = [
        (f"Point ({x} {y})", device, device, time_s, rank)
        for device, track in way.items()
        for time_s, east, north in track.tolist()
        for rank, (x, y) in enumerate(np.array((east, north)) + rng.normal(0, [[15]] + 7 * [[300]], (8, 2)))
    ]
    layer = layer_of(
        rows, "EPSG:32628", "device:string,trajectory:string,time_s:double,rank:int", "Point", "candidates"
    )
    ran, found = match(
        LANDMARKS=f"{file}|layername=landmarks", QUERIES=f"{file}|layername=landmark_queries", CANDIDATES=layer
    )
    errors = np.array([error_m(each) for each in found])
    fiducial = np.array([each["fiducial"] for each in found], dtype=bool)
    assert ran["PHOTOS"] == 25
    assert ran["UNREADABLE"] == 0
    assert ran["SAVED"] > 0.7
    assert (errors < 25).sum() >= 18  # of 20
    assert (errors[fiducial] < 25).all()
    assert fiducial.sum() >= 11
    assert not any(each["fiducial"] for each in found if each["kind"] == "service")


def test_portmares_photos_import_as_landmarks(match, run, portmare):
    folder = str(portmare / "photos" / "landmarks")
    photos = run("native:importphotos", FOLDER=folder, RECURSIVE=False, OUTPUT="memory:")["OUTPUT"]
    assert photos.featureCount() == 24
    ran, found = match(LANDMARKS=photos, QUERIES=f"{portmare / 'sample_city.gpkg'}|layername=landmark_queries")
    assert ran["MATCHED"] >= 18
    assert {each["landmark_id"] for each in found} <= {Path(path).stem for path in Path(folder).iterdir()}


def test_portmares_photos_tell_when_they_were_taken(match, run, portmare, tmp_path):
    """Photos whose place nobody knows are what 'Import geotagged photos' calls invalid, without their times."""
    given = {"LANDMARKS": f"{portmare / 'sample_city.gpkg'}|layername=landmarks"}
    photos = str(tmp_path / "without_place.gpkg")
    run(
        "native:importphotos",
        FOLDER=str(portmare / "photos" / "queries"),
        RECURSIVE=False,
        OUTPUT="memory:",
        INVALID=photos,
    )
    _, told = match(QUERIES=f"{portmare / 'sample_city.gpkg'}|layername=landmark_queries", **given)
    _, found = match(QUERIES=photos, TIME_SHIFT=-3600, **given)

    def seen(rows, later_s=0):
        return {(Path(row["photo"]).name, round(row["time_s"]) + later_s, row["landmark_id"]) for row in rows}

    assert len(seen(told)) >= 14
    assert seen(found, 3600) == seen(told)


def test_files_are_whole_and_styled(run, landmarks, queries, tmp_path):
    run(
        "matchlandmarks",
        LANDMARKS=landmarks(),
        QUERIES=queries(),
        MATCHES=str(tmp_path / "matches.gpkg"),
        DESCRIBED=str(tmp_path / "described.csv"),
    )
    assert leftovers(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["described.csv", "matches.gpkg", "matches.qml"]
    assert 'startField="time"' in (tmp_path / "matches.qml").read_text()


@pytest.mark.parametrize("phase", ["Photos of landmarks", "Photos to recognise", "Comparing", "Writing"])
def test_cancelled_on_the_way(run, landmarks, queries, tmp_path, phase):
    from qgis.core import QgsProcessingException

    ran = Ran()
    feedback = collecting_feedback(ran)
    feedback.setProgressText = lambda text: feedback.cancel() if text == phase else None
    folder = tmp_path / "outputs"
    with pytest.raises(QgsProcessingException, match="Cancelled"):
        run(
            "matchlandmarks",
            feedback=feedback,
            LANDMARKS=landmarks(),
            QUERIES=queries(),
            MATCHES=str(folder / "matches.gpkg"),
        )
    assert list(folder.iterdir()) == []
