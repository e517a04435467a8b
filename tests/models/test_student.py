"""Statements about the student: its inputs, its output head, its network, and its maps on a grid. Oracles: brute force, geometry."""

import sys
import threading
import time

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial import cKDTree
from telcoloc.models import environment
from telcoloc.models.errors import Cancelled, DeviceError, InputError, MemoryBudgetError
from telcoloc.models.geolocation.resample import onto_grid
from telcoloc.models.geolocation.sites import local_spacing_m
from telcoloc.models.geolocation.student import Student, load_student, require_torch, student_maps, student_of
from telcoloc.models.geolocation.student_windows import (
    StudentWindow,
    channels,
    from_target,
    offsets,
    to_target,
)
from telcoloc.models.grid import Grid
from telcoloc.models.weights_file import Weights, write_weights

SMALL = StudentWindow("adaptive", 64, 5.0)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed; the student cannot run")


@pytest.fixture(scope="module")
def student(torch):
    """Random weights, but ones that make maps with a shape: the head looks mainly at the channel of the nearest."""
    return random_student(torch, SMALL)


def random_student(torch, window, seed=1):
    from telcoloc.models.geolocation.unet import StudentUNet

    network = StudentUNet(torch.Generator().manual_seed(seed), 0.3)
    kind = "deepmend" if window.kind == "adaptive" else "deepmend_fixed"
    return Student(Weights(kind, network.arrays(), {"window": window.card()}), window)


def layout(seed=0, n=40, side_m=20_000.0):
    return np.random.default_rng(seed).uniform(0, side_m, (n, 2))


GRID = Grid(120, 120, -2_000.0, 22_000.0, 200.0)


def total_variation(first, second):
    return np.asarray(abs(first - second).sum(axis=1)).ravel() / 2


def dense(maps, grid=GRID):
    return maps.toarray().reshape(-1, *grid.shape)


# What it sees and says


def test_channels_are_ratios_of_distances_found_by_brute_force():
    xy_m = layout()
    bs, size = np.array([3, 8]), np.array([120.0, 310.0])
    x_m = xy_m[bs, :1] + offsets(64) * size[:, None]
    y_m = xy_m[bs, 1:] - offsets(64) * size[:, None]
    seen = channels(cKDTree(xy_m), xy_m[bs], x_m, y_m, size)
    for n in range(2):
        for row, column in ((0, 0), (31, 32), (63, 5)):
            place = np.array([x_m[n, column], y_m[n, row]])
            distance = np.linalg.norm(xy_m - place, axis=1) + size[n] / 100
            expected = 1 - np.exp(-np.sort(distance)[:3] / distance[bs[n]])
            np.testing.assert_allclose(seen[n, :, row, column], expected, rtol=1e-5)


def test_channels_where_a_base_station_stands_on_a_cell_centre_and_where_there_are_only_two():
    xy_m = np.array([[0.0, 0.0], [1000.0, 0.0]])
    steps = (np.arange(8) - 4)[None] * 100.0  # a centre at 0
    seen = channels(cKDTree(xy_m), xy_m[:1], steps, -steps, np.array([100.0]))
    np.testing.assert_allclose(seen[0, 0, 4, 4], 1 - np.exp(-1))  # the nearest is itself
    assert np.isfinite(seen).all()
    assert (seen[0, 2] == 1).all()  # there is no third


def test_the_head_undoes_the_transformation_and_clips():
    maps = np.random.default_rng(0).dirichlet(np.full(64, 0.1), 3).reshape(3, 8, 8)
    maps = np.maximum(maps, 1e-8)
    maps /= maps.sum((1, 2), keepdims=True)
    assert maps.max() < 0.5
    np.testing.assert_allclose(from_target(to_target(maps)), maps, rtol=1e-6)
    np.testing.assert_allclose(
        to_target(np.array([0.0, 1e-9, 1e-4, 0.1, 1.0])), [1 / 9, 1 / 9, 0.25, 1.0, 1 / np.log10(2)]
    )
    assert np.isfinite(from_target(np.array([[-1.0, 0.0], [1e9, 0.2]]))).all()


@pytest.mark.parametrize("change", [{"kind": "round"}, {"side": 0}, {"cells_per_spacing": -1.0}])
def test_windows_without_sense_are_refused(change):
    with pytest.raises(InputError, match="window"):
        StudentWindow(**change)


# The network


def test_the_network_is_the_papers(torch):
    from telcoloc.models.geolocation.unet import StudentUNet

    network = StudentUNet()
    assert [layer.out_channels for layer in network.encoder] == [32, 16, 8, 4, 2, 1]
    assert [layer.out_channels for layer in network.decoder] == [1, 2, 4, 8, 16, 32]
    assert {layer.kernel_size for layer in (*network.encoder, *network.decoder)} == {(5, 5)}
    assert (network.head.in_channels, network.head.out_channels, network.head.kernel_size) == (32, 1, (1, 1))
    assert sum(value.numel() for value in network.parameters()) == 70_809


@pytest.mark.parametrize("side", [64, 100, 600])
def test_the_network_takes_any_side(torch, side):
    from telcoloc.models.geolocation.unet import StudentUNet

    with torch.no_grad():
        assert StudentUNet()(torch.rand(1, 3, side, side)).shape == (1, side, side)


def test_a_side_that_is_no_multiple_of_64_is_padded_evenly_and_cropped(torch):
    from telcoloc.models.geolocation.unet import StudentUNet

    network = StudentUNet(torch.Generator().manual_seed(0))
    seen = torch.rand(1, 3, 100, 100, generator=torch.Generator().manual_seed(1))
    padded = torch.zeros(1, 3, 128, 128)
    padded[:, :, 14:114, 14:114] = seen
    with torch.no_grad():
        torch.testing.assert_close(network(seen), network(padded)[:, 14:114, 14:114])


@pytest.mark.parametrize("seed", range(8))
def test_every_filter_of_the_bottleneck_lives_and_learns_from_the_start(torch, seed):
    from telcoloc.models.geolocation.unet import StudentUNet

    network = StudentUNet(torch.Generator().manual_seed(seed))
    network(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))).abs().mean().backward()
    narrow = [layer for layer in (*network.encoder, *network.decoder) if layer.out_channels <= 2]
    assert len(narrow) == 4
    for layer in narrow:
        assert (layer.weight.grad.flatten(1).abs().sum(1) > 0).all()


def test_torchs_threads_are_put_back_also_after_overlapping_use(torch):
    from telcoloc.models.geolocation.unet import torch_threads

    before = torch.get_num_threads()
    first, second = torch_threads(1), torch_threads(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.get_num_threads() == 1
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == before


# Weights files


def test_weights_survive_the_file(student, tmp_path):
    path = tmp_path / "deepmend.safetensors"
    write_weights(path, student.weights)
    again = load_student(path)
    assert again.window == student.window
    xy_m = layout()
    first, second = (student_maps(one, xy_m, GRID, targets=np.arange(3))[0] for one in (student, again))
    assert (first != second).nnz == 0


def test_the_wrong_kind_of_weights_is_said(student, tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, student.weights)
    with pytest.raises(InputError, match=r"holds weights for 'deepmend', but 'direct' or 'direct_fixed' is asked for"):
        load_student(path, "direct")
    with pytest.raises(InputError, match="not for a student"):
        student_of(Weights("voronoi_boost", {}), path)


def test_damaged_weights_are_said(student):
    tensors = dict(student.weights.tensors)
    with pytest.raises(InputError, match="does not say in its card which window"):
        student_of(Weights("deepmend", tensors), "file")
    with pytest.raises(InputError, match="does not say in its card which window"):
        student_of(Weights("deepmend", tensors, {"window": {"kind": "adaptive", "side": None}}), "file")
    with pytest.raises(InputError, match="its card tells of the window 'fixed'"):
        student_of(Weights("deepmend", tensors, {"window": StudentWindow.paper().card()}), "file")
    del tensors["head.bias"]
    with pytest.raises(InputError, match=r"array 'head.bias' is missing"):
        student_of(Weights("deepmend", tensors, student.weights.card), "file")


# Its maps


def test_rows_sum_to_one_and_mass_cut_tells_what_lies_beyond(student):
    xy_m = np.vstack([layout(), layout(1, n=20, side_m=2_000.0) + 9_000])
    maps, cut = student_maps(student, xy_m, GRID)
    np.testing.assert_allclose(maps.sum(axis=1), 1, atol=1e-5)
    assert maps.dtype == np.float32
    assert maps.has_sorted_indices
    assert (np.diff(maps.indptr) > 0).all()
    half = 6.4 * local_spacing_m(xy_m)[:, None]
    inside = ((xy_m - half > -2_000) & (xy_m + half < 22_000)).all(axis=1)
    assert inside.any()
    assert not inside.all()
    assert (cut[inside] < 1e-6).all()
    assert (cut[~inside] > 0).all()


def test_a_grid_in_two_halves_cuts_what_the_other_holds(student):
    xy_m = layout()
    west, east = Grid(800, 400, -40_000, 60_000, 125.0), Grid(800, 400, 10_000, 60_000, 125.0)
    cut = np.array([student_maps(student, xy_m, grid, targets=np.arange(6))[1][:6] for grid in (west, east)])
    np.testing.assert_allclose(cut.sum(axis=0), 1, atol=1e-5)


def test_the_mask_is_respected_and_changes_nothing_else(student):
    xy_m = layout()
    mask = np.random.default_rng(0).random(GRID.shape) < 0.6
    free, cut = student_maps(student, xy_m, GRID, keep_mass=1.0)
    masked, cut_masked = student_maps(student, xy_m, GRID, mask, keep_mass=1.0)
    np.testing.assert_array_equal(cut, cut_masked)
    expected = dense(free) * mask
    expected /= expected.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(dense(masked), expected, atol=1e-6)
    with pytest.raises(InputError, match="nowhere to put mass"):
        student_maps(student, xy_m, GRID, np.zeros(GRID.shape, bool))


def test_only_the_tail_is_dropped(student):
    xy_m = layout()
    whole, _ = student_maps(student, xy_m, GRID, keep_mass=1.0)
    some, _ = student_maps(student, xy_m, GRID, keep_mass=0.99)
    for bs in range(len(xy_m)):
        full, kept = whole[bs].toarray()[0], some[bs].toarray()[0]
        assert full[kept > 0].sum() >= 0.99 - 1e-4
        assert full[kept > 0].min() >= full[kept == 0].max() * (1 - 1e-5)


def test_a_base_station_far_from_the_grid_has_an_empty_row(student):
    xy_m = np.vstack([layout(), layout(1, n=10) + 9e5])
    grid = Grid(50, 50, 9_000, 11_000, 100.0)
    maps, cut = student_maps(student, xy_m, grid)
    assert maps[-1].nnz == 0
    assert cut[-1] == 1


@pytest.mark.parametrize("factor", [0.001, 7.0, 1000.0])
def test_an_enlarged_layout_gets_the_enlarged_map(student, factor):
    xy_m = layout()
    large = Grid(120, 120, -2_000.0 * factor, 22_000.0 * factor, 200.0 * factor)
    first, cut = student_maps(student, xy_m, GRID)
    second, cut_large = student_maps(student, xy_m * factor, large)
    assert total_variation(first, second).max() < 1e-4
    np.testing.assert_allclose(cut, cut_large, atol=1e-5)


def test_a_moved_layout_gets_the_moved_map(student):
    xy_m, away = layout(), np.array([652_000.0, 6_862_000.0])
    moved = Grid(120, 120, -2_000.0 + away[0], 22_000.0 + away[1], 200.0)
    assert (
        total_variation(student_maps(student, xy_m, GRID)[0], student_maps(student, xy_m + away, moved)[0]).max() < 1e-4
    )


@pytest.mark.parametrize("mirrored", [False, True])
def test_what_the_network_sees_turns_and_mirrors_with_the_layout(mirrored):
    """The network itself only learns it, from turned and mirrored examples (test_training_student.py)."""
    xy_m, turn = layout(), np.array([[0.0, -1.0], [1.0, 0.0]])
    if mirrored:
        turn = np.array([[-1.0, 0.0], [0.0, 1.0]])

    def seen(positions):
        x_m, y_m = positions[:4, :1] + offsets(64) * 150, positions[:4, 1:] - offsets(64) * 150
        return channels(cKDTree(positions), positions[:4], x_m, y_m, np.full(4, 150.0))

    first, second = seen(xy_m), seen(xy_m @ turn.T)
    np.testing.assert_allclose(first[..., ::-1] if mirrored else np.rot90(first, 1, (2, 3)), second, atol=1e-5)


def test_one_base_station_alone_serves_every_cell_alike(student):
    mask = np.zeros(GRID.shape, bool)
    mask[:3] = True
    maps, cut = student_maps(student, np.array([[5_000.0, 5_000.0]]), GRID, mask)
    np.testing.assert_allclose(dense(maps)[0], mask / mask.sum(), rtol=1e-6)
    assert np.isnan(cut).all()


@pytest.mark.parametrize("n", [2, 3])
def test_a_few_base_stations_are_enough(student, n):
    maps, _ = student_maps(student, layout(n=n), GRID)
    np.testing.assert_allclose(maps.sum(axis=1), 1, atol=1e-5)


def test_targets_are_the_rows_of_the_whole(student):
    xy_m = layout()
    whole, cut = student_maps(student, xy_m, GRID)
    some, cut_some = student_maps(student, xy_m, GRID, targets=np.array([9, 2]))
    assert np.flatnonzero(np.diff(some.indptr)).tolist() == [2, 9]
    assert total_variation(whole[[2, 9]], some[[2, 9]]).max() < 1e-5
    np.testing.assert_allclose(cut_some[[2, 9]], cut[[2, 9]], atol=1e-6)
    assert np.isnan(np.delete(cut_some, [2, 9])).all()


def test_threads_do_not_change_the_result(student):
    xy_m = layout()
    one, two = (student_maps(student, xy_m, GRID, threads=threads)[0] for threads in (1, 3))
    assert (one != two).nnz == 0


def test_the_fixed_window_reaches_30_km(torch):
    student = random_student(torch, StudentWindow.paper())
    grid = Grid(70, 70, -35_000.0, 35_000.0, 1_000.0)
    maps, cut = student_maps(student, layout() - 10_000, grid, targets=np.array([0]))
    x_m, y_m = grid.centres(maps[0].indices).T
    at = layout()[0] - 10_000
    assert np.abs(x_m - at[0]).max() == pytest.approx(30_000, abs=1_000)
    assert np.abs(y_m - at[1]).max() == pytest.approx(30_000, abs=1_000)
    np.testing.assert_allclose(maps[0].sum(), 1, atol=1e-5)
    assert cut[0] < 1e-6 or np.abs(at).max() > 5_000


def test_cancel_is_prompt(student):
    xy_m = layout(n=3_000, side_m=200_000.0)
    grid = Grid(2_000, 2_000, 0.0, 200_000.0, 100.0)
    started = time.perf_counter()

    def progress(fraction):
        if time.perf_counter() - started > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        student_maps(student, xy_m, grid, memory_mb=50_000, progress=progress)
    assert time.perf_counter() - started < 4
    assert threading.active_count() < 8


def test_too_little_memory_is_said_before_the_work(student):
    xy_m = layout(n=400)
    fractions = []
    with pytest.raises(MemoryBudgetError, match=r"Use CELL_SIZE [\d.]+ or more"):
        student_maps(student, xy_m, Grid(2_000, 2_000, 0.0, 20_000.0, 10.0), memory_mb=50.0, progress=fractions.append)
    assert max(fractions) <= 0.05


def test_progress_rises_to_one(student):
    fractions = []
    student_maps(student, layout(), GRID, progress=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_without_torch_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DeviceError, match=r"needs torch, which is not installed in this Python. Install torch"):
        require_torch()


def test_with_a_broken_torch_it_says_what_is_wrong(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('c10.dll cannot be loaded')")
    for name in [name for name in sys.modules if name == "torch" or name.startswith("torch.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        DeviceError, match=r"needs torch, but torch cannot be loaded \(c10.dll cannot be loaded\)\. .*einstall"
    ):
        require_torch()


def test_cuda_and_cpu_agree(torch, student):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here; run this test on a machine with an NVIDIA GPU")
    xy_m = layout(n=200)
    assert environment.resolve_device("cuda")[0] == "cuda"
    cpu, gpu = (student_maps(student, xy_m, GRID, device=device)[0] for device in ("cpu", "cuda"))
    assert total_variation(cpu, gpu).max() < 1e-3


# Moving a window onto a grid


def smooth_map(side=64, seed=0):
    rng = np.random.default_rng(seed)
    steps = offsets(side)
    x, y = np.meshgrid(steps - rng.uniform(-5, 5), steps - rng.uniform(-5, 5))
    masses = np.exp(-np.hypot(x, y * 1.5) / rng.uniform(3, 6)) + 1e-7
    return masses / masses.sum()


@pytest.mark.parametrize("ratio", [0.1, 0.37, 0.99, 1.0, 1.6, 5.0, 40.0])
def test_mean_and_mass_stay_where_they_are_at_every_ratio_of_cells(ratio):
    masses = smooth_map()
    xy_m, size = np.array([1234.5, -987.6]), 80.0
    cell = size * ratio
    grid = Grid.covering((-3_000, -5_000, 6_000, 4_000), cell)
    kept = onto_grid(masses, xy_m, size, grid, None, 1.0)
    assert kept.mass_cut < 1e-9
    steps = offsets(64) * size
    expected = [xy_m[0] + masses.sum(0) @ steps, xy_m[1] - masses.sum(1) @ steps]
    found = kept.probability @ grid.centres(kept.cells)
    np.testing.assert_allclose(found, expected, atol=0.05 * size if cell < 6 * size else 0.3 * cell)
    assert kept.probability.sum() == pytest.approx(1, abs=1e-5)


def test_on_its_own_cells_a_window_is_copied():
    masses = smooth_map()
    grid = Grid(64, 64, -3_200.0, 3_200.0, 100.0)
    kept = onto_grid(masses, np.zeros(2), 100.0, grid, None, 1.0)
    np.testing.assert_allclose(kept.probability, masses.ravel(), rtol=1e-5)
    np.testing.assert_array_equal(kept.cells, np.arange(64 * 64))


def test_coarse_cells_hold_the_sum_of_what_they_cover():
    masses = smooth_map()
    grid = Grid(16, 16, -3_200.0, 3_200.0, 400.0)
    kept = onto_grid(masses, np.zeros(2), 100.0, grid, None, 1.0)
    expected = masses.reshape(16, 4, 16, 4).sum(axis=(1, 3))
    np.testing.assert_allclose(kept.probability, expected.ravel(), rtol=1e-5)


def test_fine_cells_follow_the_logarithm_between_centres():
    column = np.exp(-0.3 * np.arange(64))
    masses = np.outer(np.ones(64), column) / (64 * column.sum())
    grid = Grid(64, 640, -3_200.0, 3_200.0, 10.0)
    kept = onto_grid(masses, np.zeros(2), 100.0, grid, None, 1.0)
    row = sparse.csr_matrix((kept.probability, kept.cells, [0, len(kept.cells)]), shape=(1, grid.size)).toarray()
    ratio = np.diff(np.log(row.reshape(grid.shape)[0, 5:-5]))
    np.testing.assert_allclose(ratio, -0.03, atol=1e-4)
