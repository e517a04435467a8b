"""Tracking: what landmarks change, what is filled in, and that every instant has a position."""

import numpy as np
import pytest
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.grid import Grid
from telcoloc.models.landmarks.candidates import Candidates
from telcoloc.models.landmarks.free_cells import FreeSpace
from telcoloc.models.landmarks.landmark_set import Landmarks, Matches
from telcoloc.models.landmarks.map_distance import Straight
from telcoloc.models.landmarks.street_distance import StreetDistance
from telcoloc.models.landmarks.track import CANDIDATE, FILLED, LANDMARK, TrackSettings
from telcoloc.models.landmarks.tracking import crossings, track
from telcoloc.models.trajectory.streets import FORWARD, build_streets


def candidates_of(places, errors=None, time_s=None, trajectory=None, device=None):
    """Candidates from a list of lists of (x, y)."""
    n = len(places)
    count = [len(each) for each in places]
    xy = np.array([point for each in places for point in each], float).reshape(-1, 2)
    codes = np.zeros(n, np.int32) if trajectory is None else np.array(trajectory, np.int32)
    owner = np.zeros(n, np.int32) if device is None else np.array(device, np.int32)
    return Candidates(
        tuple("abc"[: owner.max(initial=0) + 1]),
        owner,
        tuple("tuv"[: codes.max(initial=0) + 1]),
        codes,
        np.arange(n, dtype=float) if time_s is None else np.array(time_s, float),
        np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        xy,
        np.ones(len(xy)) if errors is None else np.array(errors, float),
        np.arange(n),
    )


def matches_of(time_s, landmark, fiducial=None, device=None, devices=("a", "b", "c")):
    n = len(time_s)
    return Matches(
        devices,
        np.zeros(n, np.int32) if device is None else np.array(device, np.int32),
        np.array(time_s, float),
        np.array(landmark, np.int32),
        np.ones(n, bool) if fiducial is None else np.array(fiducial, bool),
        np.arange(n),
    )


#: Two streets 100 m apart; the device drove along y = 0, and standing still at y = 100 is shorter.
TWO_STREETS = [[(10.0 * t, 0.0), (55.0, 100.0)] for t in range(11)]
SHOP = Landmarks(("shop",), np.array([[50.0, 1.0]]), np.array([True]))
SETTINGS = {"top_speed_m_s": 10.0, "slack_m": 5.0, "most_forward": 5}


def test_a_landmark_in_the_graph_decides_for_the_whole_street_one_beside_it_only_for_its_instant():
    candidates, seen = candidates_of(TWO_STREETS), matches_of([5.2], [0])
    y = {}
    for mode in ("none", "nonhybrid", "hybrid"):
        found = track(candidates, SHOP, seen, Straight(), TrackSettings(mode=mode, **SETTINGS))
        y[mode] = found.xy_m[:, 1]
        assert found.part.tolist() == [0] * 11
        assert (found.landmark >= 0).tolist() == [mode != "none" and t == 5 for t in range(11)]
        assert found.kind[5] == (CANDIDATE if mode == "none" else LANDMARK)
        assert found.used_matches.tolist() == [True]
        np.testing.assert_array_equal(found.candidate >= 0, found.kind == CANDIDATE)
    assert y["none"].tolist() == [100.0] * 11
    assert y["nonhybrid"].tolist() == [100.0] * 5 + [1.0] + [100.0] * 5
    assert y["hybrid"].tolist() == [0.0] * 5 + [1.0] + [0.0] * 5


def test_a_path_that_would_miss_a_landmark_leaps_to_it():
    """The way to y = 100 is shorter, but nothing leads from there to the landmark; the street it lies in is 30 m off at one instant."""
    places = [[(10.0 * t, 0.0 if t != 4 else 30.0), (55.0, 100.0)] for t in range(11)]
    found = track(candidates_of(places), SHOP, matches_of([5.0], [0]), Straight(), TrackSettings(**SETTINGS))
    assert found.part.tolist() == [0] * 11
    assert found.kind[4] == FILLED
    assert found.xy_m[[3, 5]].tolist() == [[30.0, 0.0], [50.0, 1.0]]


def test_how_far_from_a_landmark_a_photo_was_taken_is_allowed_for():
    places = [[(10.0 * t, 40.0)] for t in range(11)]
    for range_m, filled in ((10.0, 8), (40.0, 0)):  # without it, only edges of 4 s reach so far
        settings = TrackSettings(landmark_range_m=range_m, **SETTINGS)
        found = track(candidates_of(places), SHOP, matches_of([5.0], [0]), Straight(), settings)
        assert (found.kind == FILLED).sum() == filled


def test_without_landmarks_all_modes_are_the_same():
    candidates = candidates_of(TWO_STREETS)
    paths = [
        track(candidates, None, None, Straight(), TrackSettings(mode=mode, **SETTINGS)).xy_m
        for mode in ("hybrid", "none")
    ]
    np.testing.assert_array_equal(*paths)


@pytest.mark.parametrize("kind", ["service landmark", "match that is not sure"])
def test_a_landmark_that_is_one_more_candidate_is_taken_where_it_shortens_the_way_only(kind):
    landmarks = Landmarks(
        ("shop", "bank"), np.array([[50.0, 1.0], [55.0, 100.0]]), np.array([kind != "service landmark"] * 2)
    )
    candidates = candidates_of([each[:1] for each in TWO_STREETS])
    found = track(candidates, landmarks, matches_of([5.0], [1], [False]), Straight(), TrackSettings(**SETTINGS))
    assert (found.landmark == -1).all()
    assert not found.edges.forwarding.any()
    shortcut = [[(10.0 * t, 20.0 if t == 5 else 0.0)] for t in range(11)]
    found = track(
        candidates_of(shortcut),
        landmarks,
        matches_of([5.0], [0], [False]),
        Straight(),
        TrackSettings(**{**SETTINGS, "slack_m": 20.0}),
    )
    assert np.flatnonzero(found.landmark == 0).tolist() == [5]


def test_a_match_belongs_to_the_nearest_instant_of_its_device_and_one_without_device_to_each():
    candidates = candidates_of(
        [[(0, 0)]] * 6, time_s=[0, 10, 20, 0.5, 10.5, 20.5], trajectory=[0, 0, 0, 1, 1, 1], device=[0, 0, 0, 1, 1, 1]
    )
    seen = matches_of([10.2, 10.2, 10.3, 40.0, 0.0, 20.4, 3.0], [0] * 7, device=[0, 1, -1, 0, 2, -1, 0])
    rows, instants = crossings(candidates, seen, 2.0)
    assert list(zip(rows.tolist(), instants.tolist())) == [(0, 1), (1, 4), (2, 1), (2, 4), (5, 2), (5, 5)]


def test_landmarks_off_the_map_are_not_used():
    space = FreeSpace(Grid(20, 40, -50.0, 50.0, 5.0), np.ones((20, 40), bool))
    landmarks = Landmarks(("far", "near"), np.array([[900.0, 900.0], [50.0, 1.0]]), np.array([True, True]))
    found = track(
        candidates_of([each[:1] for each in TWO_STREETS]),
        landmarks,
        matches_of([5.0, 7.0], [0, 1]),
        space,
        TrackSettings(**SETTINGS),
    )
    assert found.used_matches.tolist() == [False, True]
    with pytest.raises(InputError, match="no landmarks"):
        track(candidates_of([[(0, 0)]]), None, matches_of([0.0], [0]), space)


def test_instants_led_over_are_filled_in_along_the_way_around_the_house():
    free = np.ones((21, 21), bool)
    free[6:15, 10] = False  # a wall from y = 30 to y = 75
    space = FreeSpace(Grid(21, 21, 0.0, 105.0, 5.0), free)
    places = [
        [(37.5, 52.5)],
        [],
        [(500.0, 500.0)],
        [(52.0, 50.0)],
        [],
        [(67.5, 52.5)],
    ]  # nothing, off the map, in the wall, nothing
    settings = TrackSettings(top_speed_m_s=20.0, slack_m=0.0, most_forward=6)
    found = track(candidates_of([places[0], [], places[2], [], [], places[5]]), None, None, space, settings)
    assert found.kind.tolist() == [CANDIDATE, FILLED, FILLED, FILLED, FILLED, CANDIDATE]
    assert found.part.tolist() == [0] * 6
    assert found.edges.forwarding.tolist() == found.edges.chosen.tolist() == [True]
    cells = space.grid.cells_of(found.xy_m)
    assert free.ravel()[cells].all()
    steps = np.hypot(*np.diff(found.xy_m, axis=0).T)
    length = found.edges.weight_m[0]
    corner = 2 * np.hypot(15.0, 22.5)
    assert corner < length < 1.1 * corner  # over one end of the wall
    assert steps.max() <= length / 5 + 1e-9


def test_what_cannot_be_reached_begins_a_new_part_and_what_lies_between_is_interpolated():
    places = [[(0, 0)], [(2, 0)], [], [], [(900, 0)], [(902, 0)], [(904, 0)]]
    found = track(candidates_of(places), None, None, Straight(), TrackSettings(top_speed_m_s=5.0, slack_m=1.0))
    assert found.part.tolist() == [0, 0, -1, -1, 1, 1, 1]
    np.testing.assert_allclose(found.xy_m[2:4, 0], [2 + 898 / 3, 2 + 2 * 898 / 3])
    assert found.kind[2:4].tolist() == [FILLED, FILLED]
    sentence = (
        "Trajectory 't' is in 2 parts: the candidates of 1970-01-01 00:00:04 (UTC) cannot be reached from those before."
    )
    assert found.messages == (sentence,)


def test_only_the_first_times_of_many_are_named():
    places = [[(1000.0 * (t // 2), 0)] for t in range(16)]
    found = track(candidates_of(places), None, None, Straight(), TrackSettings(top_speed_m_s=5.0))
    assert found.part.max() == 7
    assert "is in 8 parts: the candidates of 1970-01-01 00:00:02, 1970-01-01 00:00:04, " in found.messages[0]
    assert "1970-01-01 00:00:10 and 2 further times (UTC) cannot" in found.messages[0]


def test_candidates_that_are_nowhere_reachable_are_said_and_every_instant_keeps_its_best():
    places = [[(1000.0 * t, 0), (1000.0 * t, 500)] for t in range(4)]
    found = track(candidates_of(places), None, None, Straight(), TrackSettings(top_speed_m_s=5.0))
    assert found.part.tolist() == [0, 1, 2, 3]
    assert found.xy_m[:, 1].tolist() == [0.0] * 4
    assert len(found.edges) == 0
    assert "each of its 4 instants is a part of its own" in found.messages[0]
    free = np.zeros((10, 10), bool)
    free[0, 0] = True
    inside = track(
        candidates_of([[(25, 25)]] * 3), None, None, FreeSpace(Grid(10, 10, 0, 50, 5.0), free), TrackSettings()
    )
    assert np.isnan(inside.xy_m).all()
    assert inside.part.tolist() == [-1] * 3
    assert inside.messages == (
        "Trajectory 't': none of its 3 instants has a candidate that can be reached on the map.",
    )


def test_trajectories_do_not_touch_each_other():
    rng = np.random.default_rng(3)
    places = [rng.uniform(0, 40, (4, 2)).tolist() for _ in range(30)]
    trajectory = [0] * 12 + [1] * 5 + [2] * 13
    settings = TrackSettings(top_speed_m_s=6.0, slack_m=2.0, kalman=True, predict_s=3.0)
    together = track(candidates_of(places, trajectory=trajectory), None, None, Straight(), settings)
    assert together.predicted_trajectory.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    for code, rows in ((0, slice(0, 12)), (1, slice(12, 17)), (2, slice(17, 30))):
        alone = track(candidates_of(places[rows], time_s=np.arange(30.0)[rows]), None, None, Straight(), settings)
        np.testing.assert_allclose(alone.xy_m, together.xy_m[rows])
        np.testing.assert_array_equal(alone.part, together.part[rows])
        mine = together.predicted_trajectory == code
        np.testing.assert_allclose(alone.predicted_xy_m, together.predicted_xy_m[mine])


def test_errors_count_only_when_asked_for():
    places = [[(0.0, 0.0), (4.0 * (t % 2), 3.0)] for t in range(8)]
    errors = [9.0, 1.0] * 8
    for weight, y in ((0.0, 0.0), (1.0, 3.0)):
        found = track(candidates_of(places, errors), None, None, Straight(), TrackSettings(error_weight_m=weight))
        assert found.xy_m[:, 1].tolist() == [y] * 8
    unknown = track(candidates_of(places, [np.nan] * 16), None, None, Straight(), TrackSettings(error_weight_m=1.0))
    assert unknown.xy_m[:, 1].tolist() == [0.0] * 8


def test_edges_are_told_with_both_ends():
    found = track(candidates_of(TWO_STREETS), SHOP, matches_of([5.0], [0]), Straight(), TrackSettings(**SETTINGS))
    edges = found.edges
    np.testing.assert_allclose(np.hypot(*(edges.xy_to_m - edges.xy_m).T), edges.weight_m)
    at_shop = edges.instant_to == 5
    assert (edges.candidate_to[at_shop] == -1).all()
    np.testing.assert_allclose(edges.xy_to_m[at_shop], SHOP.xy_m.repeat(at_shop.sum(), axis=0))
    assert edges.chosen.sum() == 10
    assert (edges.instant_to - edges.instant)[~edges.forwarding].tolist() == [1] * (~edges.forwarding).sum()


def test_a_landmark_on_a_street_is_not_put_on_the_next_one():
    """The device is on y = 45, which the landmark on y = 0 is near enough to, too; staying there would be the shorter way."""
    lines = [[[-50.0, y], [150.0, y]] for y in (0.0, 45.0)] + [[[x, 0.0], [x, 45.0]] for x in (-50.0, 150.0)]
    streets = build_streets(np.concatenate(lines), np.arange(5) * 2, np.zeros(4, int))
    candidates = candidates_of([[(10.0 * t, 60.0)] for t in range(11)])
    settings = TrackSettings(slack_m=400.0, top_speed_m_s=10.0)
    found = track(candidates, SHOP, matches_of([5.0], [0]), StreetDistance(streets, snap_m=50.0), settings)
    assert found.xy_m[5].tolist() == [50.0, 0.0]
    assert found.xy_m[[4, 6]].tolist() == [[40.0, 45.0], [60.0, 45.0]]


def test_one_ways_are_kept():
    streets = build_streets(
        np.array([[0.0, 0.0], [200.0, 0.0], [200.0, 8.0], [0.0, 8.0]]),
        np.array([0, 2, 4]),
        np.array([FORWARD, FORWARD]),
    )
    places = [[(20.0 + 10 * t, 5.0)] for t in range(10)]  # nearer to the street that runs west
    found = track(
        candidates_of(places), None, None, StreetDistance(streets), TrackSettings(top_speed_m_s=12.0, slack_m=0.0)
    )
    assert found.part.tolist() == [0] * 10
    np.testing.assert_allclose(found.xy_m, [(20.0 + 10 * t, 0.0) for t in range(10)])


def test_the_filter_smooths_and_keeps_to_landmarks():
    rng = np.random.default_rng(5)
    true = np.column_stack([8.0 * np.arange(60), np.zeros(60)])
    candidates = candidates_of([[tuple(point)] for point in true + rng.normal(0, 15, true.shape)])
    landmarks = Landmarks(("x", "y"), true[[20, 40]], np.array([True, True]))
    seen = matches_of([20.0, 40.0], [0, 1])
    error = {}
    for kalman in (False, True):
        settings = TrackSettings(slack_m=60.0, kalman=kalman, sigma_m=15.0, acceleration_m_s2=0.5, predict_s=5.0)
        found = track(candidates, landmarks, seen, Straight(), settings)
        error[kalman] = np.hypot(*(found.xy_m - true).T)
        assert (
            np.hypot(*(found.predicted_xy_m - np.column_stack([8.0 * found.predicted_time_s, np.zeros(5)])).T).max()
            < 20
        )
    assert error[True].mean() < 0.5 * error[False].mean()
    assert error[True][[20, 40]].max() < 1.0


def test_live_windows_give_a_path_too():
    rng = np.random.default_rng(6)
    true = np.column_stack([8.0 * np.arange(80), np.zeros(80)])
    places = [[*(true[t] + rng.normal(0, 10, (3, 2))), *rng.uniform(0, 600, (3, 2))] for t in range(80)]
    settings = {"top_speed_m_s": 12.0, "slack_m": 40.0}
    for window in (None, 15):
        found = track(candidates_of(places), None, None, Straight(), TrackSettings(window=window, **settings))
        assert np.median(np.hypot(*(found.xy_m - true).T)) < 20


def test_no_candidates_no_track():
    found = track(candidates_of([]), None, None, Straight(), TrackSettings(kalman=True, predict_s=2.0))
    assert len(found.xy_m) == len(found.edges) == len(found.predicted_xy_m) == 0


def test_cancelling_ends_it_at_once():
    def stop(fraction):
        raise Cancelled

    with pytest.raises(Cancelled):
        track(candidates_of(TWO_STREETS), None, None, Straight(), TrackSettings(), stop)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"mode": "hybird"}, "modes hybrid, nonhybrid, none, not 'hybird'"),
        ({"top_speed_m_s": 0.0}, "top speed must be above 0 m/s"),
        ({"window": 1}, "at least 2 instants"),
        ({"slack_m": -1.0}, "slack must be 0 or more, not -1 m"),
        ({"error_weight_m": np.nan}, "weight of errors must be 0 or more, not nan"),
        ({"sigma_m": 0.0}, "spread of candidates must be above 0, not 0 m"),
        ({"most_forward": 0}, "at least 1 instant, not 0"),
    ],
)
def test_settings_that_make_no_sense_get_a_sentence(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        TrackSettings(**wrong)
