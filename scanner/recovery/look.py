"""A closer look at some painted lenses, when all have their rank: a lens model as the run's objects have, and a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanner.config import RunConfig
from scanner.cutouts.extract import cut
from scanner.errors import ContentError
from scanner.modelling.candidate import model_cutout
from scanner.modelling.lens_model import row_of
from scanner.modelling.observation import BandPsf, tile_psfs
from scanner.query.catalogue import Catalogue
from scanner.records import Band, CutoutBatch, FailedTile, Int64, Record, Targets
from scanner.recovery.lenses import MODEL_COLUMNS, SCHEMA, parquet_bytes
from scanner.recovery.scan import RecoveryJob, Seen, listed_near, painted_waves
from scanner.report.colour import colour_image
from scanner.report.self_contained import webp
from scanner.storage import Store, open_store
from scanner.survey.candidate_stage import CandidatesOutcome, commit_at_hand, in_jobs, outcome_of, run_jobs
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.scan.scratch import sweep_scratch, worker_scratch
from scanner.survey.workers.steps import OnProgress, Steps

LOOKS = "looks"
#: Pictures of each kind, found and lost; and the middle of a cutout that they show, in VIS pixels.
SHOWN, SIDE = 10, slice(50, 150)
_VALUES = tuple(item for item in MODEL_COLUMNS if item.name != "reaches_models")
#: What columns are called in ``models.parquet`` that have the name of a painted lens' own there.
_OF_MODELS = {"model_theta_e": "theta_e", "model_theta_e_err": "theta_e_err"}
PICTURES_SCHEMA: pa.Schema = pa.schema([SCHEMA.field("target_id"), pa.field("picture", pa.binary(), nullable=False)])
_LOOK_SCHEMA: pa.Schema = pa.schema([*PICTURES_SCHEMA, *(item.field() for item in _VALUES)])


class ModelReach(Record):
    """How far down a run has lens models: to this ``rank``, and of ``all_candidates`` or not."""

    rank: int
    all_candidates: bool

    @classmethod
    def of(cls, catalogue: Catalogue) -> ModelReach | None:
        """That of a run's catalogue with its models; None where there is none."""
        if "model_verdict" not in catalogue.schema.names:
            return None
        objects = catalogue.source().relation
        sql = (
            "SELECT max(rank) FILTER (model_verdict != '') AS rank,"
            " count(*) FILTER (is_candidate AND system_id = rank AND model_verdict = '') AS n_left"
            f" FROM {objects.sql}"
        )
        (row,) = catalogue.query(sql, objects.parameters).to_pylist()
        return None if row["rank"] is None else cls(rank=row["rank"], all_candidates=row["n_left"] == 0)

    def reached(self, lenses: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which painted lenses would have been modelled, (N,)."""
        rank = lenses["rank"].to_numpy()
        is_candidate = np.asarray(lenses["is_candidate"].to_numpy(), dtype=bool)
        return np.asarray((rank >= 1) & ((rank <= self.rank) | (is_candidate & self.all_candidates)))


class Look(Record):
    """A lens that is looked at: what the run lists there, its calibrated probability, and what is made of it."""

    number: int
    found_tile_id: str
    found_id: int
    probability: float | None
    is_modelled: bool
    is_pictured: bool


class LookJob(RecoveryJob):
    """Some lenses of a tile that are looked at."""

    looks: tuple[Look, ...]


def chosen(lenses: pa.Table, reach: ModelReach | None, n_models: int) -> tuple[Look, ...]:
    """Which lenses are looked at, by number.

    Modelled are ``n_models`` of the visible ones that reach the run's models, spread evenly over the recovery; pictured are
    :data:`SHOWN` visible ones that the run makes candidates of, and as many that it does not, but for those near an edge.
    """
    flags = {name: np.asarray(lenses[name].to_numpy(), dtype=bool) for name in ("is_lens", "visible", "is_candidate")}
    seen = flags["is_lens"] & flags["visible"]
    whole = seen & (np.array(lenses["fate"].to_pylist(), dtype=object) != "near an edge")
    modelled = np.zeros(len(lenses), dtype=bool) if reach is None else _spread(seen & reach.reached(lenses), n_models)
    pictured = _spread(whole & flags["is_candidate"], SHOWN) | _spread(whole & ~flags["is_candidate"], SHOWN)
    looks = []
    for row in np.flatnonzero(modelled | pictured).tolist():
        values = {name: lenses[name][row].as_py() for name in ("target_id", "found_tile_id", "found_id", "probability")}
        looks.append(
            Look(
                number=values["target_id"],
                found_tile_id=values["found_tile_id"],
                found_id=values["found_id"],
                probability=None if math.isnan(values["probability"]) else values["probability"],
                is_modelled=bool(modelled[row]),
                is_pictured=bool(pictured[row]),
            )
        )
    return tuple(looks)


def _spread(which: np.ndarray[Any, np.dtype[np.bool_]], most: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """At most so many of the rows that are marked, evenly spread."""
    rows = np.flatnonzero(which)
    taken = np.zeros(len(which), dtype=bool)
    if len(rows) and most:
        taken[rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64))]] = True
    return taken


def look_at(
    looks: Sequence[Look],
    jobs: Sequence[RecoveryJob],
    config: RunConfig,
    out: Store,
    on_progress: Callable[[int, int], None],
) -> tuple[pa.Table, tuple[FailedTile, ...]]:
    """Look at lenses on the workers, some of a tile a job; what was looked at before is not looked at again.

    Parameters
    ----------
    looks
        The lenses.
    jobs
        Those by which they were scanned.
    config
        Where the workers are.
    out
        The recovery's folder.
    on_progress
        Called with how many of the lenses are done, and their number.

    Returns
    -------
    pyarrow.Table, tuple of FailedTile
        A row a lens, by number; tiles that failed, with reasons.
    """
    scanned = {number: job for job in jobs for number in job.target_ids}
    of_number = {look.number: look for look in looks}
    of_tile: dict[str, list[int]] = {}
    for look in looks:
        of_tile.setdefault(scanned[look.number].tile.tile_id, []).append(look.number)
    made = [
        LookJob(**dict(scanned[numbers[0]]) | {"target_ids": numbers, "looks": tuple(of_number[k] for k in numbers)})
        for _, numbers in in_jobs(of_tile)
    ]
    there = out.names(LOOKS)
    todo = [job for job in made if _key(job).removeprefix(f"{LOOKS}/") not in there]
    n_before = len(looks) - sum(len(job.looks) for job in todo)
    on_progress(n_before, len(looks))
    _, failed = run_jobs(todo, config, LOOKING, lambda done: on_progress(n_before + done, len(looks)))
    there = out.names(LOOKS)
    keys = [key for key in map(_key, made) if key.removeprefix(f"{LOOKS}/") in there]
    parts = [pq.read_table(pa.BufferReader(out.read(key))) for key in keys]
    return pa.concat_tables([_LOOK_SCHEMA.empty_table(), *parts]).sort_by("target_id"), failed


def with_models(lenses: pa.Table, seen: pa.Table, reach: ModelReach | None) -> pa.Table:
    """Scanned lenses as :data:`~scanner.recovery.lenses.SCHEMA` has them, with what was found of those that were looked at."""
    reached = np.zeros(len(lenses), dtype=bool) if reach is None else reach.reached(lenses)
    rows = {number: row for row, number in enumerate(lenses["target_id"].to_pylist())}
    at = np.array([rows[number] for number in seen["target_id"].to_pylist()], dtype=np.int64)
    columns = {"reaches_models": reached}
    for item in _VALUES:
        values = np.full(len(lenses), "" if item.dtype == "string" else np.nan, dtype=object)
        values[at] = seen[item.name].to_pylist()
        columns[item.name] = values
    for name, column in columns.items():
        lenses = lenses.append_column(SCHEMA.field(name), pa.array(column, SCHEMA.field(name).type))
    return lenses


def pictures_of(seen: pa.Table) -> pa.Table:
    """The pictures, of :data:`PICTURES_SCHEMA`."""
    with_picture = seen.filter(pa.array([len(picture) > 0 for picture in seen["picture"].to_pylist()], pa.bool_()))
    return with_picture.select(PICTURES_SCHEMA.names)


def look_closer(job: LookJob, on_progress: OnProgress) -> CandidatesOutcome:
    """Do a job on a worker."""
    return outcome_of(job, _look(job), on_progress)


def _key(job: LookJob) -> str:
    return f"{LOOKS}/{job.target_ids[0]:08d}.parquet"


def _look(job: LookJob) -> Iterator[int]:
    """Paint the waves again and look; yields how many lenses are done."""
    wanted, psfs = {look.number: look for look in job.looks}, dict[str, Mapping[Band, BandPsf]]()
    nothing = {item.name: "" if item.dtype == "string" else math.nan for item in _VALUES}
    rows: list[dict[str, Any]] = []
    with closing(painted_waves(job)) as waves:
        for _, _, _, tiles in waves:
            for row in tiles[0].rows.tolist():
                look = wanted[int(tiles[0].wave.numbers[row])]
                made: dict[str, Any] = {"target_id": look.number, "picture": b""} | nothing
                if look.is_pictured:
                    made["picture"] = _picture(tiles[0], row)
                for seen in tiles:
                    if look.is_modelled and seen.place.named.tile_id == look.found_tile_id:
                        made |= _model(job, look, seen, psfs)
                rows.append(made)
                yield len(rows)
    content = parquet_bytes(pa.Table.from_pylist(rows, schema=_LOOK_SCHEMA))
    open_store(job.recovery, job.config.storage).write(_key(job), content)


def _picture(seen: Seen, row: int) -> bytes:
    """The middle of a lens' cutout in colour, WebP."""
    places = seen.wave.places.take(np.array([row]))
    unknown = np.full(1, np.nan, dtype=np.float32)
    (batch,) = cut(seen.wave.images, Targets(places.target_id, places.ra, places.dec, places.x, places.y, unknown), 1)
    return webp(colour_image(batch.vis[0], batch.nisp[0], batch.sky[0], batch.sigma[0])[SIDE, SIDE])


def _model(job: LookJob, look: Look, seen: Seen, psfs: dict[str, Mapping[Band, BandPsf]]) -> dict[str, Any]:
    """What the model of the object says that the run lists at a lens; ``psfs``: of the tiles that were asked before."""
    tile = seen.place.named
    folder = RunFolder(open_store(job.run_folder, job.config.storage))
    commit = commit_at_hand(folder, tile.tile_id)
    if tile.tile_id not in psfs:
        psfs[tile.tile_id] = tile_psfs(tile, folder.scores(commit), job.config)
    probability = math.nan if look.probability is None else look.probability
    cutout = _listed_cutout(job, look, seen)
    model, _ = model_cutout(
        cutout, tile.tile_id, commit.input_fingerprint, seen.wave.images.vis.wcs, psfs[tile.tile_id], probability
    )
    row = row_of(model)
    return {item.name: row[_OF_MODELS.get(item.name, item.name)] for item in _VALUES}


def _listed_cutout(job: LookJob, look: Look, seen: Seen) -> CutoutBatch:
    """The cutout of the object that the run lists at a lens, as it was scored."""
    (rows,) = np.nonzero(seen.wave.numbers == look.number)
    at: Int64 = rows.astype(np.int64)
    for _, targets, index, _, _ in listed_near(seen.wave, at, seen.place.tile, seen.place.surveyed, job.config.targets):
        if index[0] >= 0 and targets.target_id[index[0]] == look.found_id:
            (batch,) = cut(seen.wave.images, targets.take(index), 1)
            return batch
    raise ContentError(f"tile {look.found_tile_id}: object {look.found_id} is not listed there any more; start a new recovery.")


def _prepare(job: LookJob, scores: bool) -> str:
    """Nothing to load: no network is asked."""
    return job.bundle_fingerprint


def _close(config: RunConfig) -> None:
    worker_scratch(config.engine).forget_all()


LOOKING = Steps(
    outcome=CandidatesOutcome, doing="looking closer", prepare=_prepare, whole=look_closer, close=_close, sweep=sweep_scratch
)
