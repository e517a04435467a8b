"""The commands of the pages name algorithms, parameters and choices that exist; `make screenshots` runs those of landmarks.md."""

import re
import shlex

import pytest
from processing_helpers import ROOT
from qgis.core import QgsProcessingParameterDefinition, QgsProcessingParameterEnum

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def commands(page):
    """(algorithm, [(parameter, value), …]) of every command in the page's shell blocks."""
    for block in re.findall(r"^\s*```sh\n(.*?)^\s*```", page.read_text("utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["qgis_process", "run"] and words[2].startswith("telcoloc:"):
                options = [re.fullmatch(r"--(\w+)=(.*)", word, re.S) for word in words[3:]]
                yield words[2].partition(":")[2], [each.groups() for each in options if each]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_what_exists(provider, page):
    optional = QgsProcessingParameterDefinition.Flag.FlagOptional
    for name, options in commands(page):
        algorithm = provider.algorithm(name)
        assert algorithm is not None, name
        known = {each.name(): each for each in algorithm.parameterDefinitions()}
        given = [key for key, _ in options if key != "project_path"]
        assert set(given) <= set(known), f"{name}: {set(given) - set(known)}"
        needed = [key for key, each in known.items() if not each.flags() & optional and each.defaultValue() is None]
        assert set(needed) <= set(given), f"{name}: {set(needed) - set(given)} is missing"
        for key, value in options:
            if key in known and isinstance(known[key], QgsProcessingParameterEnum) and not value.startswith("$"):
                assert value in known[key].options(), f"{name}: {key}={value}"


def test_the_way_from_base_stations_to_the_tracking_map_is_there():
    steps = [name for name, _ in commands(ROOT / "docs" / "landmarks.md")]
    way = ["pathlossmaps", "sensibilitymap", "signalcandidates", "matchlandmarks", "tracklandmarks", "trackingmap"]
    assert [name for name in steps if name in way][: len(way)] == way


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_and_pages_linked_to_are_there(page):
    for link in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"
