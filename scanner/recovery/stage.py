"""A recovery as a whole: each tile's share of the lenses, jobs for the workers, what is there already, ranks, the table."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from pydantic import Field
from scipy.spatial import cKDTree

from scanner import __version__
from scanner.config import RankedBy, RunConfig
from scanner.ensemble import bundles
from scanner.errors import ContentError, OutputError
from scanner.query.catalogue import Catalogue
from scanner.records import FailedTile, SealedRecord, Tile
from scanner.recovery.lenses import LENSES, PICTURES, SCANNED_SCHEMA, parquet_bytes
from scanner.recovery.look import LOOKS, ModelReach, chosen, look_at, pictures_of, with_models
from scanner.recovery.paint import RecoveryRequest
from scanner.recovery.scan import MATCH_RADIUS_ARCSEC, POPULATION, RECOVERING, Neighbour, RecoveryJob, part_key, ranking_keys
from scanner.sky import tile_list
from scanner.sphere import chord, unit_vectors
from scanner.storage import Store
from scanner.survey.candidate_stage import run_jobs
from scanner.survey.folder.ledger import RunFolder, RunRecord
from scanner.survey.published import CATALOGUE, open_published, read_tiles
from scanner.survey.scan.tile import GPU_PROVIDERS

RECORD, PARTS, TILES = "recovery.json", "parts", "tiles"
#: Right ascension and declination of a tile's corners, degrees.
Outline = tuple[tuple[float, float], ...]
#: Lenses of one job: what a killed worker loses.
LENSES_PER_JOB = 128


class RecoveryRecord(SealedRecord):
    """``recovery.json``: what was painted into which run, and what became of it.

    ``tiles``: fingerprint of the input of each tile of the run. ``catalogue_sha256``: of the checksums of the run's catalogue,
    by which lenses are ranked. ``models``: how far down the run had lens models when this was begun. ``fates``: number of
    lenses by fate. ``complete``: no tile failed, and all is there.
    """

    format_version: Literal[1] = 1
    scanner_version: str
    request: RecoveryRequest
    run_folder: str
    run_id: str
    config_fingerprint: str
    bundle_fingerprint: str
    tiles: dict[str, str]
    catalogue_sha256: str
    models: ModelReach | None = None
    complete: bool = False
    n_lenses: int = 0
    fates: dict[str, int] = Field(default_factory=dict)
    failed: tuple[FailedTile, ...] = ()
    sha256: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class RecoveryReport:
    """``n_before`` of the lenses were scanned already, ``n_done`` by this call; ``failed``: tiles with reasons."""

    record: RecoveryRecord
    n_before: int
    n_done: int
    failed: tuple[FailedTile, ...]


def recover(
    folder: RunFolder,
    config: RunConfig,
    out: Store,
    request: RecoveryRequest,
    population: bytes | None,
    on_progress: Callable[[int, int], None],
    on_look: Callable[[int, int], None],
) -> RecoveryReport:
    """Paint lenses into the tiles of a finished run, and write ``lenses.parquet`` and pictures; what is done is not done again.

    Parameters
    ----------
    folder, config
        The run, and how it is worked on: where the workers are.
    out
        The recovery's folder.
    request, population
        What is painted; a table of :func:`~scanner.recovery.paint.read_population`, if any.
    on_progress
        Called with the number of lenses scanned and their number, before the first and after each job.
    on_look
        Likewise of the lenses that are looked at closer, when all are scanned.

    Raises
    ------
    InputMissingError, ContentError
        The run is not finished, or damaged, or its bundle is not the one that it was scanned with.
    OutputError
        The folder holds another recovery, or of other tiles than the run has now; or it cannot be written.
    """
    run = folder.record()
    table = read_tiles(folder.results(run))
    areas = dict(zip(table["tile_id"].to_pylist(), table["sky_area_deg2"].to_pylist(), strict=True))
    done = [tile_id for tile_id, state in zip(areas, table["state"].to_pylist(), strict=True) if state == "done"]
    inputs = {tile_id: commit.input_fingerprint for tile_id in done if (commit := folder.commit_of(tile_id)) is not None}
    if not inputs:
        raise ContentError(f"{folder.location}: no tile of this run was scanned; there is nothing to paint into.")
    catalogue_files = {name: sha256 for name, sha256 in run.sha256.items() if name.startswith(f"{CATALOGUE}/")}
    catalogue = open_published(folder.location, None, config.storage).open_catalogue()
    record = RecoveryRecord(
        scanner_version=__version__,
        request=request,
        run_folder=folder.location,
        run_id=run.run_id,
        config_fingerprint=run.config_fingerprint,
        bundle_fingerprint=run.bundle_fingerprint,
        tiles=inputs,
        catalogue_sha256=hashlib.sha256(repr(sorted(catalogue_files.items())).encode()).hexdigest(),
        models=ModelReach.of(catalogue),
    )
    with out.held():
        before = _claimed(out, record)
        if before.complete:
            on_progress(before.n_lenses, request.n_lenses)
            return RecoveryReport(before, before.n_lenses, 0, ())
        # What the run got models of since then is left aside.
        record = record.model_copy(update={"models": before.models})
        if population is not None:
            out.write(POPULATION, population)
        tiles = tile_list.read(run.tile_list, config.storage).tiles
        outlines = {name: _corners(region) for name, region in zip(areas, table["s_region"].to_pylist(), strict=True)}
        given = shares(request.n_lenses, {k: areas[k] for k in inputs})
        beside = _overlaps({name: outlines[name] for name in inputs})
        jobs = list(_jobs(folder, run, config, out, record, tiles, given, outlines, beside))
        there = out.names(PARTS)
        todo = [job for job in jobs if part_key(job.target_ids[0]).removeprefix(f"{PARTS}/") not in there]
        n_before = request.n_lenses - sum(len(job.target_ids) for job in todo)
        on_progress(n_before, request.n_lenses)
        on_gpu = run.provider in GPU_PROVIDERS
        n_done, failed = run_jobs(
            todo, config, RECOVERING, lambda done: on_progress(n_before + done, request.n_lenses), on_gpu=on_gpu
        )
        there = out.names(PARTS)
        keys = [part_key(job.target_ids[0]) for job in jobs]
        parts = [pq.read_table(pa.BufferReader(out.read(key))) for key in keys if key.removeprefix(f"{PARTS}/") in there]
        lenses = pa.concat_tables([SCANNED_SCHEMA.empty_table(), *parts])
        lenses = ranked(lenses, catalogue, config.catalogue.rank, config.catalogue.duplicate_radius_arcsec)
        looks = chosen(lenses, record.models, request.n_models)
        seen, not_seen = look_at(looks, jobs, config, out, on_look)
        failed = tuple({one.tile_id: one for one in (*not_seen, *failed)}.values())
        files = {LENSES: parquet_bytes(with_models(lenses, seen, record.models)), PICTURES: parquet_bytes(pictures_of(seen))}
        for name, content in files.items():
            out.write(name, content)
        record = record.model_copy(
            update={
                "complete": not failed,
                "n_lenses": len(lenses),
                "fates": dict(sorted(Counter(lenses["fate"].to_pylist()).items())),
                "failed": failed,
                "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
            }
        )
        out.write(RECORD, record.to_bytes())
        if record.complete:
            for key in (PARTS, LOOKS, TILES):
                out.delete(key)
    return RecoveryReport(record, n_before, n_done, failed)


def _corners(s_region: str) -> Outline:
    """The corners of ``POLYGON ICRS ra dec …``, degrees."""
    numbers = [float(word) for word in s_region.split()[2:]]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _overlaps(outlines: Mapping[str, Outline]) -> dict[str, list[str]]:
    """Of each tile those that are near enough to overlap it: circles round both meet."""
    names = sorted(outlines)
    corners = [unit_vectors(*np.array(outlines[name]).T) for name in names]
    centres = np.stack([corner.mean(axis=0) for corner in corners])
    reach = np.array([np.linalg.norm(corner - centre, axis=1).max() for corner, centre in zip(corners, centres, strict=True)])
    near = cKDTree(centres).query_ball_point(centres, reach + reach.max())
    return {
        name: [
            names[other]
            for other in sorted(near[row])
            if other != row and np.linalg.norm(centres[other] - centres[row]) < reach[row] + reach[other]
        ]
        for row, name in enumerate(names)
    }


def shares(n_lenses: int, areas: Mapping[str, float]) -> dict[str, int]:
    """How many lenses each tile gets, by its sky with good pixels: the largest remainders get what rounding leaves."""
    names = sorted(areas)
    exact = n_lenses * np.array([areas[name] for name in names]) / sum(areas.values())
    given = np.floor(exact).astype(int)
    given[np.argsort(given - exact, kind="stable")[: n_lenses - int(given.sum())]] += 1
    return dict(zip(names, given.tolist(), strict=True))


def _claimed(out: Store, record: RecoveryRecord) -> RecoveryRecord:
    """Begin a recovery, or find the one that was begun in this folder.

    Raises
    ------
    OutputError
        It is another one.
    ContentError
        Its record is damaged.
    """
    try:
        content = out.read(RECORD)
    except FileNotFoundError:
        if any(not entry.name.startswith(".") for entry in out.entries()):
            raise OutputError(f"{out.root}: holds something else than a recovery; choose another --out.") from None
        out.write(RECORD, record.to_bytes())
        return record
    found = RecoveryRecord.from_bytes(content, out.where(RECORD), "choose another --out or remove the folder")
    for name, what in (
        ("request", "holds another recovery, of other lenses"),
        ("run_id", f"holds a recovery of the run {found.run_id}, not of {record.run_id}"),
        ("tiles", "the run's tiles have changed since this recovery was begun"),
        ("catalogue_sha256", "the run's catalogue has changed since this recovery was begun"),
        ("scanner_version", f"was begun by scanner {found.scanner_version}"),
    ):
        if getattr(found, name) != getattr(record, name):
            raise OutputError(f"{out.root}: {what}; choose another --out or remove the folder.")
    return found


def _jobs(
    folder: RunFolder,
    run: RunRecord,
    config: RunConfig,
    out: Store,
    record: RecoveryRecord,
    tiles: Mapping[str, Tile],
    n_lenses: Mapping[str, int],
    outlines: Mapping[str, Outline],
    beside: Mapping[str, list[str]],
) -> Iterator[RecoveryJob]:
    """All jobs of a recovery, tile after tile, in the order of the lenses' numbers.

    Raises
    ------
    ContentError
        The run's bundle is not what it was.
    """
    bundle = bundles.load(config.scoring.bundle, config.storage)
    if bundle.fingerprint != run.bundle_fingerprint:
        raise ContentError(
            f"{bundle.location}: is not the bundle that {folder.location} was scanned with ({run.bundle}); put that one there."
        )
    first = 0
    for tile_id, n_tile in n_lenses.items():
        neighbours = tuple(
            Neighbour(tile=tiles[k], input_fingerprint=record.tiles[k], n_lenses=n_lenses[k], outline=outlines[k])
            for k in beside[tile_id]
        )
        for start in range(first, first + n_tile, LENSES_PER_JOB):
            yield RecoveryJob(
                run_folder=folder.location,
                tile=tiles[tile_id],
                config=config,
                bundle_fingerprint=run.bundle_fingerprint,
                target_ids=tuple(range(start, min(start + LENSES_PER_JOB, first + n_tile))),
                recovery=out.root,
                request=record.request,
                first=first,
                n_lenses=n_tile,
                input_fingerprint=record.tiles[tile_id],
                neighbours=neighbours,
                provider=run.provider,
                bundle=bundle.location,
                config_fingerprint=run.config_fingerprint,
                decision=run.decision,
            )
        first += n_tile


def ranked(lenses: pa.Table, catalogue: Catalogue, ranked_by: RankedBy, duplicate_radius_arcsec: float) -> pa.Table:
    """Lenses with the rank that each would have in the run, what ranks it, and the real object that it is blended with.

    The rank is one more than the number of objects of the catalogue that rank higher. A lens takes the place of its deflector:
    objects of the catalogue within the duplicate radius, of whatever tile, are the lens itself and not counted. It is blended
    with an object within the radius of matching, unless that is the deflector itself.

    Parameters
    ----------
    lenses
        Rows with the columns of :data:`~scanner.recovery.lenses.SCANNED_SCHEMA`.
    catalogue
        Of the run, deduplicated.
    ranked_by
        What ranks its objects, see :data:`scanner.catalogue.rank.BEST_FIRST`.
    duplicate_radius_arcsec
        Within which rows are one object.
    """
    probability, grid = (lenses[name].to_numpy() for name in ("probability", "grid_value"))
    keys = ranking_keys(probability, grid, ranked_by)
    scored, itself_higher = keys > 0, np.zeros(len(lenses), dtype=np.int64)
    blended_id, blend_distance = np.full(len(lenses), -1, dtype=np.int64), np.full(len(lenses), np.inf)
    is_real = np.asarray(lenses["deflector_is_real"].to_numpy(), dtype=bool)
    of_lenses = unit_vectors(lenses["ra"].to_numpy(), lenses["dec"].to_numpy())
    places = cKDTree(of_lenses) if len(lenses) else None
    reach = chord(max(duplicate_radius_arcsec, MATCH_RADIUS_ARCSEC))
    wanted = ["p_calibrated", "grid_value", "ra", "dec", "target_id"]
    files = pyarrow.dataset.dataset([str(path) for path in catalogue.files()], schema=catalogue.schema, format="parquet")
    order = np.sort(keys[scored])
    higher = np.zeros(len(order) + 1, dtype=np.int64)
    for batch in files.to_batches(columns=wanted):
        if places is None or not len(batch):
            continue
        theirs = ranking_keys(batch["p_calibrated"].to_numpy(), batch["grid_value"].to_numpy(), ranked_by)
        # Of each object, how many lenses it ranks higher than.
        higher += np.bincount(np.searchsorted(order, theirs, side="left"), minlength=len(higher))
        at = unit_vectors(batch["ra"].to_numpy(), batch["dec"].to_numpy())
        near = places.query_ball_point(at, reach)
        ids = batch["target_id"].to_numpy()
        for row in np.flatnonzero([len(found) > 0 for found in near]).tolist():
            here = np.array(near[row])
            distance = np.linalg.norm(of_lenses[here] - at[row], axis=1)
            is_itself = distance <= chord(duplicate_radius_arcsec)
            itself_higher[here[is_itself]] += theirs[row] > keys[here[is_itself]]
            blends = ~(is_itself & is_real[here]) & (distance < blend_distance[here])
            blended_id[here[blends]], blend_distance[here[blends]] = ids[row], distance[blends]
    rank = np.full(len(lenses), -1, dtype=np.int64)
    rank[scored] = 1 + np.append(higher[::-1].cumsum()[::-1], 0)[1:][np.searchsorted(order, keys[scored], side="left")]
    rank[scored] -= itself_higher[scored]
    score = np.where(scored, grid if ranked_by == "grid" else probability, np.nan).astype(np.float64)
    for name, values in (("rank", rank), ("ranking_score", score), ("blended_id", blended_id)):
        column = lenses.schema.get_field_index(name)
        lenses = lenses.set_column(column, lenses.schema.field(column), pa.array(values))
    return lenses
