"""Runs merged into a survey: a folder of versions, of which one counts.

In: run folders that are finished. Out: ``SURVEY/versions/<n>/`` with the tables of :mod:`scanner.survey.merged.tables` and
``version.json``, then ``survey.json``, which names it as the current one. A version is there whole or not at all, and never
changes afterwards; runs that were merged in the same way before make no new one. Which row stands for an object follows from
the rows alone (:mod:`scanner.catalogue.deduplicate`), not from the order of the runs. The runs are only read.

Refused: what :mod:`scanner.survey.merged.sources` refuses; a folder that holds other things, is in use by another process or
cannot be written (OutputError).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from scanner import __version__
from scanner.catalogue import columns
from scanner.catalogue.deduplicate import Rule
from scanner.catalogue.export import Provenance
from scanner.catalogue.known_lenses import KnownLenses, KnownLensMatcher, load_known_lenses
from scanner.catalogue.merging import Merging
from scanner.catalogue.tiles import TILE_SCHEMA
from scanner.config import CatalogueConfig, StorageConfig
from scanner.errors import OutputError
from scanner.storage import Staging, Store, open_store, split
from scanner.survey.folder.passing import passing_beside
from scanner.survey.merged.opening import read_record
from scanner.survey.merged.records import (
    SURVEY_RECORD,
    VERSION_RECORD,
    VERSIONS,
    MergedRun,
    SurveyRecord,
    SurveyVersion,
    VersionRecord,
    version_key,
)
from scanner.survey.merged.sources import SourceRun, open_sources, order_bundles
from scanner.survey.merged.tables import write_tables

#: Told how many of how many tiles are read.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MergeRequest:
    """What is to be merged: run folders, the survey folder, bundles from the most to the least preferred, and the settings."""

    runs: tuple[str, ...]
    out: str
    preferred: tuple[str, ...] = ()
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    scratch: str | None = None


@dataclass(frozen=True)
class MergedSurvey:
    """What came of it; ``is_new`` is False where the same runs had been merged in the same way before."""

    version: VersionRecord
    is_new: bool


def merge_runs(request: MergeRequest, on_progress: Progress = lambda done, total: None) -> MergedSurvey:
    """Merge runs into a new version of a survey, and make it the current one.

    Parameters
    ----------
    request
        What to merge.
    on_progress
        Called as tiles are read.

    Raises
    ------
    ScannerError
        See the module.
    """
    runs = open_sources(request.runs, request.storage)
    bundles = order_bundles(runs, request.preferred)
    source = request.catalogue.known_lenses
    known = None if source is None else load_known_lenses(source, request.storage)
    merged = tuple(run.described() for run in runs)
    fingerprint = _fingerprint(merged, bundles, request.catalogue, known)
    store = open_store(request.out, request.storage)
    if not store.exists(SURVEY_RECORD) and any(entry.name != VERSIONS for entry in store.entries()):
        raise OutputError(f"{request.out}: holds files that are not a survey's; name a new folder with --out.")
    with store.held():
        store.sweep(VERSIONS)
        if store.local("") is not None:
            # Object stores have nothing half-written here, and sweeping would list the whole survey.
            store.sweep("")
        survey = read_record(store, SURVEY_RECORD, SurveyRecord) if store.exists(SURVEY_RECORD) else None
        for known_version in survey.versions if survey else ():
            record = read_record(store, f"{version_key(known_version.number)}/{VERSION_RECORD}", VersionRecord)
            if record.fingerprint == fingerprint:
                _announce(store, survey, record)
                return MergedSurvey(record, is_new=False)
        number = max((one.number for one in survey.versions), default=0) + 1 if survey else 1
        with (
            passing_beside(store, request.scratch) as passing,
            store.staged(version_key(number), VERSION_RECORD, passing) as staging,
            Merging(
                passing / "merging",
                Rule(request.catalogue.duplicate_radius_arcsec, bundles),
                KnownLensMatcher(known, request.catalogue.known_radius_arcsec),
            ) as merging,
        ):
            _read(runs, merging, on_progress)
            record = _write(staging, merging, runs, merged, bundles, request, number, fingerprint)
        _announce(store, survey, record)
        return MergedSurvey(record, is_new=True)


def _read(runs: Sequence[SourceRun], merging: Merging, on_progress: Progress) -> None:
    total, done = sum(len(run.commits) for run in runs), 0
    for run in runs:
        for table in run.tables():
            merging.add(table)
            done += 1
            on_progress(done, total)
    merging.merge()


def _write(
    staging: Staging,
    merging: Merging,
    runs: Sequence[SourceRun],
    merged: tuple[MergedRun, ...],
    bundles: tuple[str, ...],
    request: MergeRequest,
    number: int,
    fingerprint: str,
) -> VersionRecord:
    config = request.catalogue
    tiles = columns.as_schema(pa.concat_tables([run.tiles for run in runs]), TILE_SCHEMA)
    tiles = tiles.sort_by([("run", "ascending"), ("tile_id", "ascending")])
    provenance = Provenance(
        software=f"scanner {__version__}",
        config_fingerprint=fingerprint,
        bundle=", ".join(bundles),
        bundle_fingerprint=", ".join(sorted({run.bundle_fingerprint for run in merged})),
    )
    # Of every folder's survey the same: where it lies is not in its catalogue.
    write_tables(
        staging.path, merging, tiles, name="scanner survey", max_candidates=config.max_candidates, provenance=provenance
    )
    record = VersionRecord(
        number=number,
        place=staging.place,
        scanner_version=__version__,
        fingerprint=fingerprint,
        runs=merged,
        preferred=bundles,
        duplicate_radius_arcsec=config.duplicate_radius_arcsec,
        max_candidates=config.max_candidates,
        known_lenses=config.known_lenses,
        known_radius_arcsec=config.known_radius_arcsec,
        n_targets=merging.n_rows,
        n_objects=merging.n_unique,
        n_candidates=merging.n_candidates,
        n_tiles=len(tiles),
        n_failed=sum(run.n_failed for run in merged),
        sky_area_deg2=sum(commit.sky_area_deg2 for run in runs for commit in run.commits),
    )
    (staging.path / VERSION_RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return record


def _announce(store: Store, survey: SurveyRecord | None, record: VersionRecord) -> None:
    """Name a version as the current one; only then does it exist for readers."""
    versions = survey.versions if survey else ()
    if record.number not in {one.number for one in versions}:
        versions = (*versions, SurveyVersion(number=record.number, created=datetime.now(UTC)))
    title = survey.title if survey else split(store.root if "://" in store.root else str(Path(store.root).resolve()))[1]
    made = SurveyRecord(title=title, current=record.number, versions=versions)
    store.write(SURVEY_RECORD, made.model_dump_json(indent=2).encode() + b"\n")


def _fingerprint(
    merged: Sequence[MergedRun], bundles: Sequence[str], config: CatalogueConfig, known: KnownLenses | None
) -> str:
    """Hash of everything that the tables of a version depend on."""
    lenses = hashlib.sha256()
    if known is not None:
        lines = zip(known.ra.tolist(), known.dec.tolist(), known.name, known.reference, strict=True)
        lenses.update("".join(f"{line}\n" for line in lines).encode())
    told = {
        "scanner": __version__,
        "runs": [[run.run_id, run.inputs, run.n_tiles] for run in merged],
        "bundles": list(bundles),
        "settings": [config.duplicate_radius_arcsec, config.known_radius_arcsec, config.max_candidates],
        "known": lenses.hexdigest(),
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
