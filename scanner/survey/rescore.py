"""Scores a run's stored cutouts with another bundle, without its mosaics; what scored before is kept, to go back to.

``rescored/BUNDLE/TILE`` in the run folder holds a tile's table by one bundle, and the commit that makes it count. When all
tiles have theirs, ``run.json`` names the bundle, these commits take the places of those that counted, and the results are made
anew. An interrupted command goes on when it is given again, to the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanner.catalogue import columns
from scanner.catalogue.columns import Column
from scanner.catalogue.export import TableFact, TableHeading, ecsv_bytes, to_astropy
from scanner.catalogue.known_lenses import load_known_lenses
from scanner.config import RunConfig
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.errors import InputMissingError, UsageError, error_with_code
from scanner.query.catalogue import MODELS_TABLE, Catalogue
from scanner.records import CommitRecord, FailedTile, ImageRef, Tile
from scanner.sphere import nearest
from scanner.storage import absolute, open_store
from scanner.survey.finish import finish
from scanner.survey.folder.ledger import COMMIT, CUTOUTS, EarlierScores, RunFolder, RunRecord
from scanner.survey.messages import TileJob
from scanner.survey.published import CATALOGUE, MOVED, SCHEMA, TILES_TABLE, read_tiles
from scanner.survey.scan.tile import GPU_PROVIDERS, rescore_tile
from scanner.survey.status import RunReport
from scanner.survey.workers.engine import run_on_workers
from scanner.survey.workers.steps import SCANNING, Steps

RESCORING = Steps(
    outcome=SCANNING.outcome,
    doing="rescoring",
    prepare=SCANNING.prepare,
    close=SCANNING.close,
    sweep=SCANNING.sweep,
    whole=rescore_tile,
)
_RANKED = ("name", "ra", "dec", "rank", "p_calibrated", "is_candidate")
MOVED_COLUMNS: tuple[Column, ...] = (
    *(columns.column(name) for name in ("name", "ra", "dec")),
    Column("rank_before", "int64", "", "Rank by the bundle before; 0: not among the best that were compared", "meta.code"),
    Column("rank_after", "int64", "", "Rank by the bundle after; 0: not among the best that were compared", "meta.code"),
    Column("p_before", "float32", "", "Calibrated probability before; NaN: not among the best", "stat.probability"),
    Column("p_after", "float32", "", "Calibrated probability after; NaN: not among the best", "stat.probability"),
    Column("candidate_before", "bool", "", "Whether it was a candidate before", "meta.code"),
    Column("candidate_after", "bool", "", "Whether it is a candidate now", "meta.code"),
)


@dataclass(frozen=True)
class RescoreReport:
    """``run``: the results, made anew. ``before``, ``after``: name and version of the bundles.

    ``n_rescored`` objects were scored from their cutouts; ``n_kept`` have none and keep the scan's scores, flagged
    ``NOT_RESCORED``. ``moved``: a table of :data:`MOVED_COLUMNS`, best object first, as ``who-moved.ecsv`` has it.
    """

    run: RunReport
    before: str
    after: str
    n_rescored: int
    n_kept: int
    moved: pa.Table


def rescore_run(out: str, bundle: str, config: RunConfig, on_progress: Callable[[int, int], None]) -> RescoreReport:
    """Score the stored cutouts of a finished run with another bundle, and make its results anew.

    What a bundle has scored already is not scored again: going back to an earlier one takes as long as merging does.

    Parameters
    ----------
    out, bundle
        The run folder and the bundle to score with.
    config
        The run's own settings, with where the workers are and how stores are reached.
    on_progress
        Called with the number of tiles that are scored and their number.

    Raises
    ------
    UsageError
        A tile has no stored cutouts, or the run's scores are those of this bundle already.
    ScannerError
        The run is not finished, the bundle cannot be loaded, or the folder cannot be written.
    """
    folder = RunFolder(open_store(out, config.storage))
    with folder.store.held() as folder.hold:
        now, loaded = folder.record(), bundles.load(bundle, config.storage)
        tiles, failed = _tiles(folder, now)
        commits = dict(_commits(folder, tiles))
        if now.bundle_fingerprint == loaded.fingerprint and (MOVED in now.sha256 or not now.earlier):
            raise UsageError(f"{folder.location}: its scores are those of {now.bundle} already; name another bundle.")
        record = now if now.bundle_fingerprint == loaded.fingerprint else _record(now, loaded, config)
        before = record.earlier[-1]
        scored = _scored(folder, record, tiles, config, on_progress)
        if record is not now:
            _keep(folder, now, commits)
            folder.write_record(record)
        for tile_id, commit in scored.items():
            if commits[tile_id] != commit:
                folder.store.write(f"{folder.tile(tile_id)}/{COMMIT}", commit.to_bytes())
        lenses = config.catalogue.known_lenses
        known = load_known_lenses(lenses, config.storage) if lenses else None
        report = finish(folder, record, loaded, tiles, failed, known)
        moved = _moved(_best_before(folder, before), _best(folder), config.catalogue.duplicate_radius_arcsec)
        facts = (TableFact("before", "BEFORE", before.name, ""), TableFact("after", "AFTER", record.bundle, ""))
        with folder.staged_results(folder.record(), config.engine.scratch) as staging:
            (staging / MOVED).write_bytes(ecsv_bytes(to_astropy(moved), TableHeading("moved", "Who moved", facts)))
    n_kept = sum(commit.rescored.n_kept for commit in scored.values() if commit.rescored is not None)
    n_all = sum(commit.n_targets for commit in scored.values())
    return RescoreReport(report, before.name, record.bundle, n_all - n_kept, n_kept, moved)


def _tiles(folder: RunFolder, record: RunRecord) -> tuple[dict[str, Tile], tuple[FailedTile, ...]]:
    """The tiles of a finished run by id, and those that failed."""
    if TILES_TABLE not in record.sha256:
        raise InputMissingError(f"{folder.location}: the run is not finished; give its command again, then score it again.")
    rows = read_tiles(folder.results(record)).to_pylist()
    failed = (FailedTile(tile_id=row["tile_id"], reason=row["reason"]) for row in rows if row["state"] != "done")
    return {row["tile_id"]: _tile(row) for row in rows if row["files"] != "{}"}, tuple(failed)


def _tile(row: Mapping[str, str]) -> Tile:
    """A tile by the names of its files, as the results list them: where they lie is of no matter, as none is opened."""
    files = {role: ImageRef(path=name) for role, name in json.loads(row["files"]).items()}
    bands: dict[str, dict[str, ImageRef]] = {}
    for role, reference in files.items():
        band, _, part = role.partition(".")
        if part:
            bands.setdefault(band, {})[part] = reference
    return Tile.model_validate({"tile_id": row["tile_id"], "bands": bands, "catalogue": files.get("catalogue")})


def _commits(folder: RunFolder, tiles: Mapping[str, Tile]) -> Iterator[tuple[str, CommitRecord]]:
    """The commits that count, of tiles that have cutouts to score."""
    for tile_id in tiles:
        commit = folder.commit_of(tile_id)
        if commit is None:
            continue
        if not any(name.startswith(f"{CUTOUTS}/") for name in commit.sha256):
            raise UsageError(
                f"{folder.store.where(folder.tile(tile_id))}: no cutouts are stored (cutouts.keep is 'none'); scan with --keep "
                "candidates, sample:F or all to score a run again."
            )
        yield tile_id, commit


def _record(now: RunRecord, bundle: Bundle, config: RunConfig) -> RunRecord:
    """The record of the run by another bundle; of its results only what does not depend on scores."""
    scoring = now.config.scoring.model_copy(update={"bundle": bundle.location})
    earlier = EarlierScores(
        bundle_name=now.bundle_name,
        bundle_version=now.bundle_version,
        bundle_fingerprint=now.bundle_fingerprint,
        location=now.config.scoring.bundle or "",
    )
    return now.model_copy(
        update={
            "bundle_name": bundle.manifest.name,
            "bundle_version": bundle.manifest.version,
            "bundle_fingerprint": bundle.fingerprint,
            "config": now.config.model_copy(update={"scoring": scoring}),
            "decision": bundle.decision_rule(scoring.beta, scoring.threshold),
            "earlier": (*now.earlier, earlier),
            "sha256": {name: sha256 for name, sha256 in now.sha256.items() if name in (TILES_TABLE, MODELS_TABLE)},
        }
    )


def _scored(
    folder: RunFolder, record: RunRecord, tiles: Mapping[str, Tile], config: RunConfig, on_progress: Callable[[int, int], None]
) -> dict[str, CommitRecord]:
    """The commit of each tile by the record's bundle; what is lacking is made on the workers."""
    fingerprint = record.bundle_fingerprint
    folder.store.sweep(folder.rescored(fingerprint), COMMIT)
    wanted = [tile_id for tile_id in tiles if folder.commit_of(tile_id) is not None]
    found = {tile_id: commit for tile_id in wanted if (commit := folder.rescored_commit(fingerprint, tile_id)) is not None}
    jobs = [
        TileJob(
            tile=tiles[tile_id],
            run_folder=absolute(folder.location),
            hold=folder.hold,
            config=record.config.model_copy(update={"engine": config.engine, "storage": config.storage}),
            provider=record.provider,
            bundle=record.config.scoring.bundle or "",
            config_fingerprint=record.config_fingerprint,
            bundle_fingerprint=fingerprint,
        )
        for tile_id in wanted
        if tile_id not in found
    ]
    on_progress(len(found), len(wanted))
    on_gpu = record.provider in GPU_PROVIDERS
    if not jobs:
        return found
    with closing(run_on_workers(jobs, len(jobs), config, RESCORING, on_gpu=on_gpu)) as outcomes:
        for outcome in outcomes:
            if outcome.fatal is not None:
                raise error_with_code(outcome.fatal.exit_code, outcome.fatal.message)
            if outcome.commit is None:
                raise InputMissingError(outcome.failed.reason if outcome.failed else "a tile was not scored; try again.")
            found[outcome.commit.tile_id] = outcome.commit
            on_progress(len(found), len(wanted))
    return found


def _keep(folder: RunFolder, now: RunRecord, commits: Mapping[str, CommitRecord]) -> None:
    """Keep what counted until now: each tile's commit, and the ranks of the best objects."""
    for tile_id, commit in commits.items():
        folder.store.create(f"{folder.rescored(now.bundle_fingerprint, tile_id)}/{COMMIT}", commit.to_bytes())
    if SCHEMA in now.sha256:
        buffer = io.BytesIO()
        pq.write_table(_best(folder), buffer)
        folder.store.write(_best_key(folder, now.bundle_fingerprint), buffer.getvalue())


def _best_key(folder: RunFolder, bundle_fingerprint: str) -> str:
    return f"{folder.rescored(bundle_fingerprint)}-best.parquet"


def _best_before(folder: RunFolder, before: EarlierScores) -> pa.Table:
    return pq.read_table(io.BytesIO(folder.store.read(_best_key(folder, before.bundle_fingerprint))))


def _best(folder: RunFolder) -> pa.Table:
    """The best objects of the catalogue, by rank."""
    record = folder.record()
    catalogue = Catalogue.open(folder.results(record).below(CATALOGUE))
    relation = catalogue.source().relation
    sql = f"SELECT {', '.join(_RANKED)} FROM {relation.sql} ORDER BY rank LIMIT ?"
    return catalogue.query(sql, (*relation.parameters, record.config.catalogue.max_candidates))


def _moved(before: pa.Table, after: pa.Table, radius_arcsec: float) -> pa.Table:
    """Both lists side by side, an object a row: by its rank after, then before.

    Another tile's row may stand for an object now, so that rows are matched by their place on the sky.
    """
    places = (table[axis].to_numpy() for table in (after, before) for axis in ("ra", "dec"))
    distance_arcsec, partner = nearest(*places)
    partner[distance_arcsec > radius_arcsec] = -1
    left = np.setdiff1d(np.arange(len(before)), partner)
    of_before = np.concatenate([partner, left])
    of_after = np.concatenate([np.arange(len(after)), np.full(len(left), -1)])

    def taken(table: pa.Table, rows: np.typing.NDArray[np.int64], name: str, absent: object) -> pa.Array:
        index = pa.array(rows, pa.int64(), mask=rows < 0)
        return table[name].combine_chunks().take(index).fill_null(absent)

    places = pa.concat_tables([after.select(_RANKED[:3]), before.select(_RANKED[:3]).take(pa.array(left))])
    values = {
        **{name: places[name].combine_chunks() for name in _RANKED[:3]},
        "rank_before": taken(before, of_before, "rank", 0),
        "rank_after": taken(after, of_after, "rank", 0),
        "p_before": taken(before, of_before, "p_calibrated", float("nan")),
        "p_after": taken(after, of_after, "p_calibrated", float("nan")),
        "candidate_before": taken(before, of_before, "is_candidate", False),
        "candidate_after": taken(after, of_after, "is_candidate", False),
    }
    schema = pa.schema([one.field() for one in MOVED_COLUMNS])
    return pa.Table.from_arrays([values[field.name].cast(field.type) for field in schema], schema=schema)
