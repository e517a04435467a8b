"""Look-up tables: of radio maps, learned from measurements (against loops over records), and in files."""

from dataclasses import replace

import numpy as np
import pytest
from dcm import FLOOR_DBM, radio_maps, reports_at, table_of
from telcoloc.models.errors import InputError
from telcoloc.models.grid import Grid
from telcoloc.models.landmarks import lookup
from telcoloc.models.landmarks.lookup import (
    BELOW_WEAKEST_DB,
    learn_fingerprints,
    load_fingerprints,
    save_fingerprints,
)
from telcoloc.models.landmarks.signal_candidates import CandidateSettings, signal_candidates
from telcoloc.models.trajectory.measurements import measurements
from telcoloc.models.weights_file import Weights, write_weights


def test_places_are_where_the_maps_know_something():
    maps = radio_maps()
    table = table_of()
    outside = np.isfinite(maps.loss_db[0])
    assert table.places.tolist() == np.flatnonzero(outside).tolist()
    np.testing.assert_allclose(table.rss_dbm, maps.rss_dbm[:, outside].T)
    np.testing.assert_allclose(table.xy_m, maps.grid.centres(np.flatnonzero(outside)))
    assert table.noise_floor_dbm == FLOOR_DBM
    assert table.floored_dbm.min() >= FLOOR_DBM


def test_a_mask_leaves_cells_out():
    maps = radio_maps()
    mask = np.zeros(maps.grid.shape, bool)
    mask[3, 5:9] = mask[10, 10] = True  # the last one is inside the building
    assert type(table_of()).from_radio_maps(maps, mask).places.tolist() == [
        3 * maps.grid.width + c for c in range(5, 9)
    ]
    with pytest.raises(InputError, match=r"mask of places has shape \(2, 2\)"):
        type(table_of()).from_radio_maps(maps, mask[:2, :2])
    with pytest.raises(InputError, match="no cell that may be a place"):
        type(table_of()).from_radio_maps(maps, np.zeros(maps.grid.shape, bool))


def test_maps_without_a_noise_floor_receive_everything():
    maps = replace(radio_maps(), noise_floor_dbm=-np.inf)
    assert type(table_of()).from_radio_maps(maps).noise_floor_dbm < np.nanmin(maps.rss_dbm)


def walk(n=60, seed=0):
    """Records of a walk with their true positions, some unknown."""
    rng = np.random.default_rng(seed)
    xy = np.column_stack([np.linspace(12, 288, n), 55 + 30 * np.sin(np.linspace(0, 6, n))])
    sites = np.array([[0, 0], [300, 0], [150, 110], [0, 110]])
    rss = (
        -40
        - 30 * np.log10(np.maximum(np.hypot(*(xy[:, None] - sites).transpose(2, 0, 1)), 5))
        + rng.normal(0, 3, (n, 4))
    )
    names = np.where(rss > -105, np.array(["a", "b", "c", "d"]), "")
    records = measurements(np.full(n, "phone"), np.arange(float(n)), names, np.where(names != "", rss, np.nan))
    xy[::13] = np.nan
    return records, xy, Grid(8, 20, 0.0, 120.0, 15.0)


@pytest.mark.parametrize(("smooth_m", "reach_m", "least"), [(11.0, 22.0, 0.1), (20.0, 40.0, 0.5), (6.0, 0.0, 0.0)])
@pytest.mark.parametrize("at_once", [10, 1_000_000])
def test_fingerprints_are_weighted_means_over_the_records_around(smooth_m, reach_m, least, at_once, monkeypatch):
    monkeypatch.setattr(lookup, "_ENTRIES_AT_ONCE", at_once)
    records, xy, grid = walk()
    table = learn_fingerprints(records, xy, grid, smooth_m=smooth_m, reach_m=reach_m, least_share=least)
    known = np.isfinite(xy).all(axis=1)
    centre = np.full(xy.shape, np.nan)
    centre[known] = grid.centres(grid.cells_of(xy[known]))
    assert table.cells == ("a", "b", "c", "d")
    near = {
        cell
        for cell in range(grid.size)
        if np.hypot(*(centre[known] - grid.centres(np.array([cell]))[0]).T).min() <= reach_m + 1e-9
    }
    assert set(table.places.tolist()) == near
    for place, spot in enumerate(table.xy_m):
        for column in range(4):
            top = bottom = around = 0.0
            for row in np.flatnonzero(known):
                distance = np.hypot(*(centre[row] - spot))
                if distance > max(3 * smooth_m, reach_m):
                    continue
                weight = np.exp(-0.5 * (distance / smooth_m) ** 2)
                around += weight
                for code, rss in zip(records.cell[row], records.rss_dbm[row]):
                    if code == column:
                        top, bottom = top + weight * float(rss), bottom + weight
            if bottom > 0 and bottom >= least * around:
                assert table.rss_dbm[place, column] == pytest.approx(top / bottom, abs=1e-3)
            else:
                assert np.isnan(table.rss_dbm[place, column])
    weakest = np.nanmin(records.rss_dbm[known])
    assert table.noise_floor_dbm == np.floor(weakest) - BELOW_WEAKEST_DB


def test_what_was_learned_locates_the_same_walk():
    records, xy, grid = walk(300)
    table = learn_fingerprints(records, xy, grid)
    known = np.isfinite(xy).all(axis=1)
    found = signal_candidates(records, table, CandidateSettings(number=1))
    assert np.hypot(*(found.xy_m - xy)[known].T).mean() < 2.5 * grid.cell_size_m


def test_records_without_truth_teach_nothing():
    records, xy, grid = walk()
    known = np.isfinite(xy).all(axis=1)
    one, other = learn_fingerprints(records, xy, grid), learn_fingerprints(records.take(known), xy[known], grid)
    np.testing.assert_array_equal(one.rss_dbm, other.rss_dbm)
    for nothing in (np.full(xy.shape, np.nan), xy + 1e6):
        with pytest.raises(InputError, match="nothing to learn fingerprints from"):
            learn_fingerprints(records, nothing, grid)
    with pytest.raises(InputError, match="width above 0 m and a reach"):
        learn_fingerprints(records, xy, grid, smooth_m=0.0)


def test_only_keeps_columns():
    table = table_of()
    some = table.only({"cell 5", "cell 2", "stranger"})
    assert some.cells == ("cell 2", "cell 5")
    np.testing.assert_array_equal(some.rss_dbm, table.rss_dbm[:, [2, 5]])
    assert table.only(table.cells) is table


def test_a_file_gives_the_table_back(tmp_path):
    records, xy, grid = walk()
    table = learn_fingerprints(records, xy, replace(grid, crs_wkt="LOCAL"))
    save_fingerprints(tmp_path / "f.safetensors", table, "a walk")
    back = load_fingerprints(tmp_path / "f.safetensors")
    assert (back.grid, back.cells, back.noise_floor_dbm) == (table.grid, table.cells, table.noise_floor_dbm)
    np.testing.assert_array_equal(back.places, table.places)
    np.testing.assert_array_equal(back.rss_dbm, table.rss_dbm)


def test_files_that_hold_no_fingerprints_are_refused(tmp_path):
    path = tmp_path / "f.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        load_fingerprints(path)
    write_weights(path, Weights("unet", {"a": np.zeros(2)}))
    with pytest.raises(InputError, match="'unet', but 'fingerprints'"):
        load_fingerprints(path)
    write_weights(path, Weights("fingerprints", {"places": np.zeros(2, np.int64)}, {"height": 3}))
    with pytest.raises(InputError, match="damaged"):
        load_fingerprints(path)
    table = table_of()
    save_fingerprints(path, replace(table, places=table.places + 10_000_000))
    with pytest.raises(InputError, match="a place lies outside its grid"):
        load_fingerprints(path)


def test_tables_must_have_places_and_their_shape():
    table = table_of()
    with pytest.raises(InputError, match="cannot have entries of shape"):
        replace(table, cells=table.cells[:-1])
    with pytest.raises(InputError, match="no place"):
        replace(table, places=table.places[:0], rss_dbm=table.rss_dbm[:0])


def test_equal_records_teach_equally():
    maps = table_of()
    records = reports_at(maps, np.arange(0, len(maps.places), 5))
    xy = maps.xy_m[::5]
    one, two = (learn_fingerprints(records, xy, maps.grid) for _ in range(2))
    np.testing.assert_array_equal(one.rss_dbm, two.rss_dbm)
