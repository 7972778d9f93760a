"""Models objects of a finished run: a stage of Dask tasks, one for some objects of a tile; its table and the candidate list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from scanner import __version__
from scanner.atomic_file import tree_sha256
from scanner.catalogue import columns
from scanner.catalogue.rank import listed
from scanner.config import RunConfig
from scanner.errors import ContentError
from scanner.modelling import panels
from scanner.modelling.candidate import model_cutout
from scanner.modelling.lens_model import IMAGES, MODELS, PICTURE, RECORD, LensModel, key, modelled, read, table_of
from scanner.modelling.observation import tile_psfs
from scanner.modelling.radius_network import in_use
from scanner.query.catalogue import Catalogue
from scanner.records import FailedTile, Tile
from scanner.sky import tile_list
from scanner.storage import Store, open_store
from scanner.survey.candidate_stage import (
    CandidatesJob,
    CandidatesOutcome,
    in_jobs,
    missing,
    opened,
    outcome_of,
    run_jobs,
    sweep,
)
from scanner.survey.finish import provenance_of, write_lists
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.published import CATALOGUE, open_published
from scanner.survey.scan.scratch import sweep_scratch
from scanner.survey.workers.steps import OnProgress, Steps


class ModelJob(CandidatesJob):
    """Candidates to be modelled; ``radius_network``: the fingerprint of the network that sees Einstein radii."""

    radius_network: str


#: What the stage must know of an object.
_WANTED = "rank, system_id, tile_id, target_id, is_candidate"


@dataclass(frozen=True)
class ModelReport:
    """``n_before`` of the objects were modelled already, ``n_done`` by this call; ``failed``: tiles with reasons.

    ``models``: of all that were asked for and are there, best object first, and ``ranks``, of each of them.
    """

    n_before: int
    n_done: int
    failed: tuple[FailedTile, ...]
    models: tuple[LensModel, ...]
    ranks: tuple[int, ...]


def model_run(out: str, config: RunConfig, on_progress: Callable[[int, int], None], top: int | None = None) -> ModelReport:
    """Model the best objects of a finished run; what is modelled already is not done again.

    Writes ``models.parquet``, of all models there are, and the candidate list with them.

    Parameters
    ----------
    out, config
        The run folder, and how it is worked on: where the workers are.
    on_progress
        Called with the number of objects modelled and their number, before the first and after each task.
    top
        So many objects by rank; by default the candidates that the contact sheet may show.

    Raises
    ------
    ScannerError
        The run is not finished, the scheduler does not answer, or the run folder cannot be written.
    """
    folder = RunFolder(open_store(out, config.storage))
    with folder.store.held():
        published = open_published(folder.location, storage=config.storage)
        record = folder.record()
        # Without the models of before, which another version may have written.
        catalogue = Catalogue.open(published.files.below(CATALOGUE))
        rows = _wanted(catalogue, config, top)
        wanted = list(zip(rows["tile_id"].to_pylist(), rows["target_id"].to_pylist(), strict=True))
        tiles = tile_list.read(record.tile_list, config.storage).tiles
        todo = missing(folder, wanted, lambda tile_id, *of: _is_current(folder.store, tiles[tile_id], *of))
        n_before = len(wanted) - sum(map(len, todo.values()))
        on_progress(n_before, len(wanted))
        jobs = [
            ModelJob(
                run_folder=folder.location,
                tile=tiles[tile_id],
                config=config,
                bundle_fingerprint=record.bundle_fingerprint,
                target_ids=target_ids,
                radius_network=in_use().fingerprint,
            )
            for tile_id, target_ids in in_jobs(todo)
        ]
        n_done, failed = run_jobs(jobs, config, MODELLING, lambda done: on_progress(n_before + done, len(wanted)))
        sweep(folder.store, MODELS, RECORD, todo)
        there = {place: model for place in modelled(folder.store) if (model := read(folder.store, *place)) is not None}
        with folder.staged_results(record, config.engine.scratch) as staging:
            models = table_of(there.values(), record.run_id)
            write_lists(staging, _listed(catalogue, config), provenance_of(record), models)
    ranks = [(rank, place) for rank, place in zip(rows["rank"].to_pylist(), wanted, strict=True) if place in there]
    return ModelReport(n_before, n_done, failed, tuple(there[place] for _, place in ranks), tuple(rank for rank, _ in ranks))


def _wanted(catalogue: Catalogue, config: RunConfig, top: int | None) -> pa.Table:
    """The objects to be modelled, best first."""
    shown = config.catalogue.sheet_candidates if top is None else top
    objects = catalogue.source().relation
    which = "system_id = rank" if top is None else "true"
    sql = f"SELECT {_WANTED} FROM {objects.sql} WHERE {which} ORDER BY rank LIMIT ?"
    rows = catalogue.query(sql, (*objects.parameters, shown))
    return rows.filter(rows["is_candidate"]) if top is None else rows


def _listed(catalogue: Catalogue, config: RunConfig) -> pa.Table:
    """The rows of the candidate list."""
    objects = catalogue.source().relation
    sql = f"SELECT * FROM {objects.sql} WHERE {listed(catalogue.n_rows)} ORDER BY rank LIMIT ?"
    rows = catalogue.query(sql, (*objects.parameters, config.catalogue.max_candidates))
    further = columns.further_of(catalogue.schema.names)
    return columns.as_schema(rows, columns.with_further(columns.CANDIDATE_SCHEMA, further))


def _is_current(store: Store, tile: Tile, target_id: int, input_fingerprint: str | None) -> bool:
    """Whether an object has a model, of these input files, by this version and network, with the PSFs of the tile list."""
    known = read(store, tile.tile_id, target_id)
    if known is None or (known.input_fingerprint, known.scanner_version) != (input_fingerprint, __version__):
        return False
    if known.seen_radius is not None and known.seen_radius.network != in_use().fingerprint:
        return False
    return all((source == "image") == (tile.bands[band].psf is not None) for band, source in known.psf.items())


def model_tile(job: ModelJob, on_progress: OnProgress) -> CandidatesOutcome:
    """Model the candidates of a job on a worker, those that are modelled already too."""
    return outcome_of(job, _model(job), on_progress, "modelling")


def _model(job: ModelJob) -> Iterator[int]:
    """Model one candidate after the other; yields how many are written."""
    at_hand, tile_id = opened(job), job.tile.tile_id
    psfs = tile_psfs(job.tile, at_hand.objects, job.config)
    objects = at_hand.objects
    p_calibrated = dict(zip(objects["target_id"].to_pylist(), objects["p_calibrated"].to_numpy().tolist(), strict=True))
    for row in range(len(at_hand.cutouts)):
        cutout = at_hand.cutouts.take(np.array([row]))
        target_id = int(cutout.targets.target_id[0])
        model, images = model_cutout(
            cutout,
            tile_id,
            at_hand.commit.input_fingerprint,
            at_hand.wcs,
            psfs,
            p_calibrated[target_id],
            zero_points=at_hand.zero_points,
        )
        with at_hand.folder.store.staged(key(tile_id, target_id), RECORD, at_hand.scratch) as staging:
            if images is not None:
                (staging.path / PICTURE).write_bytes(panels.picture(model, images))
                place = int(cutout.x0[0]), int(cutout.y0[0])
                (staging.path / IMAGES).write_bytes(panels.fits_bytes(model, images, at_hand.wcs, *place))
            written = model.model_copy(update={"place": staging.place, "sha256": tree_sha256(staging.path)})
            (staging.path / RECORD).write_bytes(written.to_bytes())
        yield row + 1


def _prepare(job: ModelJob, scores: bool) -> str:
    """Open the network, which must be the one that the driver has."""
    if in_use().fingerprint != job.radius_network:
        raise ContentError("a worker has another network of Einstein radii; put the same one on all machines.")
    return job.bundle_fingerprint


MODELLING = Steps(outcome=CandidatesOutcome, doing="modelling", prepare=_prepare, whole=model_tile, sweep=sweep_scratch)
