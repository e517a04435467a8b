"""Runs inside a real QGIS window (see test_window.py): uses the toolbox dialog as a user does, and measures what she would feel."""

import json
import os
import time
import traceback
from pathlib import Path

import processing
from qgis.core import QgsProject
from qgis.PyQt.QtCore import QEventLoop, QTimer
from qgis.PyQt.QtWidgets import QProgressBar, QTextEdit

OUT = Path(os.environ["TELCOLOC_WINDOW_OUT"])
CITY = Path(os.environ["TELCOLOC_ROOT"]) / "resources" / "sample_city" / "sample_city.gpkg"
REPORT = {}


def wait(milliseconds):
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


class Watchdog:
    """Longest time between two ticks of a 5 ms timer on the main loop [ms]."""

    def __init__(self):
        self.longest_ms = 0.0
        self.last = time.monotonic()
        self.timer = QTimer()
        self.timer.timeout.connect(self.tick)
        self.timer.start(5)

    def tick(self):
        now = time.monotonic()
        self.longest_ms = max(self.longest_ms, 1000 * (now - self.last))
        self.last = now


def open_dialog(name, cell_size, **more):
    parameters = {
        "INPUT": f"{CITY}|layername=base_stations",
        "ID_FIELD": "bs_id",
        "METHOD": "spdi",
        "CELL_SIZE": cell_size,
        "OUTPUT": str(OUT / f"{name}_stack.tif"),
        "BEST_SERVER": str(OUT / f"{name}_best.tif"),
        "COVERAGE": str(OUT / f"{name}_coverage.gpkg"),
        **more,
    }
    dialog = processing.createAlgorithmDialog("telcoloc:geolocatebasestations", parameters)
    dialog.show()
    wait(500)
    return dialog


def run_in_dialog(dialog, cancel_at_percent=None):
    """Press Run; return what happened. The task's own end is told apart from the loading of results after it."""
    state = {"finished": False, "progress": 0, "cancelled_at": None}
    dialog.algorithmFinished.connect(lambda *_: state.update(finished=True, finished_at=time.monotonic()))
    watchdog = Watchdog()
    began = time.monotonic()
    dialog.runButton().click()

    during = 0.0
    while not state["finished"] and time.monotonic() - began < 120:
        if "Loading resulting layers" not in dialog.findChild(QTextEdit, "txtLog").toPlainText():
            during = watchdog.longest_ms
        if (
            cancel_at_percent is not None
            and state["cancelled_at"] is None
            and dialog.findChild(QProgressBar).value() >= cancel_at_percent
        ):
            state["cancelled_at"] = time.monotonic()
            dialog.cancelButton().click()
        wait(20)
    wait(300)
    return {
        "seconds": state.get("finished_at", time.monotonic()) - began,
        "finished": state["finished"],
        "longest_tick_ms": during,
        "longest_tick_with_loading_ms": watchdog.longest_ms,
        "seconds_to_cancel": None if state["cancelled_at"] is None else state["finished_at"] - state["cancelled_at"],
        "log": dialog.findChild(QTextEdit, "txtLog").toPlainText()[-3000:],
        "files": sorted(path.name for path in OUT.iterdir()),
    }


def main():
    dialog = open_dialog("whole", 50)
    REPORT["run"] = run_in_dialog(dialog)
    REPORT["layers"] = {
        layer.name(): {"renderer": layer.renderer().type(), "blend": int(layer.blendMode())}
        for layer in QgsProject.instance().mapLayers().values()
    }
    dialog.close()
    QgsProject.instance().clear()
    wait(300)
    for path in OUT.iterdir():
        path.unlink()
    REPORT["cancelled"] = []
    for percent in (0, 10, 40, 60, 90):  # searching neighbours, computing twice, writing the stack, drawing coverage
        dialog = open_dialog("cancelled", 20, MAX_MEMORY_MB=12000)
        REPORT["cancelled"].append({"at_percent": percent, **run_in_dialog(dialog, percent)})
        dialog.close()


def guarded():
    try:
        main()
    except Exception:
        REPORT["error"] = traceback.format_exc()
    (OUT.parent / "report.json").write_text(json.dumps(REPORT, indent=1))
    os._exit(0)  # leaving through QgsApplication.exit crashed QGIS 3.40


QTimer.singleShot(2500, guarded)
