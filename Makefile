# `make` alone lists the commands. Each first sets up what is missing (Debian 12 or 13) and is quick the second time.
SHELL := /bin/bash
PYTHON := .venv/bin/python
export QT_QPA_PLATFORM := offscreen
export XDG_RUNTIME_DIR := $(CURDIR)/.qgis/runtime
export QGIS_CUSTOM_CONFIG_PATH := $(CURDIR)/.qgis
export PROJ_DATA := /usr/share/proj
export TELCOLOC_ROOT := $(CURDIR)
# torch lives in .venv; the window finds it there, as `make run` does
WINDOW = env -u QT_QPA_PLATFORM PYTHONPATH=$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))') qgis --nologo --noversioncheck --profiles-path .qgis

.PHONY: help setup run test gui package bench weights screenshots format check clean
help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s $$'\t'

setup:  ## install what is missing: QGIS, Debian's scientific Python, .venv with torch, a QGIS profile of our own
	@bash scripts/setup.sh

run: setup  ## geolocate the sample city headless, or BS=your_layer.gpkg [ID=field] [BOUNDARY=polygons.gpkg]
	@bash scripts/run.sh "$(BS)" "$(ID)" "$(BOUNDARY)"

test: setup  ## run all tests (PYTEST="-k spdi" to choose)
	@$(PYTHON) -m pytest $(PYTEST)

gui: setup  ## open QGIS with the plugin and the sample project
	@$(WINDOW) resources/sample_city/sample_city.qgz

package: setup  ## build build/telcoloc-VERSION.zip and check it as the plugin repository does
	@$(PYTHON) scripts/package.py
	@$(PYTHON) -m pytest -q tests/test_package.py

bench: setup  ## repeat every number of the README and docs/benchmarks.md (BENCH="--only spdi_speed" to choose)
	@$(PYTHON) benchmarks/run.py $(BENCH)

weights: setup  ## make the weights that ship (KINDS="deepmend_beta" to choose; OPTIONS="--device cuda" for the paper's size)
	@$(PYTHON) scripts/module.py telcoloc.models.training.make $(or $(KINDS),deepmend_beta voronoiboost direct deepmend) $(OPTIONS)

screenshots: setup  ## take the pictures of the docs: maps by their commands, and a real QGIS window under Xvfb
	@$(PYTHON) scripts/landmark_pictures.py
	@timeout 400 xvfb-run -a -s "-screen 0 1600x1000x24" $(WINDOW) --code scripts/screenshots.py

format: setup  ## format the code
	@$(PYTHON) -m ruff format . && $(PYTHON) -m ruff check --fix .

check: setup  ## lint and check types
	@$(PYTHON) -m ruff check . && $(PYTHON) -m mypy

clean:  ## remove what was built; .venv and .qgis stay
	rm -rf build
