"""`telcoloc:traindeepmend`: train or fine-tune a geolocation method on one's own truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
)

from ..models.errors import InputError
from ..telcoloc_qgis import charts
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.truths import Truth, read_truth, report
from ..telcoloc_qgis.weights import WINDOWS, describe, weights_of

if TYPE_CHECKING:
    from pathlib import Path

    from ..models.training.train import Trained, TrainSettings
    from ..models.weights_file import Weights

METHODS = ("deepmend_beta", "deepmend", "direct")
STARTS = ("scratch", "shipped", "file")


class TrainDeepMend(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "traindeepmend"
    TITLE = "Train DeepMEND"
    GROUP = "Training"
    SUMMARY = (
        "Train or fine-tune a geolocation method on your own truth; the weights file goes to 'Geolocate base stations'."
    )
    DESCRIPTION = (
        "Learns from true maps how base stations (BSs) serve their surroundings, and writes a weights file that 'Geolocate base stations' "
        "takes as WEIGHTS. Needs torch; a GPU is used where there is one.\n\n"
        "deepmend_beta learns the parameters of spdi from each BS's neighbourhood. deepmend is the paper's neural network: a teacher first "
        "finds the β of each BS whose sPDI map comes nearest to the truth, and the network learns these maps. direct is the same network "
        "that learns the truth itself.\n\n"
        "What is judged is never learned from. Of several truths whole ones are held out; of a single one the BSs on one side of a line "
        "through the network, so that no BS to judge by lies amid those learned from. The epoch that does best on them is kept. BSs nearer "
        "than two local spacings to the edge of their truth are left out, because what surrounds them is unknown.\n\n"
        "Truths are stacks as 'Geolocate base stations' or 'Simulate a network' writes them, or rasters in metres with one band per BS, "
        "described by the BS's id, that sums to one over cells (or all bands at each cell). On one computer, equal data, settings and "
        "seeds make equal weights."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:traindeepmend --INPUT=simulated.gpkg --ID_FIELD=bs_id --TRUTH=simulated.tif --START=scratch --EPOCHS=2 "
        "--OUTPUT=mine.safetensors --LOSS_CURVE=training.html"
    )
    TAGS = (
        "telecom",
        "deepmend",
        "training",
        "fine-tuning",
        "weights",
        "deep learning",
        "neural network",
        "torch",
        "cuda",
    )
    ICON = "train.svg"

    def define(self) -> None:
        number = QgsProcessingParameterNumber
        self.add(
            QgsProcessingParameterFeatureSource(
                "INPUT", self.tr("Base stations"), [QgsProcessing.SourceType.TypeVectorPoint]
            ),
            self.tr("Point layer of base stations in any CRS: all of the networks, also those without a true map."),
        )
        self.add(
            QgsProcessingParameterField(
                "ID_FIELD", self.tr("Id field"), parentLayerParameterName="INPUT", optional=True
            ),
            self.tr("Field that names the BS as the truths' bands do. Without it the feature id is used."),
        )
        self.add(
            QgsProcessingParameterMultipleLayers("TRUTH", self.tr("Truths"), QgsProcessing.SourceType.TypeRaster),
            self.tr("One or several stacks that count as the truth: one band per BS, described by the BS id."),
        )
        self.add(
            QgsProcessingParameterEnum(
                "METHOD", self.tr("Method"), list(METHODS), defaultValue=METHODS[0], usesStaticStrings=True
            ),
            self.tr("What to train: deepmend_beta (minutes on a CPU), deepmend or direct (better on a GPU)."),
        )
        self.add(
            QgsProcessingParameterEnum(
                "START", self.tr("Start from"), list(STARTS), defaultValue=STARTS[0], usesStaticStrings=True
            ),
            self.tr(
                "scratch: random weights. shipped: go on from those that ship with the plugin, the better choice with a small truth. file: "
                "go on from WEIGHTS."
            ),
        )
        self.add(
            QgsProcessingParameterFile(
                "WEIGHTS", self.tr("Weights to start from"), extension="safetensors", optional=True
            ),
            self.tr("Weights file of the same method and window, for START file."),
        )
        self.add(
            QgsProcessingParameterEnum(
                "WINDOW",
                self.tr("Window (deepmend, direct)"),
                list(WINDOWS),
                defaultValue=WINDOWS[0],
                usesStaticStrings=True,
            ),
            self.tr(
                "adaptive: 64 x 64 cells that follow the BS's local spacing. fixed: the paper's 600 x 600 cells of 100 m; the truths' "
                "cells must be 100 m or a whole fraction of it, and a CPU learns from parts of it."
            ),
            advanced=True,
        )
        self.add(
            number("EPOCHS", self.tr("Epochs"), number.Type.Integer, None, True, 1, 10_000),
            self.tr("Passes over the data. Empty: what suits the method on a CPU, see the log; the paper's are 100."),
        )
        self.add(
            number("LEARNING_RATE", self.tr("Learning rate"), number.Type.Double, None, True, 1e-7, 0.5),
            self.tr(
                "Largest step of Adam; it rises at the beginning and falls towards the end. Empty: what suits the method, and a fifth of "
                "that when going on from weights; see the log."
            ),
            advanced=True,
        )
        self.add(
            number("BATCH", self.tr("Batch"), number.Type.Integer, None, True, 1, 4096),
            self.tr("BSs per step. Empty: what suits the method, see the log."),
            advanced=True,
        )
        self.add(
            number("VALIDATION_SHARE", self.tr("Share to judge by"), number.Type.Double, 0.2, False, 0.0, 0.5),
            self.tr(
                "Share of the truths, at least one, that is held out; with a single truth the share of its BSs on one side of a line. 0: "
                "learn from all and keep the last epoch, unjudged."
            ),
        )
        self.add(
            number("SEED", self.tr("Seed"), number.Type.Integer, 0, False, 0, 2**31 - 1),
            self.tr("Of what is held out, the random weights, and the order of the BSs."),
        )
        self.add(
            number("MAX_MEMORY_MB", self.tr("Memory budget [MB]"), number.Type.Integer, 4096, False, 64),
            self.tr("Most memory the windows to learn from may take. More is refused before training starts."),
            advanced=True,
        )
        self.add_device()
        self.add(
            QgsProcessingParameterFileDestination(
                "OUTPUT", self.tr("Weights"), self.tr("Weights files (*.safetensors)")
            ),
            self.tr("The weights file, with a card inside: data, seed, epochs, device, and KS2 by urbanisation."),
        )
        self.add(
            QgsProcessingParameterFileDestination(
                "LOSS_CURVE", self.tr("Report"), self.tr("HTML files (*.html)"), optional=True, createByDefault=True
            ),
            self.tr("Page with the loss and the KS2 of each epoch, and the outcome by urbanisation."),
        )
        for name, label, text in (
            ("VALIDATION_KS2", "Median KS2", "Median KS2 of whole maps on the BSs to judge by."),
            ("TRAIN_LOSS", "Loss", "Loss of the epoch that is kept on the BSs learned from."),
            ("EPOCHS_DONE", "Epochs done", "Number of epochs."),
            ("BS_COUNT", "Base stations learned from", "Number of base stations learned from."),
            ("VALIDATION_COUNT", "Base stations to judge by", "Number of base stations held out."),
            ("SKIPPED", "Not matched", "Number of BSs without a band or with an empty one, and of bands without a BS."),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        self.add_result(QgsProcessingOutputString("DEVICE_USED", self.tr("Device used")), self.tr("cpu or cuda."))

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.training.train import TrainSettings, require_training, train
        from ..models.weights_file import write_weights

        parameters = run.parameters
        require_training()
        method, window = parameters.choice("METHOD"), parameters.choice("WINDOW")
        start, started_from = _start(run, method)
        device = run.device()
        source = parameters.source("INPUT")
        id_field = parameters.field("ID_FIELD", source)
        truths = self._truths(run, source, id_field)
        skipped = report(run, truths)
        settings = TrainSettings(
            method=method,
            window=window,
            epochs=parameters.integer("EPOCHS"),
            learning_rate=parameters.number("LEARNING_RATE"),
            batch=parameters.integer("BATCH"),
            validation_share=parameters.number("VALIDATION_SHARE"),
            seed=parameters.integer("SEED"),
            start=start,
            device=device,
            threads=run.threads,
            memory_mb=parameters.number("MAX_MEMORY_MB"),
            data=f"{len(truths)} truths given by the user: " + ", ".join(truth.network.name for truth in truths),
        )
        epochs, rate, batch = settings.resolved
        run.info(f"{method} from {started_from}: {epochs} epochs, learning rate {rate:g}, batch {batch}.")
        networks = [truth.network for truth in truths]
        trained = train(networks, settings, run.progress.phase(self.tr("Training"), 0.1, 0.98))
        _report_split(run, trained)
        write_weights(run.outputs.file("OUTPUT", ".safetensors"), trained.weights)
        if parameters.wants("LOSS_CURVE"):
            page = _page(trained, settings, started_from)
            run.outputs.file("LOSS_CURVE", ".html").write_text(page, encoding="utf-8")
        return {
            "VALIDATION_KS2": trained.ks2.get("all"),
            "TRAIN_LOSS": float(trained.history[trained.kept]["train_loss"]),
            "EPOCHS_DONE": len(trained.history),
            "BS_COUNT": trained.split.learned,
            "VALIDATION_COUNT": trained.split.judged,
            "SKIPPED": skipped,
            "SECONDS": round(run.seconds, 2),
            "DEVICE_USED": device,
        }

    def _truths(self, run: Run, source: Any, id_field: str | None) -> list[Truth]:  # noqa: ANN401
        rasters = self.raster_sources("TRUTH")
        truths: list[Truth] = []
        for index, raster in enumerate(rasters):
            begin, end = 0.1 * index / len(rasters), 0.1 * (index + 1) / len(rasters)
            reading = run.progress.phase(f"Reading {raster[1]}", begin, end)
            truths.append(read_truth(run, source, id_field, raster, reading))
        return truths


def _start(run: Run, method: str) -> tuple[Weights | None, str]:
    """Weights to start from, and what to call them."""
    from ..models.weights_file import read_weights

    choice, given = run.parameters.choice("START"), run.parameters.given("WEIGHTS")
    if given and choice != "file":
        raise InputError(f"WEIGHTS is given, but START is '{choice}'. Choose START 'file', or leave WEIGHTS empty.")
    if choice == "file" and not given:
        raise InputError("START is 'file', but WEIGHTS is empty. Choose the weights file to start from.")
    if choice == "scratch":
        return None, choice
    path: Path = weights_of(run, method)
    return read_weights(path), describe(path)


def _report_split(run: Run, trained: Trained) -> None:
    found = trained.split
    if found.near_edge:
        run.info(f"{found.near_edge:,} base stations near the edge of their truth are neither learned from nor judged.")
    run.info(f"{found.learned:,} base stations to learn from, {found.judged:,} to judge by; {found.how}.")
    for row in trained.history:
        said = f", KS2 in windows {row['validation_ks2']:.3f}" if "validation_ks2" in row else ""
        run.info(f"Epoch {row['epoch']:.0f}: loss {row['train_loss']:.4f}{said}")
    if trained.ks2:
        run.info(
            "Median KS2 of what was held out: " + ", ".join(f"{name} {ks2:.3f}" for name, ks2 in trained.ks2.items())
        )


def _page(trained: Trained, settings: TrainSettings, started_from: str) -> str:
    epochs, rate, batch = settings.resolved
    loss = np.array([row["train_loss"] for row in trained.history])
    ks2 = np.array([row.get("validation_ks2", np.nan) for row in trained.history])
    facts = [
        ("Method", settings.method),
        ("Started from", started_from),
        ("Epochs, learning rate, batch", f"{epochs}, {rate:g}, {batch}"),
        ("Seed", f"{settings.seed}"),
        ("Device", settings.device),
        ("Learned from", f"{trained.split.learned:,} base stations"),
        ("Held out", trained.split.how),
    ]
    sections: list[charts.ChartSection | charts.TableSection] = [
        charts.ChartSection(
            "Loss",
            charts.line_chart(loss, "Loss", "Epoch", trained.kept),
            "On the base stations learned from; dot: the epoch kept.",
        )
    ]
    if np.isfinite(ks2).any():
        sections.append(
            charts.ChartSection(
                "KS2 of what is held out",
                charts.line_chart(ks2, "KS2", "Epoch", trained.kept),
                "Within windows, by which the epoch is chosen. When it rises while the loss falls, the training learns by heart.",
            )
        )
        outcome = [[name, f"{value:.3f}"] for name, value in trained.ks2.items()]
        sections.append(
            charts.TableSection("Outcome", ["Held-out base stations", "Median KS2"], outcome, "Of whole maps.")
        )
    sections.append(charts.TableSection("Training", ["", ""], facts))
    return charts.html_report("Training of DeepMEND", f"Weights for '{settings.kind}'", sections, "TelcoLoc")
