"""Which landmark a photo shows: against brute force, closed cases of the filter, and façades drawn from seeds."""

import numpy as np
import pytest
from telcoloc.models.errors import InputError
from telcoloc.models.landmarks import facade_photos, facades, recognition
from telcoloc.models.landmarks.candidates import Candidates
from telcoloc.models.landmarks.descriptors import BY_NAME, DESCRIPTORS, describe
from telcoloc.models.landmarks.monuments import MONUMENTS, make_monument
from telcoloc.models.landmarks.recognition import LIMIT, Album, recognise

RNG = np.random.default_rng(8)


def some_candidates(instants, time_s=None, trajectories=("a",), trajectory=None, device=None):
    """Candidates from a list of lists of (x, y)."""
    n = len(instants)
    first = np.concatenate([[0], np.cumsum([len(each) for each in instants])])
    xy = np.array([place for each in instants for place in each], dtype=float).reshape(-1, 2)
    trajectory = np.zeros(n, np.int32) if trajectory is None else np.array(trajectory, np.int32)
    device = trajectory if device is None else np.array(device, np.int32)
    time_s = np.arange(n, dtype=float) if time_s is None else np.array(time_s, float)
    return Candidates(
        trajectories, device, trajectories, trajectory, time_s, first, xy, np.full(len(xy), np.nan), np.arange(n)
    )


def random_album(n_photos=40, n_landmarks=12):
    landmark = np.concatenate([np.arange(n_landmarks), RNG.integers(0, n_landmarks, n_photos - n_landmarks)])
    vectors = {d.name: RNG.integers(0, 8, (n_photos, d.size)).astype(np.float32) for d in DESCRIPTORS}
    return Album(landmark.astype(np.int32), vectors)


def photo_like(album, row, noise=1.0):
    return {
        name: np.clip(np.round(vectors[row] + RNG.normal(0, noise, vectors.shape[1])), 0, 7).astype(np.float32)
        for name, vectors in album.vectors.items()
    }


def test_distances_by_loops():
    album = random_album()
    photo = photo_like(album, 20)
    wanted = RNG.random(12) < 0.6
    found = recognition.landmark_distances(photo, album, wanted)
    for index, descriptor in enumerate(DESCRIPTORS):
        for landmark in range(12):
            photos = np.flatnonzero(album.landmark == landmark)
            each = [descriptor.distance(photo[descriptor.name], album.vectors[descriptor.name][[p]])[0] for p in photos]
            expected = min(each) / descriptor.typical if wanted[landmark] else np.inf
            assert found[index, landmark] == pytest.approx(expected)


def test_merging_by_loops():
    for _ in range(50):
        distances = RNG.random((5, 9))
        distances[:, RNG.random(9) < 0.2] = np.inf
        weights, k = RNG.random(5), int(RNG.integers(1, 5))
        order, votes, combined = recognition.merged(distances, weights, k)
        there = [j for j in range(9) if np.isfinite(distances[0, j])]
        for j in range(9):
            lists = [sorted(there, key=lambda i: row[i])[:k] for row in distances]
            assert votes[j] == sum(j in each for each in lists)
        mean = {j: sum(weights * distances[:, j]) / sum(weights) for j in there}
        assert order.tolist() == sorted(there, key=lambda j: (-votes[j], mean[j]))
        assert [combined[j] for j in there] == pytest.approx([mean[j] for j in there])


def test_what_most_lists_hold_comes_first():
    distances = np.array([[0.1, 0.5, 0.9], [0.9, 0.5, 0.6], [0.9, 0.5, 0.6]])  # 0 is nearest once, 1 twice
    order, votes, _ = recognition.merged(distances, np.ones(3), 1)
    assert votes.tolist() == [1, 2, 0]
    assert order.tolist() == [1, 0, 2]


def test_a_photo_of_the_album_is_found_among_all():
    album = random_album()
    photos = [photo_like(album, row, 0.3) for row in (3, 17, 39)]
    found = recognise(photos, album, np.ones((3, 12), dtype=bool))
    assert found.landmark.tolist() == album.landmark[[3, 17, 39]].tolist()
    assert found.searched.tolist() == [12] * 3
    assert (found.votes >= 3).all()


def one_number_album(distances):
    """Landmarks whose colour layout is this far from a photo of zeros, in typical distances."""
    size, typical = BY_NAME["color_layout"].size, BY_NAME["color_layout"].typical
    vectors = np.zeros((len(distances), size), np.float32)
    vectors[:, 3] = np.array(distances) * typical  # its weight is 1
    return Album(np.arange(len(distances), dtype=np.int32), {"color_layout": vectors}), {"color_layout": vectors[0] * 0}


@pytest.mark.parametrize(
    ("distances", "margin", "sure"),
    [
        ((0.4, 0.5), 0.2, True),  # exactly by the margin
        ((0.41, 0.5), 0.18, False),
        ((0.4,), 1 - 0.4 / LIMIT, True),  # alone: against what strangers reach
        ((0.8, 3.0), 1 - 0.8 / LIMIT, False),
    ],
)
def test_the_margin_in_closed_form(distances, margin, sure):
    album, photo = one_number_album(distances)
    found = recognise([photo], album, np.ones((1, len(distances)), dtype=bool), margin=0.2 - 1e-6)
    assert found.landmark.tolist() == [0]
    assert found.distance[0] == pytest.approx(distances[0], rel=1e-5)
    assert found.margin[0] == pytest.approx(margin, abs=1e-5)
    assert found.sure.tolist() == [sure]


def test_too_far_is_no_match_at_all():
    album, photo = one_number_album((LIMIT + 0.01, 2.0))
    found = recognise([photo], album, np.ones((1, 2), dtype=bool))
    assert found.landmark.tolist() == [-1]
    assert found.sure.tolist() == [False]
    assert found.margin[0] < 0


def test_nothing_near_is_no_match():
    album, photo = one_number_album((0.1, 0.2))
    found = recognise([photo, photo], album, np.array([[False, False], [False, True]]))
    assert found.landmark.tolist() == [-1, 1]
    assert found.searched.tolist() == [0, 1]
    assert np.isnan(found.distance[0])


def test_the_better_of_two_photos_of_a_landmark_counts():
    album, photo = one_number_album((0.9, 0.5, 0.1))
    album = Album(np.array([0, 1, 0], np.int32), album.vectors)
    found = recognise([photo], album, np.ones((1, 2), dtype=bool))
    assert found.landmark.tolist() == [0]
    assert found.margin[0] == pytest.approx(1 - 0.1 / 0.5, abs=1e-5)


@pytest.mark.parametrize(("k", "margin"), [(0, 0.1), (1, 1.0), (1, -0.1)])
def test_settings_out_of_range(k, margin):
    album, photo = one_number_album((0.1,))
    with pytest.raises(InputError, match="K must be 1 or more, and MARGIN from 0 to less than 1"):
        recognise([photo], album, np.ones((1, 1), dtype=bool), k, margin)


def test_an_album_without_descriptions():
    with pytest.raises(InputError, match="no description in common"):
        recognise([], Album(np.zeros(0, np.int32), {}), np.ones((0, 0), dtype=bool))


# The filter


def test_the_filter_in_a_closed_case():
    grid = np.stack(np.meshgrid(np.arange(10), np.arange(10)), axis=-1).reshape(-1, 2) * 100.0
    candidates = some_candidates([[(450, 450)], [(0, 0), (900, 900)], []])
    wanted, timed = recognition.filtered(grid, candidates, np.array([-1, 0, 0, 0]), np.array([0, 1, 2.2, 60]), 100, 10)
    assert timed.tolist() == [True, True, True, False]
    assert wanted.sum(axis=1).tolist() == [4, 6, 0, 0]  # 4 corners; 2 corners of the grid with 2 neighbours each
    assert 1 - wanted[:2].mean() == 0.95


def test_the_filter_by_loops():
    landmarks = RNG.uniform(0, 1000, (50, 2))
    places = [RNG.uniform(0, 1000, (RNG.integers(0, 6), 2)).tolist() for _ in range(20)]
    candidates = some_candidates(places)
    wanted, _ = recognition.filtered(landmarks, candidates, np.zeros(20, int), np.arange(20.0), 120, 1)
    for instant, each in enumerate(places):
        for row, mark in enumerate(landmarks):
            assert wanted[instant, row] == any(np.hypot(*(mark - place)) <= 120 for place in each)


def test_photos_belong_to_their_devices_nearest_instants():
    candidates = some_candidates(
        [[(0, 0)]] * 6, [0, 10, 20, 2, 11, 30], ("a", "b"), [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]
    )
    photo, instant = recognition.instants_at(candidates, np.array([0, 1, -1, 1]), np.array([9.0, 9, 9, 50]), 5)
    assert photo.tolist() == [0, 1, 2, 2]
    assert instant.tolist() == [1, 4, 1, 4]


def test_a_single_instant_and_none():
    photo, instant = recognition.instants_at(some_candidates([[(0, 0)]]), np.array([-1, -1]), np.array([3.0, 30]), 5)
    assert (photo.tolist(), instant.tolist()) == ([0], [0])
    assert len(recognition.instants_at(some_candidates([]), np.array([0]), np.array([0.0]), 5)[0]) == 0


def test_what_no_path_can_reach_is_thinned_out():
    # at instant 1 a candidate lies 500 m off; nobody gets there from (0, 0) and back within a second at 10 m/s
    candidates = some_candidates([[(0, 0)], [(10, 0), (500, 0)], [(20, 0)]])
    landmarks = np.array([(10.0, 0), (500, 0)])
    near = recognition.near_candidates(landmarks, candidates, 1, 30)
    assert near.tolist() == [True, True]
    assert recognition.on_the_way(landmarks, candidates, 1, 30, 10.0).tolist() == [True, False]
    assert recognition.on_the_way(landmarks, candidates, 1, 30, 500.0).tolist() == [True, True]
    wanted, _ = recognition.filtered(landmarks, candidates, np.zeros(1, int), np.ones(1), 30, 1, 10.0)
    assert wanted.tolist() == [[True, False]]


def test_unknown_instants_forbid_nothing():
    candidates = some_candidates([[], [(500, 0)], []])
    assert recognition.on_the_way(np.array([(500.0, 0)]), candidates, 1, 30, 1.0).tolist() == [True]


# Façades


@pytest.fixture(scope="module")
def street():
    """Six façades: their album, and photos by passers-by."""
    houses = [facades.make_facade([21, seed]) for seed in range(6)]
    rng = np.random.default_rng(22)
    album = [describe(facade_photos.photograph(h, facade_photos.reference_view(h, rng), rng)) for h in houses]
    queries = [
        describe(facade_photos.photograph(h, facade_photos.query_view(h, rng), rng)) for h in houses for _ in range(2)
    ]
    vectors = {d.name: np.stack([each[d.name] for each in album]) for d in DESCRIPTORS}
    return Album(np.arange(6, dtype=np.int32), vectors), queries


def test_facades_are_told_apart(street):
    album, queries = street
    found = recognise(queries, album, np.ones((12, 6), dtype=bool))
    right = found.landmark == np.repeat(np.arange(6), 2)
    assert right.sum() >= 11
    assert right[found.sure].all()
    assert found.sure.sum() >= 6


def test_strangers_are_not_fiducial(street):
    album, _ = street
    strangers = [describe(facade_photos.unknown_photo(np.random.default_rng([23, seed]))) for seed in range(6)]
    assert not recognise(strangers, album, np.ones((6, 6), dtype=bool)).sure.any()


@pytest.mark.parametrize("kind", MONUMENTS)
def test_monuments_stand_out_and_are_told_from_houses(kind, street):
    monument = make_monument(kind, 3)
    rng = np.random.default_rng(4)
    own, seen = (
        describe(facade_photos.photograph(monument, view, rng))
        for view in (facade_photos.reference_view(monument, rng), facade_photos.query_view(monument, rng, 0.5))
    )
    album = Album(
        np.arange(7, dtype=np.int32), {k: np.concatenate([v, own[k][None]]) for k, v in street[0].vectors.items()}
    )
    assert recognise([seen], album, np.ones((1, 7), dtype=bool)).landmark.tolist() == [6]


def test_equal_seeds_give_equal_photos():
    first, again, other = (facades.make_facade(seed) for seed in (4, 4, 5))
    assert (first.plane == again.plane).all()
    assert not (first.plane == other.plane).all()
    photos = [facade_photos.photograph(first, facade_photos.View(), np.random.default_rng(1)) for _ in range(2)]
    assert (photos[0] == photos[1]).all()
    assert photos[0].shape == (240, 320, 3)
    assert photos[0].dtype == np.uint8


def test_a_photo_is_a_pinhole_picture_of_the_plane():
    facade = facades.make_facade(1)
    facade.plane[:] = 0
    marks = np.array([(-4.0, 2.0), (5.0, 9.0), (0.0, 12.0)])
    for x, y in marks:
        row, column = int((facades.ABOVE_M - y) * facades.SCALE), int((x + facades.WIDTH_M / 2) * facades.SCALE)
        facade.plane[row - 2 : row + 2, column - 2 : column + 2] = 255
    view = facade_photos.View(aside_m=6.0, distance_m=22.0, blur_px=0, noise=0, quality=100)
    photo = facade_photos.photograph(facade, view, np.random.default_rng(0))[..., 1].astype(float)
    # the camera looks at the middle of the façade
    eye = np.array([6.0, facade_photos.EYE_M, -22.0])
    ahead = np.array([0, 0.42 * facade.height_m, 0]) - eye
    ahead /= np.linalg.norm(ahead)
    right = np.cross([0, 1, 0], ahead)
    right /= np.linalg.norm(right)
    up = np.cross(ahead, right)
    focal = 160 / np.tan(np.radians(facade_photos.ANGLE_DEG / 2))
    for x, y in marks:
        ray = np.array([x, y, 0]) - eye
        column, row = 160 + focal * (ray @ right) / (ray @ ahead), 120 - focal * (ray @ up) / (ray @ ahead)
        part = photo[int(row) - 5 : int(row) + 6, int(column) - 5 : int(column) + 6]
        rows, columns = np.indices(part.shape)
        centre = (rows * part).sum() / part.sum(), (columns * part).sum() / part.sum()
        assert int(row) - 5 + centre[0] + 0.5 == pytest.approx(row, abs=0.6)
        assert int(column) - 5 + centre[1] + 0.5 == pytest.approx(column, abs=0.6)


def test_landmarks_with_the_very_same_photo_are_not_told_apart():
    album, photo = one_number_album((0.0, 0.0))
    found = recognise([photo], album, np.ones((1, 2), dtype=bool))
    assert found.margin.tolist() == [0.0]
    assert found.landmark.tolist() == [-1]
    assert found.sure.tolist() == [False]
