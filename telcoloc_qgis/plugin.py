"""The plugin: registers the provider, and in a window adds a small menu. `iface` is None under qgis_process."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsApplication

from .provider import ROOT, TelcoLocProvider

SAMPLE_PROJECT = ROOT / "resources" / "sample_city" / "sample_city.qgz"


class TelcoLocPlugin:
    """What QGIS loads."""

    def __init__(self, iface: Any) -> None:  # noqa: ANN401 - QgisInterface, or None
        self.iface = iface
        self.provider: TelcoLocProvider | None = None
        self._actions: list[Any] = []

    def initProcessing(self) -> None:
        """Register the provider; all that qgis_process calls."""
        self.provider = TelcoLocProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        """Register the provider and add the menu."""
        self.initProcessing()
        from qgis.PyQt.QtWidgets import QAction

        for text, slot in (
            ("Open the sample city", self._open_sample),
            ("Check environment…", self._check_environment),
        ):
            action = QAction(self.provider.icon(), text, self.iface.mainWindow())
            action.triggered.connect(slot)
            self.iface.addPluginToMenu("TelcoLoc", action)
            self._actions.append(action)

    def unload(self) -> None:
        """Remove all that was added."""
        for action in self._actions:
            self.iface.removePluginMenu("TelcoLoc", action)
        self._actions.clear()
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None

    def _open_sample(self) -> None:
        self.iface.addProject(str(SAMPLE_PROJECT))

    def _check_environment(self) -> None:
        import processing

        processing.execAlgorithmDialog("telcoloc:checkenvironment")
