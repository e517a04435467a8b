"""The upload gate of plugins.qgis.org on the built zip, and readiness for QGIS 4 as far as text can tell.

The rules are those of ../shared/reference/qgis.md, section 6 and 8.
"""

import ast
import configparser
import importlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_SCRIPT = ROOT / "scripts" / "package.py"
MAX_ZIP_BYTES = 25 * 2**20

# The site's bandit_rules.json: what blocks an upload outright, and what blocks it until a person skips it (B404: off).
BANDIT_MANDATORY = (
    "B102,B103,B105,B106,B107,B202,B301,B302,B306,B307,B501,B502,B503,B506,B602,B604,B605,B609,B612,B613,B615"
)
BANDIT_SKIPPABLE = "B101,B108,B110,B112,B113,B303,B324,B310,B311,B314,B403,B603,B607,B608,B614"

# plugins/validator.py; homepage because its URL is fetched, present or not
REQUIRED_METADATA = (
    *("name", "description", "version", "qgisMinimumVersion", "author", "email", "about"),
    *("tracker", "repository", "homepage"),
)
BANNED_SUFFIXES = {
    *(
        ".a",
        ".bin",
        ".class",
        ".dll",
        ".dylib",
        ".exe",
        ".jar",
        ".lib",
        ".msi",
        ".node",
        ".o",
        ".so",
        ".whl",
    ),  # compiled
    *(".pyc", ".pyd", ".pyo"),
    *(".app", ".bat", ".cmd", ".com", ".ps1", ".sh"),
}
BANNED_PARTS = {"__pycache__", "__MACOSX", "Thumbs.db", "desktop.ini", "Desktop.ini"}
PROGRAM_MAGIC = {
    b"\x7fELF": "ELF",
    b"MZ": "Windows",
    b"\xcf\xfa\xed\xfe": "Mach-O",
    b"\xca\xfe\xba\xbe": "Mach-O or Java",
    b"#!": "script",
}

WINDOW_FILES = {"telcoloc_qgis/plugin.py"}  # the only place that may know there is a window
WINDOW_MODULES = ("qgis.gui", "qgis.utils.iface", "qgis.PyQt.QtWidgets", "qgis.PyQt.uic")
BINDINGS = ("PyQt4", "PyQt5", "PyQt6", "PySide2", "PySide6")
GONE_IN_QGIS_4 = {  # pattern on a line of source: what to write instead
    r"\.exec_\(": ".exec(",
    r"\bQRegExp\b": "QRegularExpression",
    r"\bQTextCodec\b": "Python's str.encode",
    r"\bQDesktopWidget\b": "QScreen",
    r"\bQVariant\.Type\b": "QMetaType.Type",
    r"\bQgsProcessingAlgorithm\.Flag[A-Z]|\bself\.Flag[A-Z]": "Qgis.ProcessingAlgorithmFlag.X",
}


def run(*command, cwd):
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def zip_path(tmp_path_factory):
    result = run(sys.executable, PACKAGE_SCRIPT, "--output", tmp_path_factory.mktemp("zip"), cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip())


@pytest.fixture(scope="module")
def entries(zip_path):
    with zipfile.ZipFile(zip_path) as archive:
        return archive.infolist()


@pytest.fixture(scope="module")
def package(zip_path, tmp_path_factory):
    """The unpacked package folder."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(zip_path) as archive:
        archive.extractall(folder)
    return folder / "telcoloc"


@pytest.fixture(scope="module")
def sources(package):
    """Every Python file of the zip: its path inside the package and its text."""
    return {path.relative_to(package).as_posix(): path.read_text("utf-8") for path in sorted(package.rglob("*.py"))}


@pytest.fixture(scope="module")
def metadata(package):
    parser = configparser.ConfigParser()  # with interpolation, as the validator and QGIS do: a lone % would raise
    parser.optionxform = str
    parser.read_string((package / "metadata.txt").read_text("utf-8"))
    return dict(parser.items("general"))


# The zip


def test_zip_is_small_enough(zip_path):
    assert zip_path.stat().st_size < MAX_ZIP_BYTES


def test_zip_has_one_top_folder_that_is_an_identifier(entries):
    assert {entry.filename.split("/")[0] for entry in entries} == {"telcoloc"}
    assert "telcoloc".isidentifier()


def test_zip_holds_what_a_user_needs(package):
    for name in ("__init__.py", "metadata.txt", "LICENSE", "README.md", "CHANGELOG.md", "models/grid.py", "resources"):
        assert (package / name).exists(), name
    assert not {path.name for path in package.iterdir()} & {"tests", "benchmarks", "scripts", "docs", "pyproject.toml"}


def test_zip_holds_no_junk_and_no_programs(entries, zip_path):
    problems = []
    with zipfile.ZipFile(zip_path) as archive:
        for entry in entries:
            path = PurePosixPath(entry.filename)
            if any(part.startswith(".") or part in BANNED_PARTS for part in path.parts):
                problems.append(f"{path}: hidden or left by a tool")
            if path.suffix.lower() in BANNED_SUFFIXES:
                problems.append(f"{path}: {path.suffix} is not accepted")
            with archive.open(entry) as file:
                head = file.read(4)
            programs = [what for magic, what in PROGRAM_MAGIC.items() if head.startswith(magic)]
            problems += [f"{path}: starts like a program ({what})" for what in programs]
    assert not problems, "\n".join(problems)


def test_zip_has_plain_files_only(entries):
    assert all(entry.external_attr >> 16 == 0o100644 for entry in entries)


def test_zip_is_the_same_each_time(zip_path, tmp_path):
    again = run(sys.executable, PACKAGE_SCRIPT, "--output", tmp_path, cwd=tmp_path)
    assert Path(again.stdout.strip()).read_bytes() == zip_path.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [zip_path.name]


# The script that builds it


@pytest.fixture
def small_checkout(tmp_path):
    """A new git repository with the least a package needs, all tracked."""
    for name in ("scripts/package.py", "metadata.txt", "LICENSE", "CHANGELOG.md", "__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    users = ("README.md", "models/grid.py", "resources/a/b.csv")
    others = ("models/.hidden", "tests/test_a.py", "pyproject.toml", "docs/a.md", ".ci/resources/a.csv")
    for name in users + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    run("git", "init", "-q", ".", cwd=tmp_path)
    run("git", "add", ".", cwd=tmp_path)
    (tmp_path / "models" / "untracked.py").write_text("")
    return tmp_path


def test_package_takes_tracked_files_of_the_user_only(small_checkout):
    (small_checkout / "models" / "grid.py").chmod(0o755)
    result = run(sys.executable, "scripts/package.py", cwd=small_checkout)
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(result.stdout.strip()) as archive:
        names = "CHANGELOG.md LICENSE README.md __init__.py metadata.txt models/grid.py resources/a/b.csv"
        assert archive.namelist() == [f"telcoloc/{name}" for name in names.split()]
        assert all(entry.external_attr >> 16 == 0o100644 for entry in archive.infolist())


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda root: (root / "README.md").unlink(),
            "The package needs README.md, written and added to git; nothing was",
        ),
        (
            lambda root: run("git", "rm", "-q", "--cached", "LICENSE", cwd=root),
            "The package needs LICENSE, written and",
        ),
        (lambda root: (root / "models/grid.py").unlink(), "models/grid.py is tracked by git but is no plain file"),
        (lambda root: (root / "metadata.txt").write_text("[general]\n"), "metadata.txt has no readable version"),
        (lambda root: shutil.rmtree(root / ".git"), "git could not list the tracked files"),
    ],
)
def test_package_says_what_is_missing_and_builds_nothing(small_checkout, spoil, sentence):
    spoil(small_checkout)
    result = run(sys.executable, "scripts/package.py", cwd=small_checkout)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert not (small_checkout / "build").exists()


# metadata.txt


def test_metadata_has_every_required_field(metadata):
    assert [key for key in REQUIRED_METADATA if not metadata.get(key, "").strip()] == []


def test_metadata_versions_are_numbers(metadata):
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["version"])
    assert metadata["qgisMinimumVersion"] == "3.40"
    assert metadata["qgisMaximumVersion"] == "4.99"


def test_metadata_flags_use_the_words_the_site_reads(metadata):
    for key in ("experimental", "deprecated", "server"):
        assert metadata.get(key, "false") in {"true", "1", "false", "0"}, key
    assert metadata["hasProcessingProvider"] in {"yes", "true"}  # read by qgis_process, not by the site


def test_metadata_words(metadata):
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9 _-]+", metadata["name"])
    assert "plugin" not in metadata["name"].lower()
    assert "/" not in metadata["author"]
    assert "\\" not in metadata["author"]
    assert re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", metadata["email"])
    assert metadata["category"] in {"Analysis", "Raster", "Vector"}
    assert "\n" not in metadata["description"]
    assert "no plugin in the repository localises devices" in metadata["about"]  # the reviewers' question


def test_metadata_addresses_are_three_urls(metadata):
    for key in ("tracker", "repository", "homepage"):
        assert re.fullmatch(r"https://[\w.-]+/\S+", metadata[key]), key


def test_metadata_icon_is_a_png_in_the_zip(metadata, package):
    icon = package / metadata["icon"]
    assert icon.suffix == ".png"
    header = icon.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert header[16:24] == (64).to_bytes(4, "big") * 2  # width and height


def test_licence_is_the_gpl(package):
    text = (package / "LICENSE").read_text("utf-8")
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 2, June 1991" in text


def newest_changes(package):
    """Heading and bullets of the newest section of CHANGELOG.md."""
    text = (package / "CHANGELOG.md").read_text("utf-8")
    heading, body = re.split(r"^## ", text, maxsplit=2, flags=re.MULTILINE)[1].split("\n", 1)
    bullets = [" ".join(item.replace("`", "").split()) for item in re.split(r"^- |^#+ .*$", body, flags=re.MULTILINE)]
    return heading, [bullet for bullet in bullets if bullet]


def test_versions_agree(metadata, package):
    heading, _ = newest_changes(package)
    assert re.match(r"\[(.+?)\]", heading).group(1) == metadata["version"]
    assert f'version = "{metadata["version"]}"\n' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_metadata_repeats_the_newest_changes(metadata, package):
    heading, bullets = newest_changes(package)
    first, *lines = metadata["changelog"].splitlines()
    assert first == heading.replace("[", "").replace("]", "")
    assert [line.strip()[2:] for line in lines] == bullets


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_pages_name_every_algorithm(page, package, sources):
    texts = [text for name, text in sources.items() if name.startswith("processing_algorithms/")]
    names = {name for text in texts for name in re.findall(r'^    NAME = "(\w+)"', text, re.M)}
    assert len(names) == len(texts) - 1  # one file each, and the package's own
    assert set(re.findall(r"`telcoloc:(\w+)`", (package / page).read_text("utf-8"))) == names


# The scanners of the site


def bandit_findings(folder):
    rules = f"{BANDIT_MANDATORY},{BANDIT_SKIPPABLE}"
    result = run(sys.executable, "-m", "bandit", "-q", "-r", folder, "-t", rules, "-f", "json", cwd=folder)
    assert result.stdout.startswith("{"), f"bandit did not run; see requirements-dev.txt. {result.stderr}"
    report = json.loads(result.stdout)
    assert report["errors"] == []
    return [
        f"{item['test_id']} {item['filename']}:{item['line_number']} {item['issue_text']}" for item in report["results"]
    ]


def secret_findings(folder):
    result = run(sys.executable, "-m", "detect_secrets", "scan", "--all-files", folder.name, cwd=folder.parent)
    assert result.stdout.startswith("{"), f"detect-secrets did not run; see requirements-dev.txt. {result.stderr}"
    return [
        f"{item['filename']}:{item['line_number']} {item['type']}"
        for items in json.loads(result.stdout)["results"].values()
        for item in items
        if item["filename"] != f"{folder.name}/metadata.txt"
    ]


def test_bandit_finds_nothing(package):
    findings = bandit_findings(package)
    assert not findings, "\n".join(findings)


def test_bandit_would_find_something(tmp_path):
    (tmp_path / "bad.py").write_text("import subprocess, torch\nassert subprocess.run(['ls'])\ntorch.load('a')\n")
    assert {finding.split()[0] for finding in bandit_findings(tmp_path)} == {"B101", "B603", "B607", "B614"}


def test_detect_secrets_finds_nothing(package):
    findings = secret_findings(package)
    assert not findings, "\n".join(findings)


def test_detect_secrets_would_find_something(tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    digest = "3f786850e387550fdab836ed7e6dc881de23001b"  # pragma: allowlist secret
    for name in ("bad.py", "metadata.txt"):
        (folder / name).write_text(f'digest = "{digest}"\n')
    assert secret_findings(folder) == ["bad/bad.py:1 Hex High Entropy String"]


# The code, as text


def imported_names(tree):
    """Yield (line, dotted name) of everything a module imports, `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def import_findings(name, text):
    """Imports that name a Qt binding, or that need a window outside the one file for it."""
    findings = []
    for line, module in imported_names(ast.parse(text)):
        if module.split(".")[0] in BINDINGS:
            findings.append(f"{name}:{line} imports {module}; use qgis.PyQt")
        if name not in WINDOW_FILES and any(f"{module}.".startswith(f"{window}.") for window in WINDOW_MODULES):
            findings.append(f"{name}:{line} imports {module}, which needs a window")
    if name not in WINDOW_FILES:
        findings += [
            f"{name}:{node.lineno} uses qgis.utils.iface, which needs a window"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Attribute) and ast.unparse(node) in {"utils.iface", "qgis.utils.iface"}
        ]
    return findings


def dotted(node):
    """`a.b.c` of an attribute chain, or None when it starts at something other than a name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def is_no_enum_value(chain):
    """Whether `qgis.core.QgsX.Y` is a class, an enum type or a plain constant in the QGIS here. Without QGIS: no."""
    module, *rest = chain.rsplit(".", 2)
    try:
        value = importlib.import_module(module)
        for attribute in rest:
            value = getattr(value, attribute)
    except (ImportError, AttributeError):
        return False
    return isinstance(value, type) or type(value) in {int, str}


def enum_findings(name, text):
    """Qt and QGIS enum values without their enum's name, such as `QgsProcessing.TypeVector`: Qt 6 does not know them.

    The pattern: `Class.Value`, where `Class` is imported from `qgis`, `Value` starts with a capital, nothing
    follows, and it is neither called (`QgsVectorLayer.LayerOptions()` is a class) nor something else in
    the QGIS that runs the test.
    """
    tree = ast.parse(text)
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.split(".")[0] == "qgis":
            known.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
        elif isinstance(node, ast.Import):  # `import qgis.core` binds `qgis`, `import qgis.core as c` binds `c`
            known.update({alias.asname or "qgis": alias.name if alias.asname else "qgis" for alias in node.names})
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    inner |= {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    findings = []
    for node in ast.walk(tree):
        chain = dotted(node) if isinstance(node, ast.Attribute) and id(node) not in inner else None
        if chain is None or chain.split(".")[0] not in known:
            continue
        first, rest = chain.split(".", 1)
        full = f"{known[first]}.{rest}"
        short = re.fullmatch(r"qgis\.\w+(?:\.Qt\w+)?\.((?:Q[A-Z]\w*|Qgs\w+|Qgis|Qt)\.[A-Z]\w*)", full)
        if short and not is_no_enum_value(full):
            findings.append(f"{name}:{node.lineno} {short.group(1)} lacks the name of its enum")
    return findings


def gone_findings(name, text):
    return [
        f"{name}:{number} {match.group()} is gone in QGIS 4; use {instead}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, instead in GONE_IN_QGIS_4.items()
        for match in re.finditer(pattern, line)
    ]


def findings_in(sources, check):
    return "\n".join(finding for name, text in sources.items() for finding in check(name, text))


def test_every_file_is_python_3_9(sources):
    for name, text in sources.items():
        ast.parse(text, name, feature_version=(3, 9))


def test_no_qt_binding_by_name_and_no_window_outside_its_file(sources):
    assert findings_in(sources, import_findings) == ""


def test_enums_are_scoped(sources):
    assert findings_in(sources, enum_findings) == ""


def test_nothing_that_qgis_4_removed(sources):
    assert findings_in(sources, gone_findings) == ""


def test_init_only_holds_class_factory(sources):
    docstring, function = ast.parse(sources["__init__.py"]).body
    assert isinstance(docstring.value, ast.Constant)
    assert isinstance(function, ast.FunctionDef)
    assert (function.name, len(function.args.args)) == ("classFactory", 1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from PyQt5.QtCore import Qt", ["PyQt5.QtCore.Qt"]),
        ("import PyQt6", ["PyQt6"]),
        ("from qgis.gui import QgsMapCanvas", ["qgis.gui.QgsMapCanvas"]),
        ("import qgis.gui", ["qgis.gui"]),
        ("from qgis import gui", ["qgis.gui"]),
        ("from qgis.PyQt import QtWidgets", ["qgis.PyQt.QtWidgets"]),
        ("def f():\n    from qgis.utils import iface", ["qgis.utils.iface"]),
        ("import qgis.utils\nqgis.utils.iface.mainWindow()", ["qgis.utils.iface"]),
        ("from qgis.PyQt.QtGui import QIcon\nfrom qgis.utils import plugins\nfrom . import gui", []),
    ],
)
def test_import_check_knows_its_patterns(text, found):
    findings = import_findings("processing_algorithms/a.py", text)
    assert len(findings) == len(found)
    assert all(name in finding for name, finding in zip(found, findings))


def test_plugin_file_may_use_the_window():
    assert import_findings("telcoloc_qgis/plugin.py", "import qgis.gui\nfrom qgis.PyQt.QtWidgets import QAction") == []
    assert import_findings("telcoloc_qgis/plugin.py", "from PyQt5.QtWidgets import QAction") != []


@pytest.mark.parametrize(
    "value",
    [
        "QgsProcessing.TypeVector",
        "QgsProcessing.TypeVectorPoint",
        "QgsProcessingParameterNumber.Double",
        "QgsProcessingParameterDefinition.FlagAdvanced",
        "QgsFeatureSink.FastInsert",
        "QgsWkbTypes.Point",
        "Qgis.Warning",
        "Qt.AlignLeft",
        "Qt.UTC",
        "QVariant.Double",
        "Q.AlignLeft",
        "core.QgsProcessing.TypeVector",
        "qgis.core.QgsProcessing.TypeVector",
        "QtCore.Qt.AlignLeft",
    ],
)
def test_enum_check_finds_unscoped(value):
    text = (
        "import ast, qgis.core\nfrom qgis import core\nfrom qgis.core import (Qgis, QgsFeatureSink, QgsProcessing,\n"
        "QgsProcessingParameterDefinition, QgsProcessingParameterNumber, QgsWkbTypes)\nfrom qgis.PyQt import QtCore\n"
        f"from qgis.PyQt.QtCore import Qt, QVariant\nfrom qgis.PyQt.QtCore import Qt as Q\nf(a, b=[{value}])"
    )
    assert len(enum_findings("a.py", text)) == 1


@pytest.mark.parametrize(
    "value",
    [
        "QgsProcessing.SourceType.TypeVectorPoint",
        "Qgis.ProcessingSourceType.VectorPoint",
        "Qgis.QGIS_VERSION_INT",
        "Qt.AlignmentFlag.AlignLeft",
        "QgsProcessing.TEMPORARY_OUTPUT",
        "QgsVectorFileWriter.SaveVectorOptions()",
        "isinstance(x, Qgis.WkbType)",
        "QgsProcessingParameterNumber.Type.Double",
        "QgsProject.instance",
        "Own.Value",
    ],
)
def test_enum_check_leaves_the_rest_alone(value):
    text = (
        "from qgis.core import Qgis, QgsProcessing, QgsProcessingParameterNumber, QgsProject, QgsVectorFileWriter\n"
        f"from qgis.PyQt.QtCore import Qt\nfrom .own import Own\n{value}"
    )
    assert enum_findings("a.py", text) == []


@pytest.mark.parametrize("text", ["dialog.exec_()", "QRegExp('a')", "QVariant.Type.Double", "self.FlagNoThreading"])
def test_gone_check_knows_its_patterns(text):
    assert gone_findings("a.py", text) != []
    assert gone_findings("a.py", "dialog.exec()\nQRegularExpression('a')\nQMetaType.Type.Double") == []
