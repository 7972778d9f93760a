"""Models the candidates of a finished run: a stage of Dask tasks, one for some candidates of a tile; and reads what it wrote.

A candidate's files lie in ``models/TILE/TARGET/`` of the run folder, ``model.json`` last: a model is there whole or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from scanner import __version__
from scanner.config import RunConfig
from scanner.errors import ContentError, ScannerError, UnavailableError
from scanner.modelling import panels
from scanner.modelling.candidate import LensModel, model_cutout, table_of
from scanner.records import FailedTile, Record, Tile
from scanner.sky import tile_list
from scanner.storage import Store, open_store
from scanner.survey.candidate_cutouts import candidate_cutouts
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.messages import TileProgress
from scanner.survey.scan.scratch import sweep_scratch
from scanner.survey.workers.engine import run_on_workers
from scanner.survey.workers.steps import OnProgress, Steps

MODELS, RECORD, PICTURE, IMAGES, TABLE = "models", "model.json", "panels.png", "model.fits", "models.parquet"
#: Candidates of one task: what a killed worker loses.
CANDIDATES_PER_JOB = 8


class ModelJob(Record):
    """Candidates of one tile that are to be modelled."""

    run_folder: str
    tile: Tile
    config: RunConfig
    bundle_fingerprint: str
    target_ids: tuple[int, ...]


class ModelOutcome(Record):
    """Outcome of a job: how many candidates are modelled, why others are not; ``temporary``: to be tried again."""

    tile_id: str
    n_done: int
    reason: str = ""
    temporary: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether all candidates are modelled."""
        return not self.reason

    @property
    def retry_reason(self) -> str | None:
        """Why it failed, where another attempt may fare better."""
        return self.reason if self.temporary else None

    @classmethod
    def given_up(cls, tile_id: str, reason: str) -> ModelOutcome:
        """The outcome of a job that is not tried any more."""
        return cls(tile_id=tile_id, n_done=0, reason=reason)


@dataclass(frozen=True)
class ModelReport:
    """``n_before`` of the candidates were modelled already, ``n_done`` by this call; ``failed``: tiles with reasons.

    ``models``: of all that were asked for and are there, in the order of the rows, and ``ranks``, of each of them.
    """

    n_before: int
    n_done: int
    failed: tuple[FailedTile, ...]
    models: tuple[LensModel, ...]
    ranks: tuple[int, ...]


def model_run(folder: RunFolder, config: RunConfig, rows: pa.Table, on_progress: Callable[[int, int], None]) -> ModelReport:
    """Model objects of a run; what is modelled already is not done again. Writes ``models.parquet``, of all models there are.

    Parameters
    ----------
    folder, config
        The run, and how it is worked on: where the workers are.
    rows
        The objects, with the columns ``rank``, ``tile_id`` and ``target_id``; the table keeps their order, then comes what was
        modelled before.
    on_progress
        Called with the number of objects modelled and their number, before the first and after each task.

    Raises
    ------
    ScannerError
        The scheduler does not answer, or the run folder cannot be written.
    """
    record = folder.record()
    tiles = tile_list.read(record.tile_list, config.storage).tiles
    wanted = list(zip(rows["tile_id"].to_pylist(), rows["target_id"].to_pylist(), strict=True))
    with folder.store.held():
        todo = _unmodelled(folder, wanted)
        n_done, n_before = 0, len(wanted) - sum(map(len, todo.values()))
        on_progress(n_before, len(wanted))
        jobs = [
            ModelJob(
                run_folder=folder.location,
                tile=tiles[tile_id],
                config=config,
                bundle_fingerprint=record.bundle_fingerprint,
                target_ids=tuple(ids[start : start + CANDIDATES_PER_JOB]),
            )
            for tile_id, ids in sorted(todo.items())
            for start in range(0, len(ids), CANDIDATES_PER_JOB)
        ]
        failed: dict[str, FailedTile] = {}
        with closing(run_on_workers(jobs, len(jobs), config, MODELLING)) as outcomes:
            for outcome in outcomes:
                n_done += outcome.n_done
                if outcome.reason:
                    failed[outcome.tile_id] = FailedTile(tile_id=outcome.tile_id, reason=outcome.reason)
                on_progress(n_before + n_done, len(wanted))
        ranked = zip(rows["rank"].to_pylist(), wanted, strict=True)
        there = [(rank, model) for rank, place in ranked if (model := read(folder.store, *place)) is not None]
        models = [model for _, model in there]
        others = [place for place in _modelled(folder.store) if place not in set(wanted)]
        found = models + [model for place in others if (model := read(folder.store, *place)) is not None]
        with folder.staged_results(record, config.engine.scratch) as staging:
            pyarrow.parquet.write_table(table_of(found), staging / TABLE, write_page_checksum=True)
    failures = tuple(failed[tile_id] for tile_id in sorted(failed))
    return ModelReport(n_before, n_done, failures, tuple(models), tuple(rank for rank, _ in there))


def key(tile_id: str, target_id: int) -> str:
    """Key of a model's folder in its run folder."""
    return f"{MODELS}/{tile_id}/{target_id}"


def read(store: Store, tile_id: str, target_id: int) -> LensModel | None:
    """The model of an object; None where there is none.

    Raises
    ------
    ContentError
        It is damaged.
    """
    record = f"{key(tile_id, target_id)}/{RECORD}"
    try:
        content = store.read(record)
    except FileNotFoundError:
        return None
    folder = store.where(key(tile_id, target_id))
    return LensModel.from_bytes(content, store.where(record), f"remove {folder} and model it again")


def read_file(store: Store, model: LensModel, name: str) -> bytes:
    """One of the files beside a model: :data:`PICTURE` or :data:`IMAGES`.

    Raises
    ------
    ContentError
        It is not there: the object was refused, or the file has gone.
    """
    place = "/".join(part for part in (key(model.tile_id, model.target_id), model.place, name) if part)
    try:
        return store.read(place)
    except FileNotFoundError:
        why = (
            f"there is no model ({model.reason})"
            if model.status == "refused"
            else "missing; remove its folder and model it again"
        )
        raise ContentError(f"{store.where(place)}: {why}.") from None


def _modelled(store: Store) -> list[tuple[str, int]]:
    """Every object that has a model, in order."""
    places = (name.split("/") for name in store.names(MODELS))
    return sorted((place[0], int(place[1])) for place in places if len(place) == 3 and place[2] == RECORD)


def _unmodelled(folder: RunFolder, wanted: list[tuple[str, int]]) -> dict[str, list[int]]:
    """Targets by tile that have no model, or one of other input files or another version."""
    inputs: dict[str, str | None] = {}
    todo: dict[str, list[int]] = {}
    for tile_id, target_id in wanted:
        if tile_id not in inputs:
            commit = folder.commit_of(tile_id)
            inputs[tile_id] = None if commit is None else commit.input_fingerprint
        known = read(folder.store, tile_id, target_id)
        if known is None or (known.input_fingerprint, known.scanner_version) != (inputs[tile_id], __version__):
            todo.setdefault(tile_id, []).append(target_id)
    return todo


def model_tile(job: ModelJob, on_progress: OnProgress) -> ModelOutcome:
    """Model the candidates of a job on a worker, those that are modelled already too."""
    n_done, n_targets = 0, len(job.target_ids)
    reason, temporary = "", False
    on_progress(TileProgress(tile_id=job.tile.tile_id, n_done=0, n_targets=n_targets))
    try:
        for n_done in _model(job):
            on_progress(TileProgress(tile_id=job.tile.tile_id, n_done=n_done, n_targets=n_targets))
    except ScannerError as error:
        reason, temporary = str(error), isinstance(error, UnavailableError)
    return ModelOutcome(tile_id=job.tile.tile_id, n_done=n_done, reason=reason, temporary=temporary)


def _model(job: ModelJob) -> Iterator[int]:
    """Model one candidate after the other; yields how many are written."""
    folder = RunFolder(open_store(job.run_folder, job.config.storage))
    tile_id = job.tile.tile_id
    commit = folder.commit_of(tile_id)
    if commit is None:
        raise ContentError(f"{folder.store.where(folder.tile(tile_id))}: its commit record has gone; run again.")
    table = folder.scores(commit)
    rows = table.take(np.flatnonzero(np.isin(table["target_id"].to_numpy(), job.target_ids)))
    cutouts = candidate_cutouts(rows, folder, {tile_id: job.tile}, job.config)
    scratch = None if job.config.engine.scratch is None else Path(job.config.engine.scratch)
    for row in range(0 if cutouts is None else len(cutouts)):
        assert cutouts is not None
        cutout = cutouts.take(np.array([row]))
        target_id = int(cutout.targets.target_id[0])
        model, images = model_cutout(cutout, tile_id, commit.input_fingerprint)
        with folder.store.staged(key(tile_id, target_id), RECORD, scratch) as staging:
            if images is not None:
                (staging.path / PICTURE).write_bytes(panels.picture(model, images))
                (staging.path / IMAGES).write_bytes(panels.fits_bytes(model, images))
            (staging.path / RECORD).write_bytes(model.model_copy(update={"place": staging.place}).to_bytes())
        yield row + 1


def _prepare(job: ModelJob, scores: bool) -> str:
    """Nothing to load: no network is asked."""
    return job.bundle_fingerprint


MODELLING = Steps(outcome=ModelOutcome, doing="modelling", prepare=_prepare, whole=model_tile, sweep=sweep_scratch)
