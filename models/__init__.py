"""The science: plain functions of arrays and frozen dataclasses. Nothing here imports qgis."""
