"""``scanner schemas``: the JSON Schema of every file and message, generated from the models."""

from __future__ import annotations

import json
from pathlib import Path

import click

from scanner.atomic_file import write_atomically
from scanner.config import RunConfig
from scanner.cutouts.store import StoreAttributes
from scanner.ensemble.bundle import BundleManifest
from scanner.ensemble.bundles import PublishedBundle
from scanner.evaluation.benchmark import BenchmarkResult
from scanner.evaluation.results import Evaluation
from scanner.explain.stage import ExplainJob
from scanner.grading.campaign import Campaign, NewCampaign
from scanner.grading.crowd import Agreement, Crowd
from scanner.grading.training_set import GradedSetRecord
from scanner.imaging_surveys import ImagingSurvey
from scanner.labels.importing import ImportedSetRecord
from scanner.modelling.lens_model import LensModel
from scanner.modelling.radius_network import RadiusManifest
from scanner.modelling.stage import ModelJob
from scanner.records import CommitRecord, FailedTile, Record, SealedRecord, Tile
from scanner.recovery.look import LookJob
from scanner.recovery.scan import RecoveryJob
from scanner.recovery.selection import SelectionFunction
from scanner.recovery.stage import RecoveryRecord
from scanner.report.explanations import AtlasRecord, Explanation, PageRecord
from scanner.service.settings import ServiceConfig
from scanner.simulation.datasets.dataset import DatasetRecord
from scanner.simulation.euclidise import EuclidisedRecord
from scanner.simulation.injection.places import InjectionRecord
from scanner.sky.prepare import PreparedTile
from scanner.storage.lease import LeaseRecord
from scanner.survey.candidate_stage import CandidatesOutcome
from scanner.survey.folder.fingerprint import Versions
from scanner.survey.folder.ledger import RunRecord
from scanner.survey.messages import (
    CutOutcome,
    TileJob,
    TileOutcome,
    TileProgress,
)
from scanner.survey.objects import ReplayReport
from scanner.survey.published import SurveyRecord, VersionRecord
from scanner.survey.scan.output import HandoverRecord
from scanner.survey.status import RunStatus
from scanner.training.adaptation import AdaptationPlan, DividedSetRecord
from scanner.training.checkpoint import MirrorRecord

#: File name of the schema → model. Files a user meets first, then the messages between driver and workers.
MODELS: dict[str, type[Record]] = {
    "run-config": RunConfig,
    "service-config": ServiceConfig,
    "run": RunRecord,
    "run-status": RunStatus,
    "commit": CommitRecord,
    "survey": SurveyRecord,
    "survey-version": VersionRecord,
    "lease": LeaseRecord,
    "bundle": BundleManifest,
    "published-bundle": PublishedBundle,
    "training-mirror": MirrorRecord,
    "cutout-store": StoreAttributes,
    "dataset": DatasetRecord,
    "graded-set": GradedSetRecord,
    "imported-set": ImportedSetRecord,
    "agreement": Agreement,
    "campaign": Campaign,
    "new-campaign": NewCampaign,
    "crowd": Crowd,
    "injection": InjectionRecord,
    "adaptation-plan": AdaptationPlan,
    "divided-set": DividedSetRecord,
    "euclidised": EuclidisedRecord,
    "imaging-survey": ImagingSurvey,
    "prepared-tile": PreparedTile,
    "evaluation": Evaluation,
    "benchmark": BenchmarkResult,
    "atlas": AtlasRecord,
    "object-page": PageRecord,
    "explanation": Explanation,
    "lens-model": LensModel,
    "radius-network": RadiusManifest,
    "recovery": RecoveryRecord,
    "recovery-job": RecoveryJob,
    "recovery-look-job": LookJob,
    "selection-function": SelectionFunction,
    "replay-report": ReplayReport,
    "tile": Tile,
    "failed-tile": FailedTile,
    "handover": HandoverRecord,
    "tile-job": TileJob,
    "tile-progress": TileProgress,
    "tile-outcome": TileOutcome,
    "versions": Versions,
    "cut-outcome": CutOutcome,
    "explain-job": ExplainJob,
    "model-job": ModelJob,
    "candidates-outcome": CandidatesOutcome,
}


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("schemas"), show_default=True)
def schemas(out: Path) -> None:
    """Write one NAME.schema.json a model into a folder."""
    for name in MODELS:
        write_atomically(out / f"{name}.schema.json", render(name).encode())
    click.echo(f"{len(MODELS)} schemas written to {out}")


def render(name: str) -> str:
    """One schema as text."""
    model = MODELS[name]
    schema = {"$id": f"scanner/{name}", **model.model_json_schema()}
    if issubclass(model, SealedRecord):
        schema["properties"]["checksum"] = {
            "description": "SHA-256 of the record without this line, which is its last",
            "pattern": "^[0-9a-f]{64}$",
            "title": "Checksum",
            "type": "string",
        }
        schema["required"].append("checksum")
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
