"""Statements about geolocations put together from maps drawn one by one. Oracle: dense arithmetic."""

import numpy as np
import pytest
from scipy import sparse
from telcoloc.models.geolocation.result import CellShares, assemble_maps, rows_of_shares
from telcoloc.models.grid import Grid

GRID = Grid(12, 17, 0.0, 240.0, 20.0)


def random_maps(n_bs=9, seed=0, filled=0.4):
    rng = np.random.default_rng(seed)
    values = rng.lognormal(-2, 2, (n_bs, GRID.size)).astype(np.float32) * (rng.uniform(size=(n_bs, GRID.size)) < filled)
    values[3] = 0
    values[:, 50:60] = 0
    return values


def shuffled(values):
    """CSR whose columns are in no order."""
    rows = [np.random.default_rng(row).permutation(np.flatnonzero(one)) for row, one in enumerate(values)]
    data = np.concatenate([one[cells] for one, cells in zip(values, rows)])
    return sparse.csr_matrix((data, np.concatenate(rows), np.cumsum([0, *map(len, rows)])), shape=values.shape)


def test_maps_are_the_rows_and_shares_are_the_columns():
    values = random_maps()
    result = assemble_maps(GRID, shuffled(values), neighbours=(1, 2, 3))
    exact = values.astype(float)
    rows, columns = exact.sum(axis=1, keepdims=True), exact.sum(axis=0)
    maps = np.divide(exact, rows, out=np.zeros_like(exact), where=rows > 0)
    shares = np.divide(exact, columns, out=np.zeros_like(exact), where=columns > 0)
    np.testing.assert_allclose(result.location_given_bs().toarray(), maps, rtol=1e-6)
    np.testing.assert_allclose(result.association.toarray(), shares, rtol=1e-6)
    np.testing.assert_allclose(result.mass, shares.sum(axis=1), rtol=1e-6)
    best = np.where(columns > 0, shares.argmax(axis=0), -1)
    np.testing.assert_array_equal(result.best_server.ravel(), best)
    np.testing.assert_allclose(result.best_probability.ravel(), shares.max(axis=0), rtol=1e-6)
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    np.testing.assert_allclose(result.entropy_bits.ravel(), -(shares * logs).sum(axis=0), rtol=0, atol=1e-5)
    assert result.dropped == 0
    assert result.neighbours == (1, 2, 3)
    assert np.shares_memory(result.association.indices, result.maps.indices)
    assert result.association.data.dtype == result.maps.data.dtype == np.float32


@pytest.mark.parametrize("smallest", [1e-3, 0.05])
def test_small_values_are_dropped_but_never_a_map(smallest):
    values = random_maps()
    values[5] *= 1e-6  # a map whose values are all small
    limit = smallest * np.minimum(values.max(axis=1, keepdims=True), 1)
    kept = np.where(values >= limit, values, 0)
    result = assemble_maps(GRID, shuffled(values), min_probability=smallest)
    np.testing.assert_allclose(
        result.location_given_bs().toarray()[5], kept[5] / kept[5].sum(dtype=float), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_array_equal(result.maps.toarray(), kept)
    assert result.dropped == pytest.approx(1 - kept.sum(dtype=float) / values.sum(dtype=float), rel=1e-5)


def test_no_maps_serve_no_cell():
    result = assemble_maps(GRID, sparse.csr_matrix((4, GRID.size), dtype=np.float32))
    assert (result.best_server == -1).all()
    assert result.location_given_bs().nnz == 0
    assert (result.mass == 0).all()


def test_shares_become_rows_whatever_the_batch(monkeypatch):
    rng = np.random.default_rng(1)
    n_bs = 7
    values = random_maps(n_bs, 2)
    values[:, 8] = 0
    shares = []
    cells = rng.permutation(GRID.size)
    for some in np.split(cells, [5, 6, 100, 180]):
        cell, bs = np.nonzero(values[:, some].T)
        counts = np.bincount(cell, minlength=len(some)).astype(np.int32)
        shares.append(CellShares(some, counts, bs.astype(np.int32), values[:, some].T[cell, bs]))
    for batch in (1, 200, 1 << 20):
        monkeypatch.setattr("telcoloc.models.geolocation.result._BATCH_VALUES", batch)
        np.testing.assert_array_equal(rows_of_shares(list(shares), n_bs, GRID.size).toarray(), values)
