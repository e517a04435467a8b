"""Several outputs appear together or not at all, also when the last one cannot be moved into place."""

import os
from types import SimpleNamespace

import pytest
from telcoloc.models.errors import OutputError
from telcoloc.telcoloc_qgis.outputs import Outputs


class Context:
    def layersToLoadOnCompletion(self):
        return {}

    def setLayersToLoadOnCompletion(self, layers):
        assert layers == {}


@pytest.fixture
def outputs(tmp_path):
    algorithm = SimpleNamespace(
        parameterAsOutputLayer=lambda values, name, context: str(tmp_path / f"{name}.tif"), input_files=dict
    )
    return Outputs(SimpleNamespace(algorithm=algorithm, values={}, context=Context()))


def test_all_or_nothing(outputs, tmp_path):
    (tmp_path / "A.tif").write_text("old")
    outputs.file("A", ".tif").write_text("new")
    outputs.file("B", ".tif").write_text("new")
    (tmp_path / "B.tif").mkdir()  # what stands there now cannot be replaced by a file
    (tmp_path / "B.tif" / "kept").write_text("kept")
    blocked = tmp_path / f".B.tif.aside{os.getpid()}"
    blocked.mkdir()
    (blocked / "in the way").write_text("")
    with pytest.raises(OutputError, match=r"B\.tif' cannot be replaced: "):
        outputs.commit()
    outputs.discard()
    assert (tmp_path / "A.tif").read_text() == "old"
    assert (tmp_path / "B.tif" / "kept").exists()
    assert not list(tmp_path.glob(".*.part*"))


def test_commit_replaces_and_leaves_nothing_aside(outputs, tmp_path):
    for name in ("A.tif", "A.tif.aux.xml"):
        (tmp_path / name).write_text("old")
    outputs.file("A", ".tif").write_text("new")
    outputs.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["A.tif"]
    assert (tmp_path / "A.tif").read_text() == "new"
