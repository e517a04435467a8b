"""One QGIS without a window, our provider in it, and helpers to run algorithms in this process and in the real qgis_process."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from processing_helpers import ROOT, SAMPLE, Ran, assert_one_clear_line, collecting_feedback

QGIS_PLUGINS = "/usr/share/qgis/python/plugins"
PHRASES_OF_QGIS = ("Unable to execute algorithm\n", "There were errors executing the algorithm.")


@pytest.fixture(scope="session", autouse=True)
def qgis_app(tmp_path_factory):
    """QgsApplication with Processing and our provider, registered the way qgis_process does it."""
    os.environ.setdefault("QGIS_CUSTOM_CONFIG_PATH", str(tmp_path_factory.mktemp("qgis_in_process")))
    from qgis.core import QgsApplication

    application = QgsApplication.instance() or QgsApplication([], False)
    application.initQgis()
    if QGIS_PLUGINS not in sys.path:
        sys.path.append(QGIS_PLUGINS)
    with warnings.catch_warnings():  # QGIS's own plugins, not ours to mend
        warnings.simplefilter("ignore")
        from processing.core.Processing import Processing

        Processing.initialize()
    import telcoloc

    plugin = telcoloc.classFactory(None)
    plugin.initProcessing()
    yield application
    plugin.unload()


@pytest.fixture(scope="session")
def provider(qgis_app):
    from qgis.core import QgsApplication

    return QgsApplication.processingRegistry().providerById("telcoloc")


@pytest.fixture(scope="session")
def run(qgis_app):
    """`run("geolocatebasestations", INPUT=…)`: `processing.run` with everything it said; unexpected errors print their traceback.

    A test that names no METHOD gets spdi, whose maps do not change when weights are trained anew.
    """
    import processing

    def call(algorithm, feedback=None, context=None, **parameters):
        ran = Ran()
        feedback = feedback or collecting_feedback(ran)
        if algorithm == "geolocatebasestations":
            parameters = {"METHOD": "spdi", **parameters}
        name = algorithm if ":" in algorithm else f"telcoloc:{algorithm}"
        try:
            ran.results = processing.run(name, parameters, feedback=feedback, context=context)
        except Exception:
            sys.stderr.write("\n".join(ran.debug))
            raise
        return ran

    return call


@pytest.fixture(scope="session")
def refused(run):
    """`refused("mapmetadata", "sentence as regex", …)`: the run must fail with exactly this one sentence for the user."""
    import re

    from qgis.core import QgsProcessingException

    def call(algorithm, sentence, **parameters):
        ran = Ran()
        with pytest.raises(QgsProcessingException) as caught:
            run(algorithm, feedback=collecting_feedback(ran), **parameters)
        text = str(caught.value)
        for phrase in PHRASES_OF_QGIS:
            text = text.replace(phrase, "")
        text = text or ran.errors[0]  # QGIS catches what is raised while it prepares a run, and only reports it
        assert re.fullmatch(sentence, text), f"it said:\n{text}"
        assert_one_clear_line(text)
        return text

    return call


@pytest.fixture(scope="session")
def sample():
    """The sample city: `sample("zones")` is what a user passes for a layer of it."""
    return lambda layer: f"{SAMPLE}|layername={layer}"


@pytest.fixture(scope="session")
def stack(run, tmp_path_factory):
    """(path, results) of a geolocation stack of the sample city with all outputs, read-only by agreement."""
    folder = tmp_path_factory.mktemp("stack")
    ran = run(
        "geolocatebasestations",
        INPUT=f"{SAMPLE}|layername=base_stations",
        ID_FIELD="bs_id",
        BOUNDARY=f"{SAMPLE}|layername=boundary",
        CELL_SIZE=200,
        OUTPUT=str(folder / "stack.tif"),
        BEST_SERVER=str(folder / "best.tif"),
        COVERAGE=str(folder / "coverage.gpkg"),
    )
    return ran


@dataclass(frozen=True)
class Process:
    """The real qgis_process in a profile of its own."""

    profile: Path
    runtime: Path
    plugin: bool

    def environment(self):
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PROJ_DATA") if name in os.environ}
        return {
            **kept,
            "QGIS_CUSTOM_CONFIG_PATH": str(self.profile),
            "QT_QPA_PLATFORM": "offscreen",
            "XDG_RUNTIME_DIR": str(self.runtime),
        }

    def command(self, arguments, before=""):
        return ["bash", "-c", f'{before}\nexec /usr/bin/qgis_process "$@"', "bash", *map(str, arguments)]

    def __call__(self, *arguments, before="", timeout=120, **options):
        """Run `qgis_process ARGUMENTS`; `before` are shell commands to run first, such as ulimit."""
        command = self.command(arguments, before)
        options = {"capture_output": True, "text": True, "check": False, "timeout": timeout, **options}
        return subprocess.run(command, env=self.environment(), **options)

    def run(self, algorithm, parameters, before="", **top_level):
        """Run an algorithm with JSON on stdin and return (process, parsed answer or None)."""
        text = json.dumps({"inputs": parameters, **top_level})
        done = self("run", f"telcoloc:{algorithm}", "-", before=before, input=text)
        start = done.stdout.find("{")
        return done, json.loads(done.stdout[start:]) if start >= 0 else None


@pytest.fixture(scope="session")
def make_process(tmp_path_factory):
    """`make_process(plugin=True)`: a `Process` in a fresh profile with or without our plugin."""
    if not shutil.which("qgis_process"):
        pytest.skip("needs qgis_process")

    def make(plugin=True):
        base = tmp_path_factory.mktemp("profile")
        runtime = base / "runtime"
        runtime.mkdir(mode=0o700)
        home = base / "profiles" / "default"
        (home / "QGIS").mkdir(parents=True)
        (home / "QGIS" / "QGIS3.ini").write_text(f"[PythonPlugins]\ntelcoloc={str(plugin).lower()}\n", encoding="utf-8")
        (home / "python" / "plugins").mkdir(parents=True)
        (home / "python" / "plugins" / "telcoloc").symlink_to(ROOT, target_is_directory=True)
        return Process(base, runtime, plugin)

    return make


@pytest.fixture(scope="session")
def qgis_process(make_process):
    return make_process()
