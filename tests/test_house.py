"""The walls of the house (DESIGN.md) as tests on the source, and each of these checks on code that breaks it."""

import ast
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("models", "telcoloc_qgis", "processing_algorithms")
HEAVY = ("torch", "geopandas", "rasterio", "sklearn", "cvxpy", "matplotlib", "scipy.stats")
PICKLES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
PROVIDER = "telcoloc_qgis/provider.py"  # registers the algorithms, hence may look up


def plugin_sources():
    """Every Python file a user gets: its path from the root and its text."""
    paths = [ROOT / "__init__.py"]
    for folder in (*FLOORS, "resources"):
        paths += sorted((ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


SOURCES = plugin_sources()
LOADED = {name: text for name, text in SOURCES.items() if not name.startswith("resources/")}  # what QGIS may import


def floor_of(name):
    return PurePosixPath(name).parts[0]


def nodes(tree, import_time_only):
    """Yield the nodes of a tree; with `import_time_only` not those in function bodies and under TYPE_CHECKING."""
    yield tree
    if import_time_only and isinstance(tree, ast.If) and ast.unparse(tree.test).endswith("TYPE_CHECKING"):
        children = tree.orelse
    elif import_time_only and isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        children = []
    else:
        children = ast.iter_child_nodes(tree)
    for child in children:
        yield from nodes(child, import_time_only)


def imports(name, text, import_time_only=False):
    """Yield (line, dotted name) of everything a file imports; what is inside the plugin starts with `telcoloc.`."""
    package = ["telcoloc", *PurePosixPath(name).parent.parts]
    for node in nodes(ast.parse(text, name), import_time_only):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def is_within(module, parents):
    return any(f"{module}.".startswith(f"{parent}.") for parent in parents)


# The checks: each takes a file's name and text and yields "file:line what is wrong"


def qgis_below(name, text):
    if floor_of(name) == "models":
        for line, module in imports(name, text):
            if is_within(module, ("qgis", "processing", "PyQt5", "PyQt6")):
                yield f"{name}:{line} imports {module}; models/ knows no QGIS"


def arrows_up(name, text):
    above = {"models": FLOORS[1:], "telcoloc_qgis": FLOORS[2:]}.get(floor_of(name), ())
    if name == PROVIDER:
        above = ()
    for line, module in imports(name, text):
        if is_within(module, [prefix + floor for floor in above for prefix in ("telcoloc.", "")]):
            yield f"{name}:{line} imports {module}, a floor above its own"
        elif is_within(module, (*FLOORS, "telcoloc")) and not relative(text, line):
            yield f"{name}:{line} imports {module} by an absolute name; inside the plugin imports are relative"


def relative(text, line):
    return text.splitlines()[line - 1].lstrip().startswith("from .")


def swallowed_errors(name, text):
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type else None
        silent = all(
            isinstance(line, (ast.Pass, ast.Continue))
            or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
            for line in node.body
        )
        if caught is None:
            yield f"{name}:{node.lineno} bare except"
        elif silent and {"Exception", "BaseException"} & set(caught.strip("()").split(", ")):
            yield f"{name}:{node.lineno} except {caught} that says nothing"


def prints(name, text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "print",
            "pprint",
            "pprint.pprint",
            "builtins.print",
        }:
            yield f"{name}:{node.lineno} print; it would land in front of qgis_process's JSON"


def pickles(name, text):
    for line, module in imports(name, text):
        if is_within(module, PICKLES):
            yield f"{name}:{line} imports {module}"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in {"torch.load", "torch.save"} or called.endswith(("read_pickle", "to_pickle")):
            yield f"{name}:{node.lineno} {called} is a pickle; use safetensors and JSON"
        if any(keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False" for keyword in node.keywords):
            yield f"{name}:{node.lineno} allow_pickle"


def path_changes(name, text):
    for line, module in imports(name, text):
        if module in {"sys.path", "site.addsitedir", "sys.meta_path", "sys.path_hooks"}:
            yield f"{name}:{line} imports {module}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"sys.path", "site.addsitedir"}:
            yield f"{name}:{node.lineno} touches {ast.unparse(node)}; all plugins share one interpreter"


def heavy_imports(sources):
    """Yield the chain from a file that QGIS loads at start to a heavy import at module level, also through models/."""

    def files_of(module):  # importing telcoloc.a.b also runs the __init__ of telcoloc and telcoloc.a
        parts = module.split(".")[1:]
        for end in range(len(parts) + 1):
            stem = "/".join(parts[:end])
            for candidate in (f"{stem}.py", f"{stem}/__init__.py".lstrip("/")):
                if candidate in sources:
                    yield candidate

    def follow(name, chain, seen):
        for line, module in imports(name, sources[name], import_time_only=True):
            step = [*chain, f"{name}:{line}"]
            if is_within(module, HEAVY):
                yield f"{' -> '.join(step)} imports {module} at module level"
            elif is_within(module, ("telcoloc",)):
                for file in files_of(module):
                    if file not in seen:
                        seen.add(file)
                        yield from follow(file, step, seen)

    seen = {name for name in sources if floor_of(name) != "models"}
    for name in sorted(seen):
        yield from follow(name, [], seen)


# On our code


@pytest.mark.parametrize("check", [qgis_below, arrows_up, swallowed_errors, prints, pickles, path_changes])
def test_plugin(check):
    findings = [finding for name, text in LOADED.items() for finding in check(name, text)]
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize("check", [swallowed_errors, pickles, path_changes])
def test_programs_among_the_resources(check):  # not loaded by QGIS, so they may print
    findings = [finding for name, text in SOURCES.items() if name not in LOADED for finding in check(name, text)]
    assert not findings, "\n".join(findings)


def test_nothing_heavy_is_imported_when_qgis_starts():
    findings = list(heavy_imports(LOADED))
    assert not findings, "\n".join(findings)


def test_floors_are_there():
    assert {"__init__.py", "models/__init__.py", "models/grid.py"} <= set(SOURCES)


def test_tests_are_no_package():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_ruff_finds_nothing():  # this includes docstrings (D) and annotations (ANN) of everything public
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_mypy_finds_nothing_in_the_science(tmp_path):
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_asks_for_docstrings_and_annotations():
    source = "def public(a):\n    return a\n\n\nclass Public:\n    x = 1\n"
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "-"]
    command += ["--stdin-filename", "models/example.py"]
    result = subprocess.run(command, cwd=ROOT, input=source, capture_output=True, text=True, check=False)
    assert {line.split()[1] for line in result.stdout.splitlines() if line.startswith("models")} >= {
        *("ANN001", "ANN201"),  # argument and result without annotation
        *("D100", "D101", "D103"),  # module, class and function without docstring
    }


# On code that breaks the rules, and on code that only looks like it

DEEP = "models/deep/__init__.py:1 -> models/deep/net.py:2 imports torch.nn"


@pytest.mark.parametrize(
    ("check", "name", "text"),
    [
        (qgis_below, "models/a.py", "def f():\n    from qgis.core import Qgis"),
        (qgis_below, "models/b/a.py", "import processing"),
        (arrows_up, "models/a.py", "from ..telcoloc_qgis import device"),
        (arrows_up, "models/geolocation/a.py", "def f():\n    from ...processing_algorithms.geolocate import X"),
        (arrows_up, "telcoloc_qgis/a.py", "from ..processing_algorithms import geolocate"),
        (arrows_up, "telcoloc_qgis/a.py", "from .. import processing_algorithms"),
        (arrows_up, "telcoloc_qgis/a.py", "import telcoloc.models"),
        (arrows_up, "processing_algorithms/a.py", "from models.grid import Grid"),
        (swallowed_errors, "models/a.py", "try:\n    f()\nexcept:\n    g()"),
        (swallowed_errors, "models/a.py", "try:\n    f()\nexcept Exception:\n    pass"),
        (
            swallowed_errors,
            "models/a.py",
            "for a in b:\n    try:\n        f()\n    except (OSError, Exception):\n        continue",
        ),
        (prints, "models/a.py", "def f():\n    print(1)"),
        (pickles, "models/a.py", "import pickle"),
        (pickles, "models/a.py", "from joblib import dump"),
        (pickles, "models/a.py", "numpy.load(path, allow_pickle=True)"),
        (pickles, "models/a.py", "torch.load(path)"),
        (path_changes, "__init__.py", "import sys\nsys.path.insert(0, 'a')"),
        (path_changes, "models/a.py", "import sys\nsys.path += ['a']"),
        (path_changes, "models/a.py", "from sys import path"),
        (path_changes, "models/a.py", "import site\nsite.addsitedir('a')"),
    ],
)
def test_check_finds(check, name, text):
    assert len(list(check(name, text))) == 1


@pytest.mark.parametrize(
    ("check", "name", "text"),
    [
        (qgis_below, "telcoloc_qgis/a.py", "from qgis.core import Qgis"),
        (qgis_below, "models/a.py", "from . import processing\nimport qgis2"),
        (arrows_up, PROVIDER, "from ..processing_algorithms import ALGORITHMS"),
        (
            arrows_up,
            "processing_algorithms/a.py",
            "from ..telcoloc_qgis.base import Base\nfrom ..models.grid import Grid",
        ),
        (arrows_up, "telcoloc_qgis/a.py", "from .device import choose\nfrom ..models import grid"),
        (swallowed_errors, "models/a.py", "try:\n    f()\nexcept OSError:\n    pass"),
        (swallowed_errors, "models/a.py", "try:\n    f()\nexcept Exception as error:\n    tell(error)"),
        (prints, "models/a.py", '"""print(1)"""\nfeedback.print(1)'),
        (pickles, "models/a.py", "numpy.load(path, allow_pickle=False)\nsafetensors.torch.load_file(path)"),
        (path_changes, "models/a.py", "import sys\nimport os.path\nsys.modules\nself.path.append(1)"),
    ],
)
def test_check_leaves_alone(check, name, text):
    assert list(check(name, text)) == []


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("import torch", "a.py:1 imports torch"),
        ("class A:\n    from scipy import stats", "a.py:2 imports scipy.stats"),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", "a.py:2 imports torch"),
        ("from ..models.deep import net", f"a.py:1 -> {DEEP}"),
        ("from ..models.deep.table import T", f"a.py:1 -> {DEEP}"),
        ("from ..models import light", ""),
        ("from scipy import spatial\nimport torchgeo", ""),
        ("def f():\n    import torch", ""),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", ""),
    ],
)
def test_heavy_imports_are_followed(text, finding):
    sources = {
        "__init__.py": "",
        "processing_algorithms/a.py": text,
        "models/__init__.py": "",
        "models/light.py": "import numpy\n\ndef f():\n    from .deep import net",
        "models/deep/__init__.py": "from .net import Net",
        "models/deep/net.py": "import math\nfrom torch import nn",
        "models/deep/table.py": "T = 1",
    }
    expected = [f"processing_algorithms/{finding} at module level"] if finding else []
    assert list(heavy_imports(sources)) == expected
