"""Sensibility maps of the QGIS floor: simulated and measured, their raster, the places for landmarks, and bad input."""

import numpy as np
import pytest
from dcm_city import UTM, X, Y, cancelled, grid, measured, rss_dbm, streets, walk, write_maps, xy_of
from processing_helpers import bands_of, layer_of


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    return write_maps(tmp_path_factory.mktemp("maps") / "radio_maps.tif")


@pytest.fixture
def sensibility(run, maps, tmp_path):
    """`sensibility(INPUT=…)`: (what it said, the raster with NaN, features of LANDMARK_PLACES)."""

    def call(**parameters):
        defaults = {
            "RADIO_MAPS": maps,
            "SENSIBILITY": str(tmp_path / "s.tif"),
            "LANDMARK_PLACES": "memory:",
            "NUMBER": 3,
            "LANDMARK_COUNT": 6,
        }
        ran = run("sensibilitymap", **{**defaults, **parameters})
        bands, _ = bands_of(ran["SENSIBILITY"])
        values = np.where(bands["Sensibility"] == -9999, np.nan, bands["Sensibility"])
        places = ran.results.get("LANDMARK_PLACES")
        return ran, values, list(places.getFeatures()) if places else []

    return call


def test_a_simulated_map_is_from_0_to_1_outside_of_buildings(sensibility):
    ran, values, _places = sensibility()
    np.testing.assert_array_equal(np.isnan(values), np.isnan(rss_dbm()[0]))
    assert 0 <= np.nanmin(values) < 0.3 < np.nanmax(values) <= 1
    assert ran["SAMPLES"] == pytest.approx(3 * 480, rel=0.1)
    assert ran["MEAN_DISTANCE"] < ran["D_MAX_USED"]
    assert "(99 % of the samples are nearer)" in ran.text
    assert ran["CRS"].startswith(UTM)


def test_large_tables_are_tried_at_fewer_places_unless_said_otherwise(sensibility, monkeypatch):
    from telcoloc.processing_algorithms import sensibility_map

    plain, *_ = sensibility()
    assert "apart are tried" not in plain.text
    places = int(np.isfinite(rss_dbm()[0]).sum())
    monkeypatch.setattr(sensibility_map, "MOST_COMPARED", places * 3 * 100)  # a hundred places in each of three repeats
    ran, *_ = sensibility()
    assert "m apart are tried, not 20 m" in ran.text
    assert 150 < ran["SAMPLES"] < 400  # a square at the edge may be a part of one
    asked, *_ = sensibility(SPACING=20)
    assert asked["SAMPLES"] == plain["SAMPLES"]


def test_places_are_in_the_worst_areas_and_apart(sensibility):
    ran, values, places = sensibility(LANDMARK_RADIUS=60, LANDMARK_SPACING=80)
    xy = xy_of(ran["LANDMARK_PLACES"])
    assert [row["rank"] for row in places] == [1, 2, 3, 4, 5, 6]
    assert len({row["landmark_id"] for row in places}) == 6
    share, covered = (np.array([row[name] for row in places]) for name in ("share", "covered"))
    np.testing.assert_allclose(np.cumsum(share), covered, atol=1e-3)
    assert covered[-1] == pytest.approx(ran["COVERED"], abs=1e-3)
    apart = np.hypot(*(xy[:, None] - xy).transpose(2, 0, 1))
    assert apart[~np.eye(6, dtype=bool)].min() >= 80
    at = values.ravel()[grid().cells_of(xy)]
    np.testing.assert_allclose([row["sensibility"] for row in places], at, atol=1e-4)
    # Around them it is worse than elsewhere.
    centres = grid().centres(np.arange(grid().size))
    near = np.hypot(*(centres[:, None] - xy).transpose(2, 0, 1)).min(axis=1) < 60
    assert np.nanmean(values.ravel()[near]) > np.nanmean(values.ravel()[~near])


def test_more_candidates_and_less_error_are_less_sensible(sensibility):
    few, _, _ = sensibility(D_MAX=300)
    many, _, _ = sensibility(D_MAX=300, NUMBER=15)
    good, _, _ = sensibility(D_MAX=300, ERROR=1)
    assert many["MEAN_DISTANCE"] < few["MEAN_DISTANCE"]
    assert good["MEAN_DISTANCE"] < few["MEAN_DISTANCE"]
    assert few["D_MAX_USED"] == 300


def test_measurements_show_it_around_where_they_were_made(sensibility):
    ran, values, _ = sensibility(INPUT=measured(), RADIUS=40)
    centres = grid().centres(np.arange(grid().size))
    away = np.hypot(*(centres[:, None] - walk()).transpose(2, 0, 1)).min(axis=1)
    np.testing.assert_array_equal(np.isfinite(values.ravel()), away <= 40)
    assert ran["SAMPLES"] == 40
    assert "by 40 records with a true position" in ran.text


def test_streets_hold_the_map_and_the_places(sensibility):
    ran, values, _ = sensibility(STREETS=streets())
    xy = xy_of(ran["LANDMARK_PLACES"])
    assert np.abs(xy - [X + 105, Y + 105]).min(axis=1).max() <= 10
    assert np.isfinite(values).sum() < 0.2 * np.isfinite(rss_dbm()[0]).sum()


def test_a_seed_gives_one_map(sensibility):
    one, same, other = (sensibility(SEED=seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other)[np.isfinite(one)].any()


def test_landmark_places_are_optional_and_not_invented(sensibility):
    ran, _, places = sensibility(LANDMARK_PLACES=None)
    assert (places, ran["COVERED"]) == ([], None)
    ran, values, places = sensibility(ERROR=0, NUMBER=1)
    assert (np.nanmax(values), places) == (0, [])
    assert "no landmark is suggested" in ran.text


def test_the_map_drives_candidates(run, maps, sensibility):
    ran, _, _ = sensibility(ERROR=4)
    found = run(
        "signalcandidates",
        INPUT=measured(),
        RADIO_MAPS=maps,
        SENSIBILITY=ran["SENSIBILITY"],
        NUMBER=5,
        MAX_NUMBER=50,
        CANDIDATES="memory:",
    )
    assert 5 * 40 < found["CANDIDATE_COUNT"] < 50 * 40


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"RADIO_MAPS": None}, r"The look-up table comes from one of .*, but none is given\."),
        (
            {"INPUT": "nowhere"},
            r"INPUT: none of the 40 records of 'reports' has a true position\. Leave it empty to simulate\.",
        ),
        ({"INPUT": "elsewhere"}, r"No record with a true position lies on the map, so .*\. Simulate it instead\."),
        ({"STREETS": "points"}, r"STREETS: layer 'stations' holds Point, not lines; give a layer of streets\."),
    ],
)
def test_input_that_cannot_be_used_is_refused_with_a_sentence(refused, maps, tmp_path, parameters, sentence):
    folder = tmp_path / "outputs"
    values = {"RADIO_MAPS": maps, "SENSIBILITY": str(folder / "s.tif"), **parameters}
    layers = {
        "nowhere": lambda: measured(truth=False),
        "elsewhere": lambda: shifted(measured()),
        "points": lambda: layer_of([("Point (1 1)", "a")], UTM),
    }
    values = {
        name: layers.get(value, lambda value=value: value)() for name, value in values.items() if value is not None
    }
    refused("sensibilitymap", sentence, **values)
    assert not folder.exists() or list(folder.iterdir()) == []


def shifted(layer):
    """The same records, 50 km to the east."""
    for feature in list(layer.getFeatures()):
        geometry = feature.geometry()
        geometry.translate(50_000, 0)
        assert layer.dataProvider().changeGeometryValues({feature.id(): geometry})
    return layer


@pytest.mark.parametrize("percent", [1, 22, 50])
def test_cancelled_soon_and_without_a_trace(qgis_app, maps, tmp_path, percent):
    values = {"RADIO_MAPS": maps, "SENSIBILITY": str(tmp_path / "s.tif"), "SPACING": 10, "REPEATS": 30}
    assert cancelled("sensibilitymap", values, percent) < 1.5
    assert list(tmp_path.iterdir()) == []
