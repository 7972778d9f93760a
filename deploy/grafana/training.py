"""The dashboard of a training: how far each network is, whether it learns, whether what it learnt is saved."""

from __future__ import annotations

from typing import Any

from layout import RATE, WHICH, Rows, dashboard, panel
from machines import disk, memory, processors

STATES = ("preparing", "training", "done", "failed", "interrupted")
COLOURS = ("blue", "green", "green", "red", "orange")


def by_member(metric: str) -> dict[str, str]:
    """One curve a network."""
    return {"{{member}}": f"max by (member) ({metric}{{{WHICH}}})"}


def rows() -> Rows:
    """Panels by row."""
    state = " or ".join(
        f'(max by (instance) (scanner_training_state{{{WHICH}, state="{state}"}}) == 1) * {number}'
        for number, state in enumerate(STATES, start=1)
    )
    return {
        "How far it is": [
            panel(
                "stat",
                "State",
                "none",
                "What the job is doing.",
                {"{{instance}}": state},
                4,
                mappings=[
                    {
                        "type": "value",
                        "options": {
                            str(number): {"text": text, "color": colour, "index": number - 1}
                            for number, (text, colour) in enumerate(zip(STATES, COLOURS, strict=True), start=1)
                        },
                    }
                ],
            ),
            panel(
                "stat",
                "Networks",
                "none",
                "Of those that are to be trained.",
                {"{{state}}": f"sum by (state) (scanner_training_members{{{WHICH}}})"},
                8,
            ),
            panel(
                "stat",
                "Since the last checkpoint",
                "s",
                "One is saved every minute; what comes after it is lost with the pod.",
                {
                    "on this disk": f"time() - max(scanner_training_checkpoint_timestamp_seconds{{{WHICH}}} > 0)",
                    "at the mirror": f"time() - max(scanner_training_mirror_timestamp_seconds{{{WHICH}}} > 0)",
                },
                8,
                steps=[{"color": "green", "value": None}, {"color": "orange", "value": 300}, {"color": "red", "value": 1800}],
            ),
            panel(
                "stat",
                "Copies that failed",
                "none",
                "Checkpoints that did not reach the mirror within an hour.",
                {"failed": f"sum(increase(scanner_training_mirror_failures_total{{{WHICH}}}[1h]))"},
                4,
                steps=[{"color": "green", "value": None}, {"color": "red", "value": 1}],
            ),
            panel(
                "timeseries",
                "Progress",
                "percentunit",
                "Share of the planned steps that are made, over all stages.",
                by_member("scanner_training_progress_ratio"),
                8,
                max=1,
            ),
            panel(
                "timeseries",
                "Passes",
                "none",
                "Passes over the training objects, earlier sittings included.",
                by_member("scanner_training_passes"),
                8,
            ),
            panel(
                "timeseries",
                "Pace",
                "suffix: objects/s",
                "Objects that each network is trained on; a network that stands still waits for its turn, or hangs.",
                {"{{member}}": f"sum by (member) (rate(scanner_training_objects_total{{{WHICH}}}[{RATE}]))"},
                8,
            ),
        ],
        "Whether it learns": [
            panel(
                "timeseries",
                "Loss of training",
                "none",
                "Mean of the batches since the validation before.",
                by_member("scanner_training_loss"),
                12,
            ),
            panel(
                "timeseries",
                "Loss of validation",
                "none",
                "It falls with the loss of training, or the network learns by heart.",
                by_member("scanner_training_validation_loss"),
                12,
            ),
            panel(
                "timeseries",
                "AUROC, all lenses",
                "percentunit",
                "Of the objects held out: how often a lens is put before what is none.",
                by_member("scanner_training_validation_auroc"),
                12,
                max=1,
            ),
            panel(
                "timeseries",
                "AUROC, lenses with visible arcs",
                "percentunit",
                "The same for lenses that a person would see.",
                by_member("scanner_training_validation_auroc_visible"),
                12,
                max=1,
            ),
        ],
        "The machines": [
            processors(),
            memory("Resident memory of the process that watches over the training; those that train are its children."),
            disk("The file system of the runs. A full disk stops the training; checkpoints stay.") | {"width": 8},
        ],
    }


def training() -> dict[str, Any]:
    """The dashboard."""
    return dashboard(
        "scanner-training",
        "scanner: training",
        "A training of the seven networks: how far each is, whether it learns, whether what it learnt is saved.",
        rows(),
        "scanner_training_state",
    )
