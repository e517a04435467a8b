"""Statements about training the student: it learns, the same each time, and from the cells that count only. Oracle: sPDI."""

import hashlib
import math
import time

import numpy as np
import pytest
from scipy import sparse
from telcoloc.models.errors import Cancelled, DeviceError, InputError, MemoryBudgetError
from telcoloc.models.geolocation.ks2 import compare_maps
from telcoloc.models.geolocation.spdi import association_probabilities
from telcoloc.models.geolocation.student import student_maps, student_of
from telcoloc.models.geolocation.student_windows import StudentWindow, to_target
from telcoloc.models.grid import Grid
from telcoloc.models.training.student import StudentSettings, fit_student
from telcoloc.models.training.student_data import student_data
from telcoloc.models.training.truth import TruthNetwork
from telcoloc.models.weights_file import Weights


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed; the student cannot be trained")


def network(seed=0, n_targets=10, beta=2.5, mask=None):
    """BSs on a jittered 6 × 6 lattice of 1 km, whose truth is sPDI."""
    rng = np.random.default_rng(seed)
    xy_m = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), -1).reshape(-1, 2) * 1000 + rng.uniform(
        -350, 350, (36, 2)
    )
    grid = Grid(130, 130, -4_000.0, 9_000.0, 100.0)
    x_m, y_m = grid.centres(np.arange(grid.size)).T
    squared = (xy_m[:, :1] - x_m) ** 2 + (xy_m[:, 1:] - y_m) ** 2
    maps = association_probabilities(squared.astype(np.float32), beta) * (1 if mask is None else mask.ravel())
    maps = sparse.csr_matrix((maps / maps.sum(axis=1, keepdims=True)).astype(np.float32))
    middle = np.argsort(np.linalg.norm(xy_m - 2_500, axis=1))[:n_targets]
    return TruthNetwork(f"lattice {seed}", xy_m, grid, maps, np.sort(middle), mask)


@pytest.fixture(scope="module")
def ten():
    return network()


@pytest.fixture(scope="module")
def settings():
    return StudentSettings(epochs=2, learning_rate=1e-3, batch=4)


def digest(weights):
    return hashlib.sha256(b"".join(weights.tensors[name].tobytes() for name in sorted(weights.tensors))).hexdigest()


# It learns


@pytest.fixture(scope="module")
def overfitted(torch, ten):
    settings = StudentSettings(epochs=60, learning_rate=2e-3, one_cycle=True, batch=1, jitter=0.0)
    return fit_student([ten], [ten.maps], [], settings)


def test_ten_base_stations_can_be_learned_by_heart(ten, overfitted):
    weights, history = overfitted
    assert history[-1]["train_loss"] < 0.15 * history[0]["train_loss"]
    maps, _ = student_maps(student_of(weights, "these"), ten.sites_m, ten.grid, targets=ten.targets)
    distance, _ = compare_maps(ten.maps[ten.targets], maps[ten.targets], ten.grid)
    assert distance.max() < 0.1


def test_it_learns_from_turned_and_mirrored_examples_that_direction_does_not_matter(ten, overfitted):
    weights, _ = overfitted
    middle = np.array([2_500.0, 2_500.0])
    for turn in ([[0.0, -1.0], [1.0, 0.0]], [[-1.0, 0.0], [0.0, 1.0]]):
        turned = (ten.sites_m - middle) @ np.transpose(turn) + middle
        maps = [
            student_maps(student_of(weights, "these"), sites_m, ten.grid, targets=ten.targets)[0][ten.targets]
            for sites_m in (ten.sites_m, turned)
        ]
        image = maps[0].toarray().reshape(-1, *ten.grid.shape)
        image = np.rot90(image, 1, (1, 2)) if turn[0][0] == 0 else image[..., ::-1]
        distance, _ = compare_maps(sparse.csr_matrix(image.reshape(len(image), -1)), maps[1], ten.grid)
        assert distance.max() < 0.1


def test_the_bottleneck_is_alive_after_some_training(torch, ten):
    from telcoloc.models.geolocation.unet import StudentUNet

    weights, _ = fit_student(
        [ten], [ten.maps], [], StudentSettings(epochs=10, learning_rate=1e-3, one_cycle=True, batch=2)
    )
    net = StudentUNet.of(weights.tensors, "cpu")
    data = student_data([ten], [ten.maps], StudentWindow(), np.random.default_rng(0))
    values = torch.from_numpy(data.channels.astype(np.float32))
    with torch.no_grad():
        for layer in net.encoder:
            values = torch.nn.functional.max_pool2d(torch.relu(layer(values)), 2)
    assert (values > 0).any()


# The same each time


def test_the_same_seed_makes_the_same_weights_whatever_the_threads(torch, ten, settings):
    def hashed(**change):
        return digest(fit_student([ten], [ten.maps], [], StudentSettings(**{**vars(settings), **change}))[0])

    first = hashed()
    assert hashed() == first
    assert hashed(threads=1) == first
    assert hashed(seed=1) != first


def test_torchs_own_random_numbers_and_threads_are_left_alone(torch, ten, settings):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    fit_student([ten], [ten.maps], [], settings)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


# What it keeps and says


def test_the_best_validation_weights_are_kept_and_the_card_tells_all(torch, ten, settings):
    other = network(1)
    weights, history = fit_student([ten], [ten.maps], [other], StudentSettings(**{**vars(settings), "epochs": 4}))
    assert weights.kind == "deepmend"
    assert len(history) == 4
    best = min(row["validation_ks2"] for row in history)
    assert weights.card["validation_ks2"] == best
    assert weights.card["networks"] == ["lattice 0"]
    assert weights.card["settings"]["learning_rate"] == 1e-3
    # Going on from them at almost no learning rate shows that they are those of the best epoch.
    tiny = StudentSettings(**{**vars(settings), "epochs": 1, "learning_rate": 1e-9})
    _, again = fit_student([ten], [ten.maps], [other], tiny, start=weights)
    assert again[0]["validation_ks2"] == pytest.approx(best, abs=1e-3)


def test_validation_ks2_is_that_of_the_maps(torch, ten):
    settings = StudentSettings(epochs=1, learning_rate=1e-3, jitter=0.0)
    weights, history = fit_student([ten], [ten.maps], [ten], settings)
    maps, _ = student_maps(student_of(weights, "these"), ten.sites_m, ten.grid, targets=ten.targets)
    distance, _ = compare_maps(ten.maps[ten.targets], maps[ten.targets], ten.grid)
    assert history[0]["validation_ks2"] == pytest.approx(distance.mean(), abs=0.03)


def test_fine_tuning_goes_on_from_where_it_starts(torch, ten, overfitted):
    settings = StudentSettings(epochs=1, learning_rate=1e-5, jitter=0.0)
    _, history = fit_student([ten], [ten.maps], [], settings, start=overfitted[0])
    assert history[0]["train_loss"] < 2 * overfitted[1][-1]["train_loss"]
    wide = StudentSettings(epochs=1, window=StudentWindow(cells_per_spacing=3.0))
    with pytest.raises(InputError, match="another window"):
        fit_student([ten], [ten.maps], [], wide, start=overfitted[0])


def test_the_fixed_window_is_trained_on_crops_on_a_cpu(torch, ten):
    settings = StudentSettings(method="direct", window=StudentWindow.paper(), epochs=1, learning_rate=1e-3)
    weights, history = fit_student([ten], [ten.maps], [ten], settings)
    assert weights.kind == "direct_fixed"
    assert settings.crop_cells == 128
    assert math.isfinite(history[0]["validation_ks2"])
    assert student_of(weights, "these").window == StudentWindow.paper()


# The windows


def test_windows_hold_block_sums_around_the_base_station(ten):
    data = student_data([ten], [ten.maps], StudentWindow(), np.random.default_rng(0))
    assert data.channels.shape == (10, 3, 64, 64)
    np.testing.assert_allclose(data.probability.sum((1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(data.target, to_target(data.probability), rtol=2e-3)
    for index, bs in enumerate(ten.targets):
        stride = round(ten.spacing_m[bs] / 5 / 100)
        column = (ten.sites_m[bs, 0] - ten.grid.x_min) / 100
        row = (ten.grid.y_max - ten.sites_m[bs, 1]) / 100
        first_row, first_column = round(row - 32 * stride), round(column - 32 * stride)
        image = np.zeros((130 + 400, 130 + 400))
        image[200:330, 200:330] = ten.maps[bs].toarray().reshape(ten.grid.shape)
        part = image[200 + first_row :, 200 + first_column :][: 64 * stride, : 64 * stride]
        sums = part.reshape(64, stride, 64, stride).sum((1, 3))
        np.testing.assert_allclose(data.probability[index], sums / sums.sum(), atol=1e-6)
        inside = np.zeros((530, 530), bool)
        inside[200:330, 200:330] = True
        part = inside[200 + first_row :, 200 + first_column :][: 64 * stride, : 64 * stride]
        np.testing.assert_array_equal(data.valid[index], part.reshape(64, stride, 64, stride).any((1, 3)))


def test_masked_cells_do_not_count(torch, settings):
    """Whatever the label says there, the weights come out the same."""
    mask = np.ones((130, 130), bool)
    mask[:, :60] = False
    masked = network(mask=mask)
    data = student_data([masked], [masked.maps], StudentWindow(), np.random.default_rng(0))
    assert not data.valid.all()
    assert (data.probability[~data.valid] == 0).all()
    label = masked.maps.toarray().reshape(-1, 130, 130)
    label[:, 5, 5] = 0.3
    wrong = sparse.csr_matrix(label.reshape(len(label), -1))
    one, two = (digest(fit_student([masked], [maps], [], settings)[0]) for maps in (masked.maps, wrong))
    assert one == two


def test_jitter_changes_the_zoom_and_crops_the_place(ten):
    rng = np.random.default_rng(0)
    many = student_data([ten], [ten.maps], StudentWindow(), rng, jitter=0.4, windows_per_bs=4)
    assert len(many) == 40
    assert len({float(one.max()) for one in many.probability[:4]}) > 1
    crops = student_data([ten], [ten.maps], StudentWindow.paper(), rng, crop=128)
    assert crops.target.shape == (10, 128, 128)
    peaks = np.array([np.unravel_index(one.argmax(), one.shape) for one in crops.probability])
    assert (abs(peaks - 64) <= 40).all()
    assert np.ptp(peaks, axis=0).min() > 10
    shares = crops.probability.sum((1, 2))
    assert ((shares > 0.5) & (shares < 1)).all()


# What it refuses


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "spdi"}, "Unknown method 'spdi' to train a student for"),
        ({"epochs": 0}, "EPOCHS is 0"),
        ({"learning_rate": 0.0}, "The learning rate is 0"),
    ],
)
def test_settings_without_sense_are_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        StudentSettings(**change)


def test_data_that_cannot_be_learned_from_are_refused(ten):
    rng, window = np.random.default_rng(0), StudentWindow()
    with pytest.raises(InputError, match="1 networks but labels for 0"):
        student_data([ten], [], window, rng)
    with pytest.raises(InputError, match="have shape"):
        student_data([ten], [ten.maps[:5]], window, rng)
    with pytest.raises(InputError, match="none of the targets has a map"):
        student_data([ten], [sparse.csr_matrix(ten.maps.shape)], window, rng)
    with pytest.raises(InputError, match="no whole number of the 100 m cells"):
        student_data([ten], [ten.maps], StudentWindow("fixed", 64, cell_size_m=150.0), rng)
    with pytest.raises(MemoryBudgetError, match=r"Train on at most 6 base stations"):
        student_data([ten], [ten.maps], window, rng, memory_mb=0.33)


def test_a_training_that_diverges_is_said(torch, ten):
    with pytest.raises(InputError, match="diverged"):
        fit_student([ten], [ten.maps], [], StudentSettings(epochs=1), start=huge(torch))


def huge(torch):
    from telcoloc.models.geolocation.unet import StudentUNet

    arrays = {name: value * 1e18 for name, value in StudentUNet(torch.Generator().manual_seed(0)).arrays().items()}
    return Weights("deepmend", arrays, {"window": StudentWindow().card()})


def test_cancel_is_prompt_and_progress_rises(torch, ten):
    fractions = []

    def progress(fraction):
        fractions.append(fraction)
        if fraction > 0.2:
            raise Cancelled

    started = time.perf_counter()
    with pytest.raises(Cancelled):
        fit_student([ten], [ten.maps], [], StudentSettings(epochs=30), progress)
    assert time.perf_counter() - started < 10
    assert fractions == sorted(fractions)


def test_without_torch_it_says_what_to_install(monkeypatch, ten):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DeviceError, match="Install torch"):
        fit_student([ten], [ten.maps], [], StudentSettings())
