"""Track with landmarks: layers in any CRS become paths that the engine finds, and what cannot be used gets its sentence."""

import re
import time

import numpy as np
import pytest
from dcm_city import cancelled
from processing_helpers import Ran, collecting_feedback, layer_of
from qgis.core import QgsCoordinateReferenceSystem, QgsProcessingContext, QgsProject, QgsVectorLayer, QgsWkbTypes

UTM, DEGREES = "EPSG:32633", "EPSG:4326"
X, Y = 500_000.0, 5_800_000.0
BEGIN = 1_709_834_400.0  # 2024-03-07 18:00:00 UTC
CANDIDATES = "device:string,trajectory:string,time_s:double,rank:integer,error_db:double"
#: A block of houses between two streets that run east, 60 m apart.
BLOCK = (10.0, 20.0, 190.0, 40.0)
N = 11


def two_streets(device="phone", every_s=2.0):
    """The device drives east along y = 0; a second candidate stands still at y = 60, which is shorter."""
    rows = []
    for t in range(N):
        for rank, (x, y, error) in enumerate(((100.0, 60.0, 2.0), (20.0 * t, 0.0, 3.0)), 1):
            rows.append((f"Point ({X + x} {Y + y})", device, device, BEGIN + every_s * t, rank, error))
    return rows


def candidates(rows=None, crs=UTM, name="candidates"):
    return layer_of(two_streets() if rows is None else rows, crs, CANDIDATES, name=name)


def landmarks(rows=(("church", "location", 100.0, -2.0),), crs=UTM):
    return layer_of(
        [(f"Point ({X + x} {Y + y})", id_, kind) for id_, kind, x, y in rows],
        crs,
        "landmark_id:string,kind:string",
        name="landmarks",
    )


def matches(rows=(("church", 10.0),), fields="landmark_id:string,time_s:double"):
    return layer_of([(None, name, BEGIN + at, *rest) for name, at, *rest in rows], "", fields, "None", "matches")


def block(west, south, east, north):
    corners = ((west, south), (east, south), (east, north), (west, north), (west, south))
    return f"Polygon (({', '.join(f'{X + x} {Y + y}' for x, y in corners)}))"


def buildings(boxes=(BLOCK,), crs=UTM):
    return layer_of([(block(*box), "a") for box in boxes], crs, "name:string", "Polygon", "buildings")


def streets(crs=UTM, lines=(((0, 0), (200, 0)), ((0, 60), (200, 60))), oneway=("no", "no")):
    rows = [(f"LineString ({', '.join(f'{X + x} {Y + y}' for x, y in line)})", one) for line, one in zip(lines, oneway)]
    return layer_of(rows, crs, "oneway:string", "LineString", "streets")


def reprojected(run, layer, crs):
    return run("native:reprojectlayer", INPUT=layer, TARGET_CRS=crs, OUTPUT="TEMPORARY_OUTPUT")["OUTPUT"]


@pytest.fixture
def track(run):
    """`track(BUILDINGS=…)`: (ran, {output: rows as dicts with x and y})."""

    def call(**parameters):
        outputs = dict.fromkeys(("PATH", "LINES", "EDGES", "CANDIDATES"), "TEMPORARY_OUTPUT")
        ran = run("tracklandmarks", **{"INPUT": candidates(), "TRANSPORT": "car", "SLACK": 15, **outputs, **parameters})
        read = {}
        for name in outputs:
            layer = ran[name]
            if not isinstance(layer, QgsVectorLayer):
                layer = QgsVectorLayer(str(layer), name, "ogr")
            read[name] = []
            for feature in layer.getFeatures():
                row = dict(zip(layer.fields().names(), feature.attributes()))
                vertices = list(feature.geometry().vertices())
                row["xy"] = [(vertex.x() - X, vertex.y() - Y) for vertex in vertices]
                read[name].append(row)
        return ran, read

    return call


def ys(read):
    return [round(row["xy"][0][1], 3) for row in read["PATH"]]


def test_the_three_modes_repeat_the_papers_comparison(track):
    for mode, expected in (
        ("none", [60] * N),
        ("nonhybrid", [60] * 5 + [-2] + [60] * 5),
        ("hybrid", [0] * 5 + [-2] + [0] * 5),
    ):
        ran, read = track(BUILDINGS=buildings(), LANDMARKS=landmarks(), MATCHES=matches(), MODE=mode)
        assert ys(read) == expected
        assert [row["kind"] for row in read["PATH"]] == ["landmark" if y == -2 else "candidate" for y in expected]
        assert [row["landmark_id"] for row in read["PATH"] if row["kind"] == "landmark"] == ["church"] * (
            mode != "none"
        )
        assert ran["INSTANT_COUNT"] == N
        assert ran["PART_COUNT"] == ran["MATCHES_USED"] == 1
        assert ran["LANDMARK_COUNT"] == (mode != "none")


def test_layers_say_what_the_graph_was(track):
    ran, read = track(BUILDINGS=buildings(), LANDMARKS=landmarks(), MATCHES=matches())
    path, edges, given = read["PATH"], read["EDGES"], read["CANDIDATES"]
    assert [row["time"].toMSecsSinceEpoch() / 1000 for row in path] == [BEGIN + 2 * t for t in range(N)]
    assert [row["part"] for row in path] == [1] * N
    assert [row["instant"] for row in path] == list(range(N))
    assert len(edges) == ran["EDGE_COUNT"]
    for edge in edges:
        (x, y), (x_to, y_to) = edge["xy"]
        assert edge["weight_m"] >= np.hypot(x_to - x, y_to - y) - 0.01
        assert edge["time"] < edge["time_to"]
        assert (y > 20) == (y_to > 20)  # nothing runs through the block
    chosen = [edge for edge in edges if edge["chosen"]]
    assert [edge["xy"] for edge in chosen] == [[one["xy"][0], other["xy"][0]] for one, other in zip(path, path[1:])]
    assert sum(row["chosen"] for row in given) == N - 1
    assert {tuple(row["xy"][0]) for row in given if row["chosen"]} == {
        tuple(row["xy"][0]) for row in path if row["kind"] == "candidate"
    }
    (line,) = read["LINES"]
    assert line["xy"] == [row["xy"][0] for row in path]
    assert line["length_m"] == pytest.approx(2 * np.hypot(20, 2) + 160, abs=0.1)
    assert QgsWkbTypes.hasM(ran["LINES"].wkbType()) if isinstance(ran["LINES"], QgsVectorLayer) else True


def test_the_map_may_be_streets_in_degrees_and_one_ways_are_kept(track, run):
    ahead = [(f"Point ({X + 20.0 * t} {Y + 25})", "phone", "phone", BEGIN + 2 * t, 1, 1.0) for t in range(N)]
    for oneway, y in (
        ("no", 0),
        ("-1", 60),
    ):  # the nearer street; where the nearer street runs west only, the farther one it is
        both = reprojected(run, streets(oneway=(oneway, "no")), DEGREES)
        ran, read = track(INPUT=candidates(ahead), STREETS=both, SNAP=60, SLACK=5)
        np.testing.assert_allclose([row["xy"][0][1] for row in read["PATH"]], y, atol=0.01)
        assert ran["PART_COUNT"] == 1


def test_streets_in_degrees_whose_crs_is_in_metres_are_told_apart(refused, run):
    mistaken = reprojected(run, streets(), DEGREES)
    mistaken.setCrs(QgsCoordinateReferenceSystem(UTM))
    refused(
        "tracklandmarks",
        r"STREETS: none of the 2 streets of layer '.*' is near the points\. Its coordinates, such as \d+\.\d{4}, \d+\.\d{4}, look like "
        r"degrees, but its CRS is EPSG:\d+ \(.*\): set the right one with Layer > Set CRS of Layer\.",
        INPUT=candidates(),
        STREETS=mistaken,
        PATH="TEMPORARY_OUTPUT",
    )


def test_all_layers_may_be_in_degrees(track, run):
    plain, _ = track(BUILDINGS=buildings(), LANDMARKS=landmarks(), MATCHES=matches())
    in_degrees, read = track(
        INPUT=reprojected(run, candidates(), DEGREES),
        BUILDINGS=reprojected(run, buildings(), DEGREES),
        LANDMARKS=reprojected(run, landmarks(), DEGREES),
        MATCHES=matches(),
    )
    assert in_degrees["CRS"].startswith(UTM)
    np.testing.assert_allclose(ys(read), [0] * 5 + [-2] + [0] * 5, atol=0.01)
    assert in_degrees["EDGE_COUNT"] == plain["EDGE_COUNT"]


def test_errors_are_told_where_the_truth_is_known(track):
    truth = layer_of(
        [(f"Point ({X + 20.0 * t} {Y + 1.0})", "phone", BEGIN + 2.0 * t) for t in range(0, N - 2, 2)],
        UTM,
        "device:string,time_s:double",
        name="truth",
    )
    ran, read = track(BUILDINGS=buildings(), LANDMARKS=landmarks(), MATCHES=matches(), TRUTH=truth)
    expected = [1.0] * 5 + [3.0] + [1.0] * 3 + [None] * 2  # between two known positions lies a straight line
    assert [
        row["truth_error_m"] if isinstance(row["truth_error_m"], float) else None for row in read["PATH"]
    ] == expected
    assert ran["MEAN_ERROR"] == pytest.approx(11 / 9, abs=0.01)
    best = [np.hypot(100 - 20 * t, 59) for t in range(9)]
    assert ran["BEST_CANDIDATE_ERROR"] == pytest.approx(np.mean(best), abs=0.01)
    assert "Error of the path: mean 1.2 m" in ran.text


def test_what_is_split_filled_and_predicted_is_marked(track):
    rows = [row for row in two_streets() if "60.0)" not in row[0] and not row[0].endswith(f"{Y + 60.0})")]
    rows = [row for row in rows if row[3] != BEGIN + 6]
    rows = [(None, *row[1:4], None, None) if row[3] == BEGIN + 12 else row for row in rows]
    far = [(f"Point ({X + 9_000} {Y + 9_000})", "phone", "phone", BEGIN + 24, 1, 1.0)]
    ran, read = track(INPUT=candidates(rows + far), PREDICT=4, KALMAN=True)
    kinds = ["candidate"] * 5 + ["filled"] + ["candidate"] * 5 + ["predicted"]
    assert [row["kind"] for row in read["PATH"]] == kinds
    assert [row["part"] for row in read["PATH"]][:11] == [1] * 10 + [2]  # which is one instant and tells no speed
    assert ran["PART_COUNT"] == 2
    assert any("is in 2 parts" in text for text in ran.warnings)
    assert read["PATH"][5]["xy"][0][0] == pytest.approx(120, abs=8)
    assert len(read["LINES"]) == 1


def test_candidates_every_few_seconds_fill_in_what_lies_between(track):
    _, read = track(INTERVAL=4, BUILDINGS=buildings(), LANDMARKS=landmarks(), MATCHES=matches((("church", 8.0),)))
    kinds = [row["kind"] for row in read["PATH"]]
    assert kinds == ["candidate", "filled"] * 2 + ["landmark"] + ["filled", "candidate"] * 3
    np.testing.assert_allclose(
        [row["xy"][0][0] for row in read["PATH"]], [0, 20, 40, 70, 100, 110, 120, 140, 160, 180, 200]
    )
    assert len(read["CANDIDATES"]) == 6 * 2 + 5  # an instant without candidates is a row without a point


def test_measurements_and_radio_maps_go_in_one_step(run, track, tmp_path):
    cells = layer_of(
        [
            (f"Point ({X + x} {Y + y})", name, 30.0, 1800.0, 50.0)
            for name, x, y in (("a", -50, -40), ("b", 250, -30), ("c", 100, 150))
        ],
        UTM,
        "cell_id:string,height_m:double,freq_mhz:double,eirp_dbm:double",
        name="cells",
    )
    maps = str(tmp_path / "maps.tif")
    extent = f"{X - 50},{X + 250},{Y - 50},{Y + 110} [{UTM}]"
    run("pathlossmaps", INPUT=cells, EXTENT=extent, CELL_SIZE=10, MODEL="logdistance", RADIO_MAPS=maps)
    from telcoloc.telcoloc_qgis.radio_maps import read_radio_maps

    known = read_radio_maps(maps, "maps")
    rows = []
    for t in range(N):
        cell = known.grid.cells_of(np.array([[X + 20.0 * t, Y + 5.0]]))
        rss = known.rss_dbm.reshape(3, -1)[:, cell[0]]
        order = np.argsort(-rss)
        names = [known.transmitters.ids[k] for k in order]
        rows.append(
            (
                None,
                "phone",
                BEGIN + 2.0 * t,
                *(
                    value for k, name in zip(order, names) for value in (name, float(rss[k]) - 12.0)
                ),  # the device reads too little
            )
        )
    fields = "device:string,time_s:double," + ",".join(f"cell_{k}:string,rss_dbm_{k}:double" for k in (1, 2, 3))
    table = layer_of(rows, "", fields, "None", "measurements")
    _, read = track(INPUT=table, RADIO_MAPS=maps, BUILDINGS=buildings(), ERROR_WEIGHT=200, CANDIDATE_COUNT=8)
    for t, row in enumerate(read["PATH"]):
        assert np.hypot(row["xy"][0][0] - 20.0 * t, row["xy"][0][1] - 5.0) < 15
    assert len(read["CANDIDATES"]) == 8 * N


def test_landmarks_off_the_map_are_named(track):
    rows = (
        ("church", "location", 100.0, -2.0),
        ("cellar", "location", 100.0, 30.0),
        ("abroad", "location", 90_000.0, 0.0),
    )
    inside = buildings(((0.0, 10.0, 200.0, 50.0),))
    ran, _ = track(
        BUILDINGS=inside, LANDMARKS=landmarks(rows), MATCHES=matches((("church", 10), ("cellar", 4), ("abroad", 6)))
    )
    assert (
        "LANDMARKS: 2 landmarks lie inside buildings or outside the map and cannot be crossed: cellar; abroad."
        in ran.warnings
    )
    assert ran["MATCHES_USED"] == 1
    assert any(text.startswith("MATCHES: 2 of 3 matches belong to no instant") for text in ran.warnings)


def test_landmarks_far_from_streets_are_named(track):
    away = landmarks((("church", "location", 100.0, -2.0), ("chapel", "location", 100.0, 5_000.0)))
    ran, _ = track(STREETS=streets(), LANDMARKS=away, MATCHES=matches())
    said = (
        "LANDMARKS: 1 landmark lies more than 50 m from any street near the candidates and cannot be crossed: chapel."
    )
    assert said in ran.warnings


def test_candidates_that_are_nowhere_reachable_are_said(track):
    apart = [(f"Point ({X + 2000.0 * t} {Y})", "p", "p", BEGIN + 2 * t, 1, 1.0) for t in range(4)]
    ran, read = track(INPUT=candidates(apart))
    assert ran["PART_COUNT"] == 4
    assert any("each of its 4 instants is a part of its own" in text for text in ran.warnings)
    assert read["EDGES"] == read["LINES"] == []
    half = buildings(((-60.0, 45.0, 260.0, 90.0),))
    ran, read = track(BUILDINGS=half)
    assert (
        f"INPUT: {N} of {2 * N} candidates lie inside buildings or outside the map and cannot be reached."
        in ran.warnings
    )
    assert ys(read) == [0] * N


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"MATCHES": matches}, "MATCHES is given without LANDMARKS; give the layer of landmarks, too."),
        (
            {"LANDMARKS": landmarks, "MATCHES": lambda: matches((("church", 86_400.0),))},
            r"MATCHES: the times of 'matches', 2024-03-08 18:00:00 to 2024-03-08 18:00:00 \(UTC\), do not overlap those of INPUT, "
            r"2024-03-07 18:00:00 to 2024-03-07 18:00:20 \(UTC\). Check their time zones and clocks.",
        ),
        (
            {"LANDMARKS": landmarks, "MATCHES": lambda: matches((("tower", 1.0),))},
            "MATCHES: table 'matches' knows none of the 1 landmarks: its names are such as 'tower', theirs such as 'church'.",
        ),
        (
            {"TRUTH": lambda: layer_of([(f"Point ({X} {Y})", 12.0)], UTM, "time_s:double", name="old")},
            r"TRUTH: the times of 'old', 1970-01-01 00:00:12 to 1970-01-01 00:00:12 \(UTC\), do not overlap those of INPUT, .*",
        ),
        (
            {"TRUTH": lambda: layer_of([(f"Point ({X} {Y})", "a")], UTM, "name:string", name="timeless")},
            r"TRUTH: layer 'timeless' has no field of times \(such as time\); its fields: name.",
        ),
        (
            {
                "INPUT": lambda: layer_of(
                    [(None, "p", 1.0, "a", -70.0)],
                    "",
                    "device:string,time_s:double,cell_1:string,rss_dbm_1:double",
                    "None",
                    "drive",
                )
            },
            "INPUT: layer 'drive' holds measurements; give RADIO_MAPS, too, or make candidates of it with 'Signal candidates'.",
        ),
        ({"BUILDINGS": buildings, "CELL_SIZE": 0.01}, "CELL_SIZE.*"),
        ({"TOP_SPEED": 0}, "TOP_SPEED.*"),
        ({"WINDOW": 1}, "WINDOW.*"),
        ({"MODE": "hybird"}, "MODE.*hybrid.*"),
    ],
)
def test_input_that_makes_no_sense_gets_a_sentence(refused, wrong, sentence):
    given = {name: value() if callable(value) else value for name, value in wrong.items()}
    refused("tracklandmarks", sentence, **{"INPUT": candidates(), "PATH": "TEMPORARY_OUTPUT", **given})


def test_all_candidates_inside_buildings_end_the_run_with_a_sentence(refused):
    inside = buildings(((-1000.0, -1000.0, 1000.0, 1000.0),))
    refused(
        "tracklandmarks", "No cell of the map is free.*", INPUT=candidates(), BUILDINGS=inside, PATH="TEMPORARY_OUTPUT"
    )


@pytest.mark.parametrize("percent", [5, 25, 40, 65, 90])
def test_cancelled_soon_and_without_a_trace(qgis_app, tmp_path, percent):
    rng = np.random.default_rng(0)
    rows = [
        (f"Point ({X + x} {Y + y})", "phone", "phone", BEGIN + 2.0 * t, rank + 1, 5.0)
        for t in range(600)
        for rank, (x, y) in enumerate(rng.uniform((0, -30), (200, 90), (20, 2)))
    ]
    values = {
        "INPUT": candidates(rows),
        "BUILDINGS": buildings(),
        "KALMAN": True,
        **{name: str(tmp_path / f"{name}.gpkg") for name in ("PATH", "LINES", "EDGES", "CANDIDATES")},
    }
    assert cancelled("tracklandmarks", values, percent) < 1.5
    assert list(tmp_path.iterdir()) == []


def test_outputs_come_in_one_group_that_plays(run, tmp_path):
    context, ran = QgsProcessingContext(), Ran()
    context.setProject(QgsProject.instance())
    names = ("PATH", "LINES", "EDGES", "CANDIDATES")
    files = {name: str(tmp_path / f"{name}.gpkg") for name in names}
    run(
        "tracklandmarks",
        feedback=collecting_feedback(ran),
        context=context,
        INPUT=candidates(),
        BUILDINGS=buildings(),
        **files,
    )
    for name in names:
        layer = QgsVectorLayer(files[name], name, "ogr")
        assert layer.isValid()
        assert layer.loadDefaultStyle()[1]
        assert layer.temporalProperties().isActive()
        assert (tmp_path / f"{name}.qml").exists()


def test_ten_minutes_of_a_drive_are_soon_tracked(track):
    rng = np.random.default_rng(1)
    rows = []
    for t in range(300):
        for rank in range(1, 21):
            x, y = 10 * t * 0.48 * np.array([1, 0]) + rng.normal(0, 25, 2)
            rows.append((f"Point ({X + x} {Y + y})", "p", "p", BEGIN + 0.48 * t, rank, float(rank)))
    given = candidates(rows)
    boxes = [(40.0 * k, 40.0, 40.0 * k + 30, 70.0) for k in range(36)]
    begun = time.perf_counter()
    ran, _ = track(INPUT=given, BUILDINGS=buildings(boxes), SLACK=30, KALMAN=True)
    assert time.perf_counter() - begun < 20
    assert re.search(r"300 instants in 1 part of 1 trajectory", ran.text)


def test_nodes_lie_where_edges_meet_them(track):
    """Candidates beside a street are drawn on it; one far from every street stays where it is."""
    rows = [(f"Point ({X + 20 * t} {Y + 8})", "a", "a", BEGIN + 2 * t, 1, 3.0) for t in range(5)]
    rows.append((f"Point ({X + 40} {Y + 400})", "a", "a", BEGIN + 4, 2, 2.0))
    _, read = track(INPUT=candidates(rows), STREETS=streets(), SNAP=50)
    places = sorted((row["rank"], *np.round(row["xy"][0], 6).tolist()) for row in read["CANDIDATES"])
    assert places == [*((1, 20.0 * t, 0.0) for t in range(5)), (2, 40.0, 400.0)]
