"""`telcoloc:checkenvironment`: what is installed, whether a GPU can be used, and what to do next."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    Qgis,
    QgsProcessingOutputBoolean,
    QgsProcessingOutputString,
    QgsProcessingParameterFileDestination,
)
from qgis.PyQt.QtCore import QT_VERSION_STR

from ..models.environment import collect
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.provider import plugin_version


class CheckEnvironment(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "checkenvironment"
    TITLE = "Check environment"
    GROUP = "Tools"
    SUMMARY = "What is installed, whether a GPU can be used, and what to do next."
    DESCRIPTION = (
        "Lists the versions of QGIS, Python and the packages that TelcoLoc can use, says whether an NVIDIA GPU is used and if not why, "
        "and names the next step. Nothing is installed or changed. Copy the text of the log into a bug report."
    )
    EXAMPLE = "qgis_process run telcoloc:checkenvironment --OUTPUT_HTML=environment.html"
    TAGS = ("telecom", "gpu", "cuda", "torch", "version", "diagnostics", "install", "report")
    ICON = "environment.svg"

    def define(self) -> None:
        self.add(
            QgsProcessingParameterFileDestination(
                "OUTPUT_HTML", self.tr("Report"), self.tr("HTML files (*.html)"), optional=True, createByDefault=True
            ),
            self.tr("The report as a page with text to copy."),
        )
        self.add_result(
            QgsProcessingOutputString("REPORT", self.tr("Report as text")), self.tr("The report as plain text.")
        )
        self.add_result(
            QgsProcessingOutputBoolean("CUDA_AVAILABLE", self.tr("GPU can be used")),
            self.tr("Whether DEVICE=cuda would work."),
        )
        self.add_result(
            QgsProcessingOutputString("DEVICE_REASON", self.tr("Device and reason")),
            self.tr("One sentence: which GPU is used, or why the CPU is."),
        )

    def work(self, run: Run) -> dict[str, Any]:
        report = collect({"TelcoLoc": plugin_version(), "QGIS": Qgis.version(), "Qt": QT_VERSION_STR})
        text = report.as_text()
        run.info(text)
        if run.parameters.wants("OUTPUT_HTML"):
            run.outputs.file("OUTPUT_HTML", ".html").write_text(report.as_html(), encoding="utf-8")
        return {"REPORT": text, "CUDA_AVAILABLE": report.cuda.available, "DEVICE_REASON": report.cuda.reason}
