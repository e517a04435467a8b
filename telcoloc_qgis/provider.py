"""The Processing provider `telcoloc`."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

ROOT = Path(__file__).resolve().parents[1]


class TelcoLocProvider(QgsProcessingProvider):
    """Registers our algorithms; importing it costs no heavy package."""

    def id(self) -> str:
        return "telcoloc"

    def name(self) -> str:
        return "TelcoLoc"

    def longName(self) -> str:
        return "TelcoLoc: telecom geolocation"

    def icon(self) -> QIcon:
        return QIcon(self.svgIconPath())

    def svgIconPath(self) -> str:
        return str(ROOT / "resources" / "icons" / "telcoloc.svg")

    def versionInfo(self) -> str:
        return f"{plugin_version()} ({', '.join(f'{name} {_version(name)}' for name in ('numpy', 'scipy', 'torch'))})"

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        return ["tif", "tiff"]

    def defaultRasterFileExtension(self) -> str:
        return "tif"

    def loadAlgorithms(self) -> None:
        from ..processing_algorithms.check_environment import CheckEnvironment
        from ..processing_algorithms.compare_geolocations import CompareGeolocations
        from ..processing_algorithms.deepmend_teacher import DeepMendTeacher
        from ..processing_algorithms.evaluate_localization import EvaluateLocalization
        from ..processing_algorithms.filter_trajectory import FilterTrajectory
        from ..processing_algorithms.geolocate_base_stations import GeolocateBaseStations
        from ..processing_algorithms.import_measurements import ImportMeasurements
        from ..processing_algorithms.localize_measurements import LocalizeMeasurements
        from ..processing_algorithms.map_metadata import MapMetadata
        from ..processing_algorithms.match_landmarks import MatchLandmarks
        from ..processing_algorithms.match_to_streets import MatchToStreets
        from ..processing_algorithms.path_loss_maps import PathLossMaps
        from ..processing_algorithms.sensibility_map import SensibilityMap
        from ..processing_algorithms.signal_candidates import SignalCandidates
        from ..processing_algorithms.simulate_network import SimulateNetwork
        from ..processing_algorithms.track_landmarks import TrackLandmarks
        from ..processing_algorithms.tracking_map import TrackingMap
        from ..processing_algorithms.train_deepmend import TrainDeepMend
        from ..processing_algorithms.train_localizer import TrainLocalizer

        for algorithm in (
            GeolocateBaseStations,
            CompareGeolocations,
            MapMetadata,
            DeepMendTeacher,
            TrainDeepMend,
            SimulateNetwork,
            ImportMeasurements,
            TrainLocalizer,
            LocalizeMeasurements,
            EvaluateLocalization,
            FilterTrajectory,
            MatchToStreets,
            PathLossMaps,
            SignalCandidates,
            SensibilityMap,
            TrackLandmarks,
            TrackingMap,
            MatchLandmarks,
            CheckEnvironment,
        ):
            self.addAlgorithm(algorithm())


def plugin_version() -> str:
    """The version in metadata.txt."""
    for line in (ROOT / "metadata.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("version="):
            return line.partition("=")[2].strip()
    return "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
