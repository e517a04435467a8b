"""Statements about radio maps and footprints. Oracles: path-loss formulas by hand, points tested one by one, one map against another."""

import time
from dataclasses import replace

import numpy as np
import pytest
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.grid import Grid
from telcoloc.models.radio import engine
from telcoloc.models.radio.buildings import buildings_of_polygons
from telcoloc.models.radio.dominant_path_settings import DominantPathSettings
from telcoloc.models.radio.empirical import free_space_db
from telcoloc.models.radio.maps import ModelSettings, RadioMapJob, losses_at, radio_maps
from telcoloc.models.radio.path_loss import los_probability, path_loss_db, sight_losses_db
from telcoloc.models.radio.patterns import Pattern
from telcoloc.models.radio.transmitters import Transmitters

GRID = Grid(60, 80, -100.0, 200.0, 5.0)
FORMULAS = ("logdistance", "hata", "3gpp", "cost231wi")


def transmitters(n=3, **other):
    g = np.random.default_rng(n)
    columns = {
        "ids": tuple(f"c{i}" for i in range(n)),
        "xy_m": g.uniform(-80, 180, (n, 2)),
        "height_m": g.uniform(20, 40, n),
        "azimuth_deg": g.uniform(0, 360, n),
        "tilt_deg": g.uniform(0, 8, n),
        "beam_width_deg": np.full(n, 65.0),
        "freq_mhz": g.uniform(800, 2000, n),
        "eirp_dbm": g.uniform(40, 60, n),
    }
    return Transmitters(**{**columns, **other})


def star(x, y, radius, n=9, seed=0):
    """A polygon with corners in and out."""
    angle = np.arange(n) / n * 2 * np.pi + seed
    r = np.where(np.arange(n) % 2, 0.45, 1.0) * radius
    return np.column_stack([x + r * np.cos(angle), y + r * np.sin(angle)])


def town():
    polygons = [[star(40 * i - 70, 35 * j - 80, 17, 9 + i, i + j)] for i in range(8) for j in range(8)]
    polygons += [[star(10, 60, 60, 24), star(10, 60, 25, 12)]]  # with a courtyard, over others
    return buildings_of_polygons(polygons, 8.0 + np.arange(len(polygons)) % 11)


def holds(ring, x, y):
    """Whether a ring holds a point: how often a ray to the right crosses it."""
    inside = False
    if not (ring[:, 1].min() < y < ring[:, 1].max()):
        return inside
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0)):
        if (y0 > y) != (y1 > y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) > x:
            inside = not inside
    return inside


# Footprints


def rings_of(buildings, number):
    rings = np.flatnonzero(buildings.building == number)
    return [buildings.xy_m[buildings.first[r] : buildings.first[r + 1]] for r in rings]


def test_heights_and_insides_are_those_found_point_by_point():
    buildings, grid = town(), Grid(37, 41, -110.0, 205.0, 8.0)
    expected = np.zeros(grid.shape)
    for row, column in np.ndindex(grid.shape):
        for number in range(len(buildings)):
            if sum(holds(ring, grid.x_m[column], grid.y_m[row]) for ring in rings_of(buildings, number)) % 2:
                expected[row, column] = max(expected[row, column], buildings.height_m[number])
    assert 0.1 < (expected > 0).mean() < 0.6
    np.testing.assert_allclose(buildings.heights_on(grid), expected)
    assert buildings.heights_on(grid).dtype == np.float32
    np.testing.assert_array_equal(buildings.inside(grid.centres(np.arange(grid.size))), expected.ravel() > 0)


def test_area_is_the_count_of_cells():
    square = np.array([[0.0, 0], [300, 0], [300, 200], [0, 200]])
    hole = square * 0.5 + 20
    grid = Grid(260, 340, -20.0, 240.0, 1.0)
    heights = buildings_of_polygons([[square, hole]], [7.0]).heights_on(grid)
    assert np.count_nonzero(heights) == 300 * 200 - 150 * 100


def signed_area(ring):
    x, y = ring.T
    return (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


@pytest.mark.parametrize("turned", [False, True])
def test_rings_are_turned_so_that_the_inside_lies_to_the_left(turned):
    outer, hole = star(0, 0, 30), star(0, 0, 8)
    closed = [np.concatenate([ring, ring[:1]])[:: -1 if turned else 1] for ring in (outer, hole)]
    buildings = buildings_of_polygons([closed, [star(99, 0, 9)]], [5.0, 6.0])
    areas = [signed_area(buildings.xy_m[i:j]) for i, j in zip(buildings.first[:-1], buildings.first[1:])]
    assert [area > 0 for area in areas] == [True, False, True]
    assert buildings.building.tolist() == [0, 0, 1]
    assert len(buildings.xy_m) == 27


def test_taking_buildings_keeps_their_rings():
    buildings = town()
    chosen = np.array([3, 7, 64])
    taken = buildings.take(chosen)
    assert taken.height_m.tolist() == buildings.height_m[chosen].tolist()
    for new, old in enumerate(chosen):
        for ring, expected in zip(rings_of(taken, new), rings_of(buildings, old)):
            np.testing.assert_array_equal(ring, expected)


def test_no_buildings_are_no_obstacle():
    none = buildings_of_polygons([], [])
    assert not none.heights_on(GRID).any()
    assert not none.inside(np.zeros((4, 2))).any()
    job = RadioMapJob(transmitters(), GRID, "cost231wi")
    without = radio_maps(job).loss_db
    np.testing.assert_array_equal(radio_maps(replace(job, buildings=none)).loss_db, without)


# Maps


@pytest.mark.parametrize(("scenario", "mhz"), [("UMa", 1800.0), ("RMa", 800.0)])
def test_a_map_is_the_formula_at_each_cell_plus_the_antenna(scenario, mhz):
    t = transmitters(2, freq_mhz=np.full(2, mhz), azimuth_deg=np.array([90.0, np.nan]), tilt_deg=np.array([3.0, 0.0]))
    maps = radio_maps(RadioMapJob(t, GRID, settings=ModelSettings(scenario=scenario)))
    for i, row, column in [(0, 10, 20), (0, 50, 70), (1, 3, 3), (1, 59, 0)]:
        east, north = GRID.x_m[column] - t.xy_m[i, 0], GRID.y_m[row] - t.xy_m[i, 1]
        distance = np.hypot(east, north)
        depression = np.degrees(np.arctan2(t.height_m[i] - 1.5, distance))
        vertical = min(12 * ((depression - t.tilt_deg[i]) / 10) ** 2, 20)
        off = (np.degrees(np.arctan2(east, north)) - 90 + 180) % 360 - 180 if i == 0 else 0.0
        pattern = min(min(12 * (off / 65) ** 2, 30) + vertical, 30)
        expected = path_loss_db(scenario, np.array(distance), mhz, t.height_m[i]) + pattern
        assert maps.loss_db[i, row, column] == pytest.approx(float(expected), abs=1e-4)
        assert maps.rss_dbm[i, row, column] == pytest.approx(t.eirp_dbm[i] - float(expected), abs=1e-4)
    assert maps.model == "3gpp"
    assert maps.noise_floor_dbm == pytest.approx(-95)


@pytest.mark.parametrize("model", FORMULAS)
def test_points_have_the_values_of_their_cells(model):
    job = RadioMapJob(transmitters(), GRID, model)
    everywhere = np.arange(GRID.size)
    found = losses_at(job, GRID.centres(everywhere))
    np.testing.assert_allclose(found.reshape(3, *GRID.shape), radio_maps(job).loss_db, atol=1e-4)


@pytest.mark.parametrize("model", ["3gpp", "cost231wi"])
def test_among_buildings_points_have_nearly_the_values_of_their_cells(model):
    job = RadioMapJob(transmitters(), GRID, model, buildings=town(), pattern=Pattern("omni"))
    on_map = radio_maps(job).loss_db.reshape(3, -1)
    at_points = losses_at(job, GRID.centres(np.arange(GRID.size)))
    np.testing.assert_array_equal(np.isnan(on_map), np.isnan(at_points))
    difference = np.abs(on_map - at_points)[~np.isnan(on_map)]
    assert np.quantile(difference, 0.8) < 1
    assert np.median(difference) < 0.3


@pytest.mark.parametrize("model", FORMULAS)
def test_cells_inside_buildings_have_no_value(model):
    buildings = town()
    maps = radio_maps(RadioMapJob(transmitters(), GRID, model, buildings=buildings))
    for loss in maps.loss_db:
        np.testing.assert_array_equal(np.isnan(loss), buildings.heights_on(GRID) > 0)


@pytest.mark.parametrize("model", ["hata", "cost231wi"])
@pytest.mark.parametrize("buildings", [None, town()])
def test_loss_is_never_below_free_space(model, buildings):
    """Also below 1 km, and below 20 m, where Hata and COST231-WI are not made for."""
    t = transmitters(height_m=np.array([5.0, 20.0, 45.0]))
    loss = radio_maps(RadioMapJob(t, GRID, model, buildings=buildings, pattern=Pattern("omni"))).loss_db.reshape(3, -1)
    d = np.linalg.norm(GRID.centres(np.arange(GRID.size)) - t.xy_m[:, None], axis=2)
    d3 = np.hypot(d, t.height_m[:, None] - 1.5)
    least = free_space_db(d3, t.freq_mhz[:, None])
    assert (loss[np.isfinite(loss)] >= least[np.isfinite(loss)] - 1e-4).all()
    assert (np.abs(loss - least)[d3 < 10] < 1e-4).any() or not (d3 < 10).any()


def test_3gpp_uses_the_sight_of_the_footprints_or_its_probability():
    job = RadioMapJob(transmitters(1), GRID, buildings=town(), pattern=Pattern("omni"))
    actual = radio_maps(job).loss_db[0].ravel()
    expected = radio_maps(replace(job, settings=ModelSettings(sight_from_buildings=False))).loss_db[0].ravel()
    t = job.transmitters
    distance = np.hypot(*(GRID.centres(np.arange(GRID.size)) - t.xy_m[0]).T)
    los, nlos = sight_losses_db("UMa", distance, t.freq_mhz, t.height_m)
    free = np.isfinite(actual)
    seen = np.abs(actual - los) < 1e-3
    assert (seen | (np.abs(actual - nlos) < 1e-3))[free].all()
    assert 0.05 < seen[free].mean() < 0.95
    share = los_probability("UMa", distance)
    np.testing.assert_allclose(expected[free], (share * los + (1 - share) * nlos)[free], atol=1e-3)


@pytest.mark.parametrize("model", FORMULAS)
@pytest.mark.parametrize("buildings", [None, town()])
def test_torch_and_threads_make_the_same_map(model, buildings):
    job = RadioMapJob(transmitters(5), GRID, model, buildings=buildings, pattern=Pattern("gaussian"))
    alone = radio_maps(job).loss_db
    np.testing.assert_array_equal(radio_maps(replace(job, threads=3)).loss_db, alone)
    np.testing.assert_allclose(radio_maps(replace(job, device="torch")).loss_db, alone, atol=1e-4)


@pytest.mark.parametrize("model", ["cost231wi", "dominantpath"])
def test_sectors_of_one_mast_have_the_maps_they_have_alone(model):
    three = transmitters(
        4, xy_m=np.array([[0.0, 0], [50, 50], [0, 0], [0, 0]]), height_m=np.full(4, 25.0), freq_mhz=np.full(4, 900.0)
    )
    grid = Grid(20, 20, -100, 100, 10.0)
    together = radio_maps(RadioMapJob(three, grid, model, buildings=town())).loss_db
    for row in range(4):
        alone = radio_maps(RadioMapJob(three.take(np.array([row])), grid, model, buildings=town())).loss_db
        np.testing.assert_array_equal(together[row], alone[0])


def test_each_transmitter_may_have_its_own_pattern():
    kinds = (Pattern("omni"), Pattern("3gpp"), Pattern("gaussian"))
    job = RadioMapJob(transmitters(3), GRID, pattern=kinds)
    together = radio_maps(job).loss_db
    for number, kind in enumerate(kinds):
        np.testing.assert_array_equal(together[number], radio_maps(replace(job, pattern=kind)).loss_db[number])


def test_behind_a_row_of_houses_the_street_matters():
    """Antenna over a street grid: the loss right behind a house exceeds that at the same distance in view of it."""
    wall = np.array([[40.0, -300], [60, -300], [60, 300], [40, 300]])
    t = transmitters(1, xy_m=np.zeros((1, 2)), height_m=np.array([25.0]))
    job = RadioMapJob(t, GRID, "cost231wi", buildings=buildings_of_polygons([[wall]], [18.0]), pattern=Pattern("omni"))
    hidden, open_side = losses_at(job, np.array([[70.0, 0.0], [-70.0, 0.0]]))[0]
    assert hidden > open_side + 5


# Sentences


def test_an_antenna_inside_a_building_is_named_and_not_walled_in():
    house = np.array([[-20.0, -20], [20, -20], [20, 20], [-20, 20]])
    buildings = buildings_of_polygons([[house]], [30.0])
    t = transmitters(2, xy_m=np.array([[0.0, 0.0], [90.0, 90.0]]), height_m=np.array([10.0, 25.0]))
    job = RadioMapJob(t, GRID, "cost231wi", buildings=buildings, pattern=Pattern("omni"))
    maps = radio_maps(job)
    said = [sentence for sentence in maps.warnings if "In or at" in sentence]
    assert said == [
        "In or at a building higher than the antenna: 'c0'; each is treated as standing on the edge of that building's roof, which is no "
        "obstacle to it."
    ]
    east = losses_at(job, np.array([[150.0, 0.0]]))[0, 0]
    assert east == pytest.approx(42.6 + 26 * np.log10(0.15) + 20 * np.log10(t.freq_mhz[0]))  # in sight
    above = replace(job, transmitters=transmitters(1, xy_m=np.zeros((1, 2)), height_m=np.array([33.0])))
    assert not any("In or at" in sentence for sentence in radio_maps(above).warnings)
    assert losses_at(above, np.array([[0.0, 21.0]]))[0, 0] < 70  # its own roof hides nothing


@pytest.mark.parametrize("model", ["3gpp", "cost231wi", "dominantpath"])
@pytest.mark.parametrize("antenna", [(20.0, 0.0), (-20.0, 0.0), (0.0, 20.0), (20.0, 20.0), (20.05, 3.0)])
def test_an_antenna_at_a_wall_sees_its_street(model, antenna):
    house = np.array([[-20.0, -20], [20, -20], [20, 20], [-20, 20]])
    buildings = buildings_of_polygons([[house]], [30.0])
    t = transmitters(1, xy_m=np.array([antenna]), height_m=np.array([10.0]))
    outwards = np.array([antenna]) * 3.0
    walled, free = (
        losses_at(RadioMapJob(t, GRID, model, buildings=each, pattern=Pattern("omni")), outwards)[0, 0]
        for each in (buildings, buildings_of_polygons([[house + 500.0]], [30.0]))
    )
    assert walled == pytest.approx(free, abs=0.01)


def test_bearing_buildings_are_those_around_and_those_within_a_hand():
    square = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])
    two = buildings_of_polygons([[square], [square + np.array([10.15, 0.0])]], [10.0, 10.0])
    points = np.array(
        [[5.0, 5], [10.07, 5], [-0.05, 5], [-0.15, 5], [25, 5], [20.2, 10.05], [5, -0.09], [20.22, 10.08]]
    )
    expected = [[0], [0, 1], [0], [], [], [1], [0], []]
    point, building = two.bearing(points)
    assert [sorted(building[point == row].tolist()) for row in range(len(points))] == expected
    assert len(buildings_of_polygons([], []).bearing(points)[0]) == 0


def test_no_map_is_infinite_where_antenna_and_device_stand_as_low_as_the_ground():
    job = RadioMapJob(transmitters(height_m=np.ones(3)), GRID, "3gpp", ModelSettings(device_height_m=1.0))
    for scenario in ("UMa", "UMi", "RMa"):
        settings = ModelSettings(device_height_m=1.0, scenario=scenario)
        assert np.isfinite(radio_maps(replace(job, settings=settings)).loss_db).all()


def test_a_courtyard_without_a_path_has_no_value():
    ring = np.array([[-50.0, -50], [50, -50], [50, 50], [-50, 50]])
    buildings = buildings_of_polygons([[ring, 0.6 * ring]], [30.0])
    settings = ModelSettings(dominant_path=DominantPathSettings(over_roofs=False))
    t = transmitters(1, xy_m=np.array([[150.0, 0.0]]))
    job = RadioMapJob(t, GRID, "dominantpath", settings, buildings=buildings)
    inside, outside = losses_at(job, np.array([[0.0, 0.0], [-90.0, 0.0]]))[0]
    assert np.isnan(inside)
    assert np.isfinite(outside)
    assert np.isfinite(losses_at(replace(job, settings=ModelSettings()), np.zeros((1, 2)))).all()  # over the roof


@pytest.mark.parametrize(
    ("model", "change", "sentence"),
    [
        (
            "hata",
            {"freq_mhz": np.array([900.0, 2600, 3500])},
            "The frequency of 'c1' (2600 MHz) and 1 more is outside 150 to 2000 MHz",
        ),
        ("hata", {}, "% of the distances are outside 1000 to 20000 m (Okumura-Hata, Hata 1980"),
        (
            "cost231wi",
            {"height_m": np.array([3.0, 30, 30])},
            "The antenna height of 'c0' (3 m) is outside 4 to 50 m (COST231-Walfisch-I",
        ),
        (
            "3gpp",
            {"freq_mhz": np.full(3, 450.0)},
            "The frequency of 'c0' (450 MHz) and 2 more is outside 500 to 100000 MHz",
        ),
        (
            "dominantpath",
            {"freq_mhz": np.array([150.0, 900, 900])},
            "The frequency of 'c0' (150 MHz) is outside 300 to 100000 MHz (dominant path model",
        ),
        (
            "dominantpath",
            {"xy_m": np.array([[0.0, 0], [6000, 0], [0, 9]])},
            "% of the distances are outside 0 to 5000 m (dominant path model",
        ),
    ],
)
def test_what_lies_outside_a_models_range_is_said(model, change, sentence):
    maps = radio_maps(RadioMapJob(transmitters(**change), GRID, model, buildings=buildings_of_polygons([], [])))
    assert any(sentence in said for said in maps.warnings), maps.warnings
    assert np.isfinite(maps.loss_db).all()


def test_a_device_outside_the_range_is_said():
    settings = ModelSettings(device_height_m=4.0)
    maps = radio_maps(RadioMapJob(transmitters(), GRID, "cost231wi", settings))
    assert any("The device height of 4 m is outside 1 to 3 m" in said for said in maps.warnings)


def test_within_its_range_a_model_says_nothing():
    t = transmitters(height_m=np.full(3, 25.0))
    assert radio_maps(RadioMapJob(t, GRID, "3gpp")).warnings == ()
    assert radio_maps(RadioMapJob(t, GRID, "cost231wi")).warnings == ()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "hatta"}, "The model must be one of logdistance, hata, 3gpp, cost231wi, dominantpath, not 'hatta'."),
        ({"transmitters": transmitters(0)}, "There are no transmitters; give a layer with at least one cell."),
        (
            {"transmitters": transmitters(height_m=np.array([30.0, 0.0, 20.0]))},
            "The height of transmitter 'c1' is 0 m; give a positive number.",
        ),
        (
            {"transmitters": transmitters(freq_mhz=np.array([900.0, 900.0, np.nan]))},
            "The frequency of transmitter 'c2' is nan MHz; give a positive number.",
        ),
        (
            {"model": "dominantpath"},
            "The model dominantpath needs building footprints; give them, or choose another model.",
        ),
        (
            {"transmitters": transmitters(xy_m=np.array([[0.0, 0], [9, np.nan], [0, 9]]))},
            "The northing of transmitter 'c1' is nan m; give a finite number.",
        ),
        (
            {"transmitters": transmitters(beam_width_deg=np.array([65.0, 0, 65]))},
            "The beam width of transmitter 'c1' is 0 °; give a positive number.",
        ),
        (
            {"transmitters": transmitters(eirp_dbm=np.array([np.inf, 0, 65]))},
            "The EIRP of transmitter 'c0' is inf dBm; give a finite number.",
        ),
        ({"pattern": [Pattern()]}, "There are 1 patterns for 3 transmitters; give one, or one for each."),
    ],
)
def test_bad_jobs_have_a_sentence(change, sentence):
    with pytest.raises(InputError) as error:
        RadioMapJob(**{"transmitters": transmitters(), "grid": GRID, **change})
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hata_area": "forest"}, "hata_area must be one of urban, suburban, open, not 'forest'."),
        ({"exponent": 0.0}, "exponent must be a positive number, not 0.0."),
        ({"street_angle_deg": 95.0}, "street_angle_deg must be between 0 and 90°, not 95.0."),
    ],
)
def test_bad_settings_have_a_sentence(change, sentence):
    with pytest.raises(InputError) as error:
        ModelSettings(**change)
    assert str(error.value) == sentence


def test_cancelling_stops():
    def cancel(fraction):
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        radio_maps(RadioMapJob(transmitters(), GRID, "cost231wi", buildings=town()), cancel)


def test_points_must_be_finite():
    with pytest.raises(InputError, match=r"Point 1 is at \(nan, 5\); give finite coordinates"):
        losses_at(RadioMapJob(transmitters(), GRID), np.array([[0.0, 0], [np.nan, 5]]))


@pytest.mark.parametrize("model", ["cost231wi", "dominantpath"])
def test_a_cancelled_map_ends_in_the_midst_of_a_transmitter(model, monkeypatch):
    """The threads are told: of the steps that a transmitter takes, no more follow."""
    steps, asked = [], []

    def slow(*arguments):
        progress = arguments[-1]
        for step in range(200):
            progress(0.0)
            steps.append(step)
            time.sleep(0.05)

    def cancel(fraction):
        asked.append(fraction)
        if steps:
            raise Cancelled("stop")

    monkeypatch.setitem(engine._MODELS, model, replace(engine._MODELS[model], paths=slow))
    with pytest.raises(Cancelled):
        radio_maps(RadioMapJob(transmitters(), GRID, model, buildings=town()), cancel)
    assert len(steps) < 20
