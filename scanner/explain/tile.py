"""Explain candidates of one tile: the work of one Dask task.

In: an :class:`~scanner.survey.messages.ExplainJob` as JSON. Out: explanations in the run folder, each there whole or not at
all; an :class:`~scanner.survey.messages.ExplainOutcome` as JSON, whatever befalls the tile. Refused: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scanner import __version__
from scanner.ensemble import bundles
from scanner.errors import ContentError, ScannerError, UnavailableError
from scanner.records import MemberName
from scanner.report import explanations
from scanner.report.explanations import RECORD, Explanation
from scanner.storage import open_store
from scanner.survey.candidate_cutouts import candidate_cutouts
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.messages import ExplainJob, ExplainOutcome

if TYPE_CHECKING:
    from torch import nn

    from scanner.config import StorageConfig
    from scanner.ensemble.bundle import Bundle


def explain_tile(job_json: str) -> str:
    """Explain the candidates of a job, those that are explained already too."""
    job = ExplainJob.model_validate_json(job_json)
    done: list[int] = []
    reason, passing = "", False
    try:
        _explain(job, done.append)
    except ModuleNotFoundError as error:
        reason = f"a worker lacks {error.name}, which explanations need; install 'scanner[train]' there"
    except ScannerError as error:
        reason, passing = str(error), isinstance(error, UnavailableError)
    return ExplainOutcome(tile_id=job.tile.tile_id, n_done=len(done), reason=reason, passing=passing).model_dump_json()


def _explain(job: ExplainJob, on_done: Callable[[int], None]) -> None:
    """Explain one candidate after the other; ``on_done`` is told the target of each that is written."""
    import torch

    from scanner.explain.candidate import METHODS, explained, write_files

    # One thread: sums of several threads differ in their last bits from run to run.
    torch.set_num_threads(1)
    folder = RunFolder(open_store(job.run_folder, job.config.storage))
    commit = folder.commit_of(job.tile.tile_id)
    if commit is None:
        raise ContentError(f"{folder.store.where(folder.tile(job.tile.tile_id))}: its commit record has gone; run again.")
    bundle, networks = _networks(job.bundle, job.bundle_fingerprint, job.config.storage)
    table = folder.scores(commit)
    rows = table.take(np.flatnonzero(np.isin(table["target_id"].to_numpy(), job.target_ids)))
    cutouts = candidate_cutouts(rows, folder, (job.tile,), job.config)
    scratch = None if job.config.engine.scratch is None else Path(job.config.engine.scratch)
    for candidate in () if cutouts is None else explained(bundle, networks, cutouts):
        target_id = int(candidate.cutout.targets.target_id[0])
        with explanations.staged(folder.store, job.tile.tile_id, target_id, scratch) as staging:
            write_files(candidate, staging.path)
            record = Explanation(
                tile_id=job.tile.tile_id,
                target_id=target_id,
                input_fingerprint=commit.input_fingerprint,
                bundle_fingerprint=job.bundle_fingerprint,
                scanner_version=__version__,
                probabilities=tuple(candidate.votes.probabilities[0].tolist()),
                votes=int(candidate.votes.votes[0]),
                spread=float(candidate.votes.spread[0]),
                disagreement_bits=float(candidate.votes.disagreement_bits[0]),
                methods=METHODS,
                place=staging.place,
            )
            (staging.path / RECORD).write_bytes(record.to_bytes())
        on_done(target_id)


@lru_cache(maxsize=1)
def _networks(location: str, fingerprint: str, storage: StorageConfig) -> tuple[Bundle, Mapping[MemberName, nn.Sequential]]:
    from scanner.explain.networks import restore

    bundle = bundles.load(location, storage)
    if bundle.fingerprint != fingerprint:
        raise ContentError(f"{location}: not the bundle of this run (fingerprint {bundle.fingerprint[:12]}); run again.")
    return bundle, restore(bundle)
