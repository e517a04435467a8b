"""Statements about boosted trees: walked by numpy, they say what scikit-learn, and what a loop over nodes, says."""

import numpy as np
import pytest
from telcoloc.models.errors import InputError
from telcoloc.models.trees import TreeEnsemble


def stump(feature=0, threshold=0.5, below=-1.0, above=2.0):
    """A tree of one question."""
    return {
        "feature": np.array([feature, 0, 0], np.int16),
        "threshold": np.array([threshold, 0.0, 0.0]),
        "left": np.array([1, 1, 2], np.int32),
        "right": np.array([2, 1, 2], np.int32),
        "value": np.array([0.0, below, above], np.float32),
        "roots": np.array([0], np.int32),
        "base": np.array([10.0]),
    }


def by_walking(trees, sample):
    total = float(trees.base[0])
    for root in trees.roots:
        node = int(root)
        while trees.left[node] != node:
            goes_left = np.float32(sample[trees.feature[node]]) <= trees.threshold[node]
            node = int(trees.left[node] if goes_left else trees.right[node])
        total += float(trees.value[node])
    return total


def fitted(seed=0, n=2000, **options):
    ensemble = pytest.importorskip("sklearn.ensemble")
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    y = np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] + rng.normal(scale=0.1, size=n)
    settings = {"max_iter": 40, "early_stopping": False, "random_state": 0, **options}
    return ensemble.HistGradientBoostingRegressor(**settings).fit(x, y), x


def test_a_stump():
    trees = TreeEnsemble.from_tensors(stump())
    np.testing.assert_allclose(trees.predict(np.array([[0.0], [0.5], [0.50001], [9.0]])), [9.0, 9.0, 12.0, 12.0])


def test_no_samples_and_no_trees():
    trees = TreeEnsemble.from_tensors(stump())
    assert trees.predict(np.zeros((0, 1))).shape == (0,)
    none = {name: array[:0] for name, array in stump().items()} | {"base": np.array([3.0])}
    np.testing.assert_array_equal(TreeEnsemble.from_tensors(none).predict(np.zeros((2, 1))), [3.0, 3.0])


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error"])
def test_equals_scikit_learn(loss):
    from telcoloc.models.training.voronoi_boost import from_sklearn

    regressor, _ = fitted(loss=loss)
    new = np.random.default_rng(1).normal(size=(20_000, 5)).astype(np.float32)
    np.testing.assert_allclose(from_sklearn(regressor).predict(new), regressor.predict(new), rtol=0, atol=1e-6)


def test_equals_a_walk_from_node_to_node():
    from telcoloc.models.training.voronoi_boost import from_sklearn

    regressor, x = fitted()
    trees = from_sklearn(regressor)
    np.testing.assert_allclose(trees.predict(x[:50]), [by_walking(trees, one) for one in x[:50]], rtol=1e-6)


def test_tensors_go_there_and_back():
    trees = TreeEnsemble.from_tensors(stump())
    again = TreeEnsemble.from_tensors(trees.tensors("trees."), "trees.")
    for name, array in trees.tensors().items():
        np.testing.assert_array_equal(array, again.tensors()[name])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"left": np.array([0, 1, 2])}, "children do not stand behind"),  # a circle would never end
        ({"right": np.array([3, 1, 2])}, "children do not stand behind"),
        ({"roots": np.array([3])}, "children do not stand behind"),
        ({"value": np.zeros(2)}, "different lengths"),
        ({"base": np.zeros(2)}, "one base value"),
        ({"feature": np.array([-1, 0, 0])}, "counted from 0"),
    ],
)
def test_damaged_trees_are_told(change, sentence):
    with pytest.raises(InputError, match=sentence):
        TreeEnsemble.from_tensors(stump() | change)


def test_missing_arrays_and_features_are_told():
    tensors = stump()
    del tensors["value"]
    with pytest.raises(InputError, match="array 'value' is missing"):
        TreeEnsemble.from_tensors(tensors)
    with pytest.raises(InputError, match=r"look at 4 features, but the samples have shape \(2, 3\)"):
        TreeEnsemble.from_tensors(stump(feature=3)).predict(np.zeros((2, 3)))
