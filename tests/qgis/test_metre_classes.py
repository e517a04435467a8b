"""Classes of errors and radii: round limits that cover all values and are shared between layers."""

import numpy as np
import pytest

pytest.importorskip("qgis.core")

from telcoloc.telcoloc_qgis.styles import metre_edges


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        (np.linspace(26, 48, 50), [0, 30, 50]),
        (np.full(9, 12.0), [0, 15]),
        (np.array([np.nan, 3.0]), [0, 3]),
        (np.empty(0), [0, 1]),
    ],
)
def test_limits_are_round(values, edges):
    assert metre_edges(values) == edges


def test_wide_ranges_have_few_classes_that_hold_everything():
    values = np.geomspace(0.5, 90_000, 500)
    edges = metre_edges(values)
    assert edges[0] == 0
    assert edges[-1] >= values.max()
    assert len(edges) <= 8
    assert (np.diff(edges) > 0).all()
