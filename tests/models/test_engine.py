"""Statements about the engine call. Oracles: every cell on its own with all base stations (`exact`, see conftest) and brute force."""

import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from telcoloc.models.errors import Cancelled, InputError, MemoryBudgetError
from telcoloc.models.geolocation import spdi, tiles
from telcoloc.models.geolocation.engine import GeolocationJob, geolocate
from telcoloc.models.geolocation.result import CellShares, assemble
from telcoloc.models.grid import Grid

SIDE_M = 4000.0
#: Those that share out the cells.
METHODS = ("voronoi", "spdi")


def sites(n_bs, seed=0):
    return np.random.default_rng(seed).uniform(0, SIDE_M, (n_bs, 2))


def grid_of(cells, side_m=SIDE_M):
    return Grid(cells, cells, 0.0, side_m, side_m / cells)


def job_of(n_bs=20, cells=40, **settings):
    return GeolocationJob(**{"sites_m": sites(n_bs), "grid": grid_of(cells), "min_probability": 0.0, **settings})


def distances_of(job):
    centres = job.grid.centres(np.arange(job.grid.size))
    return np.linalg.norm(centres[None] - job.sites_m[:, None], axis=2)


def dense(result):
    return result.association.toarray().astype(float)


def half_mask(shape):
    rows, columns = np.indices(shape)
    return (rows + columns) % 3 != 0


# Every cell equals sPDI over all base stations


@pytest.mark.parametrize("beta", [0.3, 2.0, 4.0, 6.0])
@pytest.mark.parametrize(
    ("n_bs", "cells"),
    [
        pytest.param(2, 37, id="two BSs"),
        pytest.param(3, 37, id="three BSs"),
        pytest.param(6, 75, id="cells much smaller than the spacing"),
        pytest.param(40, 40, id="cells about a sixth of the spacing"),
        pytest.param(150, 7, id="cells much larger than the spacing"),
    ],
)
def test_every_cell_equals_exact_spdi_over_all_base_stations(exact, n_bs, cells, beta):
    job = job_of(n_bs, cells, beta=beta)
    expected = exact(distances_of(job), beta)
    single = dense(geolocate(job))
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-6)


def test_the_cases_above_use_every_tile_size():
    from scipy.spatial import cKDTree

    used = set()
    for n_bs, cells in ((6, 75), (40, 40), (150, 7)):
        job = job_of(n_bs, cells)
        used |= {group.side for group in tiles.grouped_tiles(job, cKDTree(job.sites_m), lambda fraction: None)}
    assert used >= {1, 2, 4, 8}


def test_a_large_empty_region_uses_the_largest_tiles(exact):
    job = GeolocationJob(sites(10), Grid(64, 64, 100_000.0, 64_000.0, 500.0), min_probability=0.0)
    from scipy.spatial import cKDTree

    groups = tiles.grouped_tiles(job, cKDTree(job.sites_m), lambda fraction: None)
    assert max(group.side for group in groups) == 32
    np.testing.assert_allclose(dense(geolocate(job)), exact(distances_of(job), job.beta), rtol=0, atol=1e-6)


def test_base_stations_on_cell_centres_and_two_a_metre_apart(exact):
    grid = grid_of(20)
    xy = np.concatenate([grid.centres(np.array([0, 37, 210, 399])), [[1234.0, 2345.0], [1235.0, 2345.0]]])
    job = job_of(sites_m=xy, grid=grid)
    np.testing.assert_allclose(dense(geolocate(job)), exact(distances_of(job), job.beta), rtol=0, atol=1e-6)


def test_far_false_eastings_cost_no_precision(exact):
    shift = np.array([691_000.0, 5_334_000.0])
    near = job_of()
    far = replace(near, sites_m=near.sites_m + shift, grid=Grid(40, 40, shift[0], shift[1] + SIDE_M, SIDE_M / 40))
    np.testing.assert_allclose(dense(geolocate(far)), exact(distances_of(near), near.beta), rtol=0, atol=1e-6)


def test_double_precision_differs_from_the_truth_only_by_how_it_is_stored(exact):
    job = job_of(dtype="float64")
    expected = exact(distances_of(job), job.beta)
    found = geolocate(job).association
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.toarray(), expected.astype(np.float32), rtol=2**-23, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("neighbours", [2, 5, 12])
def test_neighbours_are_each_cells_nearest(exact, neighbours, dtype):
    job = job_of(30, 33, neighbours=neighbours, dtype=dtype)
    distances = distances_of(job)
    nearest = np.argsort(distances, axis=0)[:neighbours]
    expected = np.zeros_like(distances)
    np.put_along_axis(expected, nearest, exact(np.take_along_axis(distances, nearest, axis=0), job.beta), axis=0)
    result = geolocate(job)
    found = dense(result)
    assert (found[expected == 0] == 0).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 if dtype == "float32" else 6e-8)
    assert result.neighbours == (neighbours,) * 3


def test_more_neighbours_than_base_stations_are_all_of_them():
    few = job_of(5, 20, neighbours=50)
    np.testing.assert_allclose(
        dense(geolocate(few)), dense(geolocate(replace(few, neighbours=None))), rtol=0, atol=1e-6
    )


# What comes out is a probability


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("min_probability", [0.0, 1e-5, 0.05])
def test_unmasked_cells_sum_to_one_and_masked_ones_are_empty(method, min_probability):
    mask = half_mask((40, 40))
    result = geolocate(job_of(mask=mask, method=method, min_probability=min_probability))
    sums = dense(result).sum(axis=0).reshape(40, 40)
    np.testing.assert_allclose(sums[mask], 1, rtol=0, atol=1e-6)
    assert (sums[~mask] == 0).all()
    assert (result.best_server[~mask] == -1).all()
    assert (result.best_server[mask] >= 0).all()
    assert np.isnan(result.mass_cut).all()


def test_a_mask_changes_no_cell_inside_it():
    mask = half_mask((40, 40))
    all_cells, some = dense(geolocate(job_of())), dense(geolocate(job_of(mask=mask)))
    np.testing.assert_allclose(some[:, mask.ravel()], all_cells[:, mask.ravel()], rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_location_given_bs_sums_to_one_and_keeps_the_shape_of_the_shares(method):
    result = geolocate(job_of(method=method))
    given = result.location_given_bs().toarray().astype(float)
    mass = dense(result).sum(axis=1)
    np.testing.assert_allclose(given.sum(axis=1), 1, rtol=0, atol=1e-5)
    np.testing.assert_allclose(given * mass[:, None], dense(result), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(result.mass, mass, rtol=1e-12)


def test_a_base_station_without_a_cell_has_no_mass_and_an_empty_row():
    xy = np.array([[1000.0, 1000.0], [3000.0, 3000.0], [1e6, 1e6]])
    result = geolocate(job_of(sites_m=xy, method="voronoi"))
    assert result.mass[2] == 0
    assert result.location_given_bs()[2].nnz == 0
    np.testing.assert_allclose(result.location_given_bs().sum(axis=1).ravel(), [[1, 1, 0]], atol=1e-5)


def test_voronoi_is_the_nearest_base_station():
    job = job_of(50, 61, method="voronoi")
    expected = distances_of(job).argmin(axis=0)
    result = geolocate(job)
    np.testing.assert_array_equal(result.best_server.ravel(), expected)
    np.testing.assert_array_equal(dense(result), np.arange(50)[:, None] == expected)
    assert (result.best_probability == 1).all()
    assert (result.entropy_bits == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_single_base_station_serves_every_cell(method):
    result = geolocate(job_of(1, 9, method=method))
    assert (dense(result) == 1).all()
    assert (result.entropy_bits == 0).all()
    assert result.mass == [81.0]


@pytest.mark.parametrize("smallest", [1e-5, 1e-3, 0.05])
def test_small_probabilities_are_dropped_and_the_cell_scaled_back(exact, smallest):
    job = job_of(40, 40, min_probability=smallest)
    before = exact(distances_of(job), job.beta)
    found = dense(geolocate(job))
    assert found[found > 0].min() >= smallest * (1 - 1e-6)
    assert (found[before < smallest * 0.5] == 0).all()
    assert (found[before >= smallest * (1 + 1e-6) + 1e-6] > 0).all()
    clear = ((before > 2 * smallest) | (before < smallest / 2)).all(axis=0)  # cells where no BS is near the limit
    expected = np.where(before >= smallest, before, 0)
    expected /= expected.sum(axis=0)
    assert clear.any()
    # What a tile leaves out of sight may hold up to `smallest` in all, and shifts the others by no more.
    np.testing.assert_allclose(found[:, clear], expected[:, clear], rtol=0, atol=smallest + 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_rasters_follow_from_the_shares(method):
    mask = half_mask((33, 33))
    result = geolocate(job_of(25, 33, method=method, mask=mask, min_probability=1e-4))
    shares = dense(result)
    np.testing.assert_array_equal(result.best_server.ravel(), np.where(mask.ravel(), shares.argmax(axis=0), -1))
    np.testing.assert_array_equal(result.best_probability.ravel(), shares.max(axis=0).astype(np.float32))
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    np.testing.assert_allclose(result.entropy_bits.ravel(), -(shares * logs).sum(axis=0), rtol=0, atol=1e-5)
    assert result.entropy_bits.min() >= 0
    for raster in (result.best_server, result.best_probability, result.entropy_bits):
        assert raster.shape == result.grid.shape


def test_of_equal_shares_the_first_base_station_serves():
    cells, counts = np.array([3, 0]), np.array([2, 3], np.int32)
    bs, probability = np.array([2, 1, 0, 2, 1], np.int32), np.array([0.5, 0.5, 0.2, 0.4, 0.4], np.float32)
    result = assemble(Grid(2, 2, 0.0, 20.0, 10.0), 3, [CellShares(cells, counts, bs, probability)], (3, 3, 3))
    np.testing.assert_array_equal(result.best_server, [[1, -1], [-1, 1]])
    np.testing.assert_allclose(result.entropy_bits, [[1.521928, 0], [0, 1]], rtol=1e-6)
    np.testing.assert_allclose(dense(result), [[0.2, 0, 0, 0], [0.4, 0, 0, 0.5], [0.4, 0, 0, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_threads_changes_nothing(method):
    one = geolocate(job_of(60, 80, method=method, threads=1))
    two = geolocate(job_of(60, 80, method=method, threads=2))
    for name in ("best_server", "best_probability", "entropy_bits"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(one.association.toarray(), two.association.toarray())


def test_neighbours_tell_how_many_base_stations_were_looked_at():
    smallest, median, largest = geolocate(job_of(150, 20, min_probability=1e-5)).neighbours
    assert 8 <= smallest <= median <= largest <= 150
    assert geolocate(job_of(5, 20)).neighbours == (5, 5, 5)
    assert geolocate(job_of(5, 20, method="voronoi")).neighbours == (1, 1, 1)


# The mass beyond the grid


def surrounded(cells=40, coarser=5, **settings):
    """A grid, and one of `coarser` times the cell size and three times the side around it."""
    grid = grid_of(cells)
    size = grid.cell_size_m * coarser
    n = 3 * cells // coarser
    around = Grid(n, n, -SIDE_M, 2 * SIDE_M, size)
    x, y = np.meshgrid(around.x_m, around.y_m)
    beyond = ~((x > 0) & (x < SIDE_M) & (y > 0) & (y < SIDE_M))
    return job_of(grid=grid, surroundings=around, surroundings_mask=beyond, **settings)


def test_the_mass_cut_is_nothing_in_the_middle_and_what_a_larger_grid_shows_at_the_rim(exact):
    steps = np.arange(-3900, 8000, 1000.0)  # base stations within the grid and beyond it, 1 km apart
    xy = np.column_stack([axis.ravel() for axis in np.meshgrid(steps, steps)]) + sites(144, 5) / 40
    job = surrounded(cells=40, sites_m=xy, beta=6.0)
    cut = geolocate(job).mass_cut
    wide = Grid(30, 30, -SIDE_M, 2 * SIDE_M, 400.0)
    shares = exact(distances_of(replace(job, grid=wide, surroundings=None, surroundings_mask=None)), job.beta)
    centres = wide.centres(np.arange(wide.size))
    outside = ((centres < 0) | (centres > SIDE_M)).any(axis=1)
    expected = shares[:, outside].sum(axis=1) / shares.sum(axis=1)
    from_rim = np.minimum(xy, SIDE_M - xy).min(axis=1)
    assert cut[from_rim > 1400].max() < 0.02
    assert cut[from_rim < -1400].min() > 0.98
    assert cut[(from_rim > 0) & (from_rim < 250)].min() > 0.2
    np.testing.assert_allclose(cut, expected, rtol=0, atol=0.1)  # cells of 500 m against cells of 400 m


def test_hull_base_stations_lose_mass_as_the_same_cells_of_a_larger_grid_say(exact):
    job = surrounded(coarser=1, n_bs=15)
    wide = replace(job, grid=job.surroundings, mask=None, surroundings=None, surroundings_mask=None)
    shares = exact(distances_of(wide), job.beta)
    expected = shares[:, job.surroundings_mask.ravel()].sum(axis=1) / shares.sum(axis=1)
    found = geolocate(job).mass_cut
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)  # shares below 1e-4 are left out beyond the grid
    assert found.max() > 0.9


def test_voronoi_cuts_what_lies_beyond():
    job = surrounded(method="voronoi", coarser=1)
    wide = replace(job, grid=job.surroundings, surroundings=None, surroundings_mask=None)
    expected = 1 - geolocate(replace(job, surroundings=None, surroundings_mask=None)).mass / geolocate(wide).mass
    np.testing.assert_allclose(geolocate(job).mass_cut, expected, rtol=0, atol=1e-12)
    assert expected.min() == 0
    assert expected.max() > 0.9


def test_nothing_beyond_the_grid_cuts_nothing():
    job = surrounded()
    assert (geolocate(replace(job, surroundings_mask=np.zeros(job.surroundings.shape, bool))).mass_cut == 0).all()


# Long work


@pytest.mark.parametrize("settings", [{}, {"method": "voronoi"}, {"surroundings": "yes"}])
def test_progress_rises_to_one_in_the_callers_thread(settings):
    job = surrounded() if settings.pop("surroundings", None) else job_of(**settings)
    fractions, threads = [], set()

    def progress(fraction):
        fractions.append(fraction)
        threads.add(threading.current_thread())

    geolocate(job, progress)
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0
    assert fractions[-1] == 1
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("settings", [{"beta": 4.0}, {"beta": 0.5, "min_probability": 0.0}, {"neighbours": 400}])
def test_cancel_stops_a_big_job_within_a_second(settings):
    rng = np.random.default_rng(1)
    job = GeolocationJob(
        rng.uniform(0, 60_000, (600, 2)), Grid(1500, 1500, 0.0, 60_000.0, 40.0), memory_mb=1e6, **settings
    )
    start = time.perf_counter()
    cancelled = None

    def progress(fraction):
        nonlocal cancelled
        if time.perf_counter() - start > 0.7:
            cancelled = time.perf_counter()
            raise Cancelled(f"at {fraction}")

    with pytest.raises(Cancelled, match="at 0"):
        geolocate(job, progress)
    assert time.perf_counter() - cancelled < 1.0
    assert cancelled - start < 2.0  # progress is called often enough to notice


def test_too_much_for_the_memory_is_said_before_the_work_with_a_cell_size_that_fits(monkeypatch):
    computed = 0
    kernel = spdi.association_probabilities

    def counted(squared, beta):
        nonlocal computed
        computed += squared.shape[1]
        return kernel(squared, beta)

    monkeypatch.setattr(spdi, "association_probabilities", counted)
    job = replace(surrounded(400, 5), sites_m=sites(30), min_probability=1e-5, memory_mb=8.0)
    sentence = (
        r"^400 x 400 cells of 10 m .* would hold about [\d,]+ kept probabilities and need [\d,]+ MB; 8 MB are allowed\. "
        r"Use CELL_SIZE ([\d.]+) or more, .*\.$"
    )
    with pytest.raises(MemoryBudgetError, match=sentence) as caught:
        geolocate(job)
    assert computed < job.grid.size / 5
    size = float(re.match(sentence, str(caught.value)).group(1))
    assert 10 < size < 40
    fits = replace(job, grid=Grid.covering((0, 0, SIDE_M, SIDE_M), size), surroundings=None, surroundings_mask=None)
    assert geolocate(fits).association.nnz > 0


def test_voronoi_too_much_for_the_memory_has_a_cell_size_that_fits():
    with pytest.raises(
        MemoryBudgetError, match=r"about 160,000 Voronoi cells and need 9 MB; 2 MB .* CELL_SIZE"
    ) as caught:
        geolocate(job_of(cells=400, method="voronoi", memory_mb=2.0))
    size = float(re.search(r"CELL_SIZE ([\d.]+)", str(caught.value)).group(1))
    grid = Grid.covering((0, 0, SIDE_M, SIDE_M), size)
    assert (geolocate(job_of(grid=grid, method="voronoi", memory_mb=2.0)).best_server >= 0).all()


def test_the_estimate_of_the_memory_is_close_to_what_is_kept(monkeypatch):
    estimates = []
    monkeypatch.setattr(GeolocationJob, "check_memory", lambda job, n_values, *rest: estimates.append(n_values))
    result = geolocate(job_of(60, 150, min_probability=1e-5))
    assert estimates == pytest.approx([result.association.nnz], rel=0.05)


def test_memory_that_runs_out_in_a_chunk_is_met_by_halving(monkeypatch):
    expected = dense(geolocate(job_of()))
    kernel = spdi.association_probabilities
    largest = 0

    def tight(squared, beta):
        nonlocal largest
        if squared.size > 3_000:
            raise MemoryError
        largest = max(largest, squared.size)
        return kernel(squared, beta)

    monkeypatch.setattr(tiles, "estimated_values", lambda job, groups: 0)
    monkeypatch.setattr(spdi, "association_probabilities", tight)
    np.testing.assert_array_equal(dense(geolocate(job_of())), expected)
    assert 1_000 < largest <= 3_000


# Devices


def test_another_device_gets_every_chunk_once_from_one_thread(monkeypatch):
    calls, now = [], []

    def on_device(kernel, squared, job):
        now.append(squared.shape[1])
        time.sleep(0.001)
        calls.append((squared.shape[1], job.beta, job.device, len(now)))
        now.pop()
        return kernel(squared, job)

    expected = dense(geolocate(job_of(mask=half_mask((40, 40)))))
    monkeypatch.setattr(tiles, "estimated_values", lambda job, groups: 0)
    monkeypatch.setattr(tiles, "_on_device", on_device)
    found = dense(geolocate(job_of(mask=half_mask((40, 40)), device="cuda", threads=4)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert {call[1:] for call in calls} == {(4.0, "cuda", 1)}  # one at a time, whatever `threads` says
    assert sum(call[0] for call in calls) >= half_mask((40, 40)).sum()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_torch_path_equals_numpy(monkeypatch, dtype):
    """What "cuda" does, on torch's CPU: the device's name is the only difference."""
    torch = pytest.importorskip("torch", reason="torch is not installed; the torch path cannot run")
    job = job_of(dtype=dtype)
    expected = dense(geolocate(job))
    moved = []
    from_numpy = torch.from_numpy

    class Tensor:
        def __init__(self, array):
            self.array = array

        def to(self, device):
            moved.append(device)
            return from_numpy(self.array)

    monkeypatch.setattr(torch, "from_numpy", Tensor)
    found = dense(geolocate(replace(job, device="cuda")))
    assert set(moved) == {"cuda"}
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 if dtype == "float32" else 6e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cuda_equals_the_cpu(dtype):
    torch = pytest.importorskip("torch", reason="torch is not installed; CUDA cannot be used")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here; run this test on a machine with an NVIDIA GPU")
    job = job_of(60, 200, dtype=dtype, min_probability=1e-5)
    on_gpu, on_cpu = geolocate(replace(job, device="cuda")), geolocate(job)
    np.testing.assert_allclose(dense(on_gpu), dense(on_cpu), rtol=0, atol=2e-5)
    exact_job = replace(job, min_probability=0.0)
    on_gpu, on_cpu = geolocate(replace(exact_job, device="cuda")), geolocate(exact_job)
    np.testing.assert_allclose(dense(on_gpu), dense(on_cpu), rtol=0, atol=1e-6)


# What cannot be computed is refused


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "magic"}, r"Unknown method 'magic'\. Methods: voronoi, .*\."),
        ({"beta": 0.0}, r"BETA is 0; it must be above 0 and at most 20 \(the literature uses 0\.1 to 6\)\."),
        ({"beta": 20.5}, r"BETA is 20\.5; it must be .*\."),
        ({"beta": float("nan")}, r"BETA is nan; it must be .*\."),
        ({"neighbours": 1}, r"NEIGHBOURS is 1; sPDI needs at least 2 base stations to compare\."),
        ({"min_probability": 0.5}, r"The smallest probability kept is 0\.5; it must be in \[0, 0\.5\)\."),
        ({"min_probability": -1e-9}, r"The smallest probability kept is -1e-09; it must be in \[0, 0\.5\)\."),
        ({"mask": np.ones((40, 41), bool)}, r"The mask has shape \(40, 41\), the grid \(40, 40\)\."),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_in_one_sentence(settings, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        job_of(**settings)


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_mask_is_refused(method):
    job = job_of(mask=np.zeros((40, 40), bool), method=method)
    with pytest.raises(
        InputError, match=r"^No cell of the grid lies inside the boundary, so there is nowhere to put mass\.$"
    ):
        geolocate(job)
