"""What the tests of this folder share beside their fixtures."""

import atexit
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FOLDER = tempfile.mkdtemp(prefix="telcoloc_tests_")
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
#: A copy, because QGIS changes a GeoPackage (its change counter) by opening it.
SAMPLE = Path(shutil.copy(ROOT / "resources" / "sample_city" / "sample_city.gpkg", _FOLDER))


@dataclass
class Ran:
    """What a run returned and said."""

    results: dict = field(default_factory=dict)
    infos: list = field(default_factory=list)
    warnings: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    debug: list = field(default_factory=list)

    def __getitem__(self, name):
        return self.results[name]

    @property
    def text(self):
        return "\n".join([*self.infos, *self.warnings, *self.errors])


def needs_weights(method, window="adaptive"):
    """Skip where a trained method cannot be used."""
    import pytest
    from telcoloc.models.weights_file import shipped

    if method in ("deepmend", "direct"):
        pytest.importorskip("torch", reason=f"torch is not installed; {method} cannot be computed")
    kind = method if window == "adaptive" else f"{method}_{window}"
    if method not in ("voronoi", "spdi") and not shipped(kind).exists():
        pytest.skip(f"the weights of {kind} do not ship yet")


def collecting_feedback(ran):
    """Return a QgsProcessingFeedback that writes into `ran`."""
    from qgis.core import QgsProcessingFeedback

    class Collecting(QgsProcessingFeedback):
        def __init__(self):
            super().__init__(False)

        def pushInfo(self, text):
            ran.infos.append(text)

        def pushWarning(self, text):
            ran.warnings.append(text)

        def reportError(self, text, fatalError=False):  # noqa: N803 - QGIS's signature
            ran.errors.append(text)

        def pushDebugInfo(self, text):
            ran.debug.append(text)

    return Collecting()


def assert_one_clear_line(text):
    assert "Traceback" not in text
    assert "\n" not in text
    assert text[-1] in ".?"
    assert not text.endswith("..")
    assert "should not have happened" not in text


def leftovers(folder):
    """Files of ours that nobody asked for."""
    return sorted(
        path.name
        for path in Path(folder).rglob("*")
        if ".part" in path.name or ".aside" in path.name or path.name.endswith(("-wal", "-shm", "-journal"))
    )


def layer_of(rows, crs="EPSG:32628", fields="id:string", geometry="Point", name="stations"):
    """Return a memory layer of (WKT or None, attribute, …) rows."""
    from qgis.core import QgsFeature, QgsGeometry, QgsVectorLayer

    definition = "&".join(f"field={field}" for field in fields.split(","))
    layer = QgsVectorLayer(f"{geometry}?{f'crs={crs}&' if crs else ''}{definition}", name, "memory")
    assert layer.isValid()
    features = []
    for wkt, *attributes in rows:
        feature = QgsFeature(layer.fields())
        feature.setAttributes(attributes)
        if wkt is not None:
            feature.setGeometry(QgsGeometry.fromWkt(wkt) if wkt else QgsGeometry.fromWkt("POINT EMPTY"))
        features.append(feature)
    assert layer.dataProvider().addFeatures(features)[0]
    layer.updateExtents()
    return layer


def bands_of(path):
    """Return ({description: array}, dataset) of a raster."""
    from osgeo import gdal

    dataset = gdal.Open(str(path))
    bands = [dataset.GetRasterBand(index) for index in range(1, dataset.RasterCount + 1)]
    return {band.GetDescription(): band.ReadAsArray() for band in bands}, dataset
