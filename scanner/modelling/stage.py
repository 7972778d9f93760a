"""Models the candidates of a finished run: a stage of Dask tasks, one for some candidates of a tile; and reads what it wrote.

A candidate's files lie in ``models/TILE/TARGET/`` of the run folder, ``model.json`` last: a model is there whole or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from scanner import __version__
from scanner.config import RunConfig
from scanner.errors import ContentError
from scanner.modelling import panels
from scanner.modelling.candidate import LensModel, model_cutout, table_of
from scanner.records import FailedTile
from scanner.sky import tile_list
from scanner.storage import Store
from scanner.survey.candidate_stage import CandidatesJob, CandidatesOutcome, in_jobs, missing, opened, outcome_of, run_jobs
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.scan.scratch import sweep_scratch
from scanner.survey.workers.steps import OnProgress, Steps

MODELS, RECORD, PICTURE, IMAGES, TABLE = "models", "model.json", "panels.png", "model.fits", "models.parquet"


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
        todo = missing(folder, wanted, lambda *place: _is_current(folder.store, *place))
        n_before = len(wanted) - sum(map(len, todo.values()))
        on_progress(n_before, len(wanted))
        jobs = [
            CandidatesJob(
                run_folder=folder.location,
                tile=tiles[tile_id],
                config=config,
                bundle_fingerprint=record.bundle_fingerprint,
                target_ids=target_ids,
            )
            for tile_id, target_ids in in_jobs(todo)
        ]
        n_done, failed = run_jobs(jobs, config, MODELLING, lambda done: on_progress(n_before + done, len(wanted)))
        ranked = zip(rows["rank"].to_pylist(), wanted, strict=True)
        there = [(rank, model) for rank, place in ranked if (model := read(folder.store, *place)) is not None]
        models = [model for _, model in there]
        others = [place for place in _modelled(folder.store) if place not in set(wanted)]
        found = models + [model for place in others if (model := read(folder.store, *place)) is not None]
        with folder.staged_results(record, config.engine.scratch) as staging:
            pyarrow.parquet.write_table(table_of(found), staging / TABLE, write_page_checksum=True)
    return ModelReport(n_before, n_done, failed, tuple(models), tuple(rank for rank, _ in there))


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


def _is_current(store: Store, tile_id: str, target_id: int, input_fingerprint: str | None) -> bool:
    """Whether an object has a model, of these input files and by this version."""
    known = read(store, tile_id, target_id)
    return known is not None and (known.input_fingerprint, known.scanner_version) == (input_fingerprint, __version__)


def model_tile(job: CandidatesJob, on_progress: OnProgress) -> CandidatesOutcome:
    """Model the candidates of a job on a worker, those that are modelled already too."""
    return outcome_of(job, _model(job), on_progress)


def _model(job: CandidatesJob) -> Iterator[int]:
    """Model one candidate after the other; yields how many are written."""
    at_hand, tile_id = opened(job), job.tile.tile_id
    for row in range(0 if at_hand.cutouts is None else len(at_hand.cutouts)):
        assert at_hand.cutouts is not None
        cutout = at_hand.cutouts.take(np.array([row]))
        target_id = int(cutout.targets.target_id[0])
        model, images = model_cutout(cutout, tile_id, at_hand.commit.input_fingerprint)
        with at_hand.folder.store.staged(key(tile_id, target_id), RECORD, at_hand.scratch) as staging:
            if images is not None:
                (staging.path / PICTURE).write_bytes(panels.picture(model, images))
                (staging.path / IMAGES).write_bytes(panels.fits_bytes(model, images))
            (staging.path / RECORD).write_bytes(model.model_copy(update={"place": staging.place}).to_bytes())
        yield row + 1


def _prepare(job: CandidatesJob, scores: bool) -> str:
    """Nothing to load: no network is asked."""
    return job.bundle_fingerprint


MODELLING = Steps(outcome=CandidatesOutcome, doing="modelling", prepare=_prepare, whole=model_tile, sweep=sweep_scratch)
