"""Runs merged into a survey: a folder of versions, each there whole or not at all, of which one is the current one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa

from scanner import __version__
from scanner.atomic_file import tree_sha256
from scanner.catalogue import columns
from scanner.catalogue.columns import TILE_SCHEMA
from scanner.catalogue.export import Provenance, covered_sky
from scanner.catalogue.known_lenses import KnownLenses, KnownLensMatcher, load_known_lenses
from scanner.catalogue.merge import Merging, Rule
from scanner.config import CatalogueConfig, StorageConfig
from scanner.errors import ContentError, OutputError, UsageError
from scanner.query.catalogue import MODELS_TABLE
from scanner.records import CommitRecord
from scanner.storage import Staging, Store, is_remote, open_store, split
from scanner.storage.contract import in_order
from scanner.survey.finish import write_tables
from scanner.survey.folder.ledger import RunFolder, RunRecord, table_sha256, temporary_beside
from scanner.survey.folder.resume import READERS, refuse_other_settings
from scanner.survey.published import (
    SURVEY_RECORD,
    VERSION_RECORD,
    VERSIONS,
    MergedRun,
    SurveyRecord,
    SurveyVersion,
    VersionRecord,
    open_published,
    read_models,
    read_record,
    read_tiles,
    version_key,
)


@dataclass(frozen=True)
class SourceRun:
    """A run: its folder and record, its table of tiles, and the commits of those that are done, by tile id."""

    folder: RunFolder
    record: RunRecord
    tiles: pa.Table
    commits: tuple[CommitRecord, ...]

    def described(self) -> MergedRun:
        """What a version's record says of it."""
        digest = hashlib.sha256()
        for commit in self.commits:
            digest.update(f"{commit.tile_id} {table_sha256(commit)}\n".encode())
        digest.update(str(self.tiles.to_pylist()).encode())
        digest.update(self.record.decision.model_dump_json().encode())
        digest.update(self.record.sha256.get(MODELS_TABLE, "").encode())
        return MergedRun(
            run_id=self.record.run_id,
            location=self.folder.location,
            tile_list=Path(self.record.tile_list).name,
            bundle=self.record.bundle,
            bundle_fingerprint=self.record.bundle_fingerprint,
            config_fingerprint=self.record.config_fingerprint,
            sky_prevalence=self.record.decision.sky_prevalence,
            inputs=digest.hexdigest(),
            n_tiles=len(self.tiles),
            n_failed=len(self.tiles) - len(self.commits),
        )

    def models(self) -> pa.Table | None:
        """Its lens models; None where it has none."""
        return read_models(self.folder.results(self.record))

    def tables(self) -> Iterator[pa.Table]:
        """The tables of the tiles, of :data:`~scanner.catalogue.columns.SOURCE_SCHEMA`."""
        for table in in_order(self.folder.scores, self.commits):
            yield columns.with_source(self.record.decided(table), self.record.run_id, self.record.bundle)


def open_sources(locations: Sequence[str], storage: StorageConfig) -> tuple[SourceRun, ...]:
    """Look at runs; they are returned by run id.

    Parameters
    ----------
    locations
        Run folders, local paths or ``s3://…``.
    storage
        How object stores are reached.

    Raises
    ------
    InputMissingError
        A folder holds no finished run.
    UsageError
        One run is named twice, or a survey is named.
    ContentError
        A tile is gone or was committed with other settings.
    """
    runs: dict[str, SourceRun] = {}
    for location in locations:
        run = _open_source(location if is_remote(location) else str(Path(location).resolve()), storage)
        other = runs.setdefault(run.record.run_id, run)
        if other is not run:
            raise UsageError(
                f"{location}: is the same run as {other.folder.location} ({run.record.run_id}): list, settings and bundle are "
                "alike; name one of them, or give one's tile list another name and run again."
            )
    return tuple(runs[run_id] for run_id in sorted(runs))


def order_bundles(runs: Sequence[SourceRun], preferred: Sequence[str]) -> tuple[str, ...]:
    """The runs' bundles from the most to the least preferred; the one there is, where there is only one.

    Parameters
    ----------
    runs
        The runs.
    preferred
        Bundles as the user names them: name and version, or the name where that is enough.

    Raises
    ------
    UsageError
        There are several, and they are not all named; one is named that no run has; two bundles of one name and version; runs
        of one bundle with different thresholds.
    """
    first: dict[str, RunRecord] = {}
    for run in runs:
        record = run.record
        other = first.setdefault(record.bundle, record)
        if other.bundle_fingerprint != record.bundle_fingerprint:
            raise UsageError(
                f"{run.folder.location}: was scored with another bundle {record.bundle} than run {other.run_id}: their "
                "contents differ; give one of them another version, and run again."
            )
        if other.decision != record.decision:
            raise UsageError(
                f"{run.folder.location}: was decided with another threshold ({record.decision.threshold:.4g}) than run "
                f"{other.run_id} ({other.decision.threshold:.4g}); give one of them its command with the other's --beta or "
                "--threshold, which decides anew without scanning."
            )
    found = tuple(dict.fromkeys(_named(first, name) for name in preferred))
    missing = sorted(set(first) - set(found))
    if len(first) > 1 and missing:
        flags = " ".join(f"--prefer '{bundle}'" for bundle in [*found, *missing])
        raise UsageError(
            f"the runs were scored with {len(first)} bundles ({', '.join(sorted(first))}), whose scores cannot be compared; "
            f"say which come first, for instance {flags}."
        )
    return found or tuple(first)


def _named(bundles: dict[str, RunRecord], wanted: str) -> str:
    found = [bundle for bundle, record in bundles.items() if wanted in (bundle, record.bundle_name)]
    if len(found) != 1:
        many = "is a name of several bundles; give its version too" if found else "scored none of these runs"
        raise UsageError(f"--prefer {wanted}: {many}; there are: {', '.join(sorted(bundles))}.")
    return found[0]


def _open_source(location: str, storage: StorageConfig) -> SourceRun:
    published = open_published(location, storage=storage)
    if published.version is not None:
        raise UsageError(f"{location}: is a survey; name the run folders that it was made from.")
    (folder,) = published.runs
    record = folder.record()
    tiles = read_tiles(published.files)
    states = zip(tiles["tile_id"].to_pylist(), tiles["state"].to_pylist(), strict=True)
    done = sorted(tile_id for tile_id, state in states if state == "done")
    return SourceRun(folder, record, tiles, tuple(in_order(partial(_commit, folder, record), done, READERS)))


def _commit(folder: RunFolder, record: RunRecord, tile_id: str) -> CommitRecord:
    commit = folder.commit_of(tile_id)
    if commit is None:
        raise ContentError(
            f"{folder.store.where(folder.tile(tile_id))}: its commit record has gone; give the run's command again."
        )
    refuse_other_settings(folder, record, commit)
    return commit


#: Called with the tiles read so far and all tiles.
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
        What :func:`open_sources` and :func:`order_bundles` refuse.
    OutputError
        The folder holds other things, is in use by another process, or cannot be written.
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
        store.sweep(VERSIONS, VERSION_RECORD)
        if store.local("") is not None:
            # Object stores have nothing half-written here, and sweeping would list the whole survey.
            store.sweep("", SURVEY_RECORD)
        survey = read_record(store, SURVEY_RECORD, SurveyRecord) if store.exists(SURVEY_RECORD) else None
        for known_version in survey.versions if survey else ():
            record = read_record(store, f"{version_key(known_version.number)}/{VERSION_RECORD}", VersionRecord)
            if record.fingerprint == fingerprint:
                _announce(store, survey, record)
                return MergedSurvey(record, is_new=False)
        number = max((one.number for one in survey.versions), default=0) + 1 if survey else 1
        with (
            temporary_beside(store, request.scratch) as temporary,
            store.staged(version_key(number), VERSION_RECORD, temporary) as staging,
            Merging(
                temporary / "merging",
                Rule(request.catalogue.duplicate_radius_arcsec, bundles, request.catalogue.rank),
                KnownLensMatcher(known, request.catalogue.known_radius_arcsec),
                request.catalogue.system_radius_arcsec,
                prefixes={run.record.run_id: run.record.config.targets.survey.prefix for run in runs},
            ) as merging,
        ):
            _read_tables(runs, merging, on_progress)
            record = _write_version(staging, merging, runs, merged, bundles, request, number, fingerprint)
        _announce(store, survey, record)
        return MergedSurvey(record, is_new=True)


def _read_tables(runs: Sequence[SourceRun], merging: Merging, on_progress: Progress) -> None:
    total, done = sum(len(run.commits) for run in runs), 0
    for run in runs:
        for table in run.tables():
            merging.add(table)
            done += 1
            on_progress(done, total)
    merging.merge()


def _write_version(
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
    sky = covered_sky(tiles)
    models = [found for run in runs if (found := run.models()) is not None]
    # Of every folder's survey the same: where it lies is not in its catalogue.
    write_tables(
        staging.path,
        merging,
        tiles,
        sky,
        name="scanner survey",
        max_candidates=config.max_candidates,
        provenance=provenance,
        models=pa.concat_tables(models) if models else None,
    )
    record = VersionRecord(
        number=number,
        place=staging.place,
        scanner_version=__version__,
        fingerprint=fingerprint,
        runs=merged,
        preferred=bundles,
        duplicate_radius_arcsec=config.duplicate_radius_arcsec,
        system_radius_arcsec=config.system_radius_arcsec,
        max_candidates=config.max_candidates,
        known_lenses=config.known_lenses,
        known_radius_arcsec=config.known_radius_arcsec,
        n_targets=merging.n_rows,
        n_objects=merging.n_unique,
        n_candidates=merging.n_candidates,
        n_tiles=len(tiles),
        n_failed=sum(run.n_failed for run in merged),
        sky_area_deg2=sky.area_deg2,
        sha256=tree_sha256(staging.path),
    )
    (staging.path / VERSION_RECORD).write_bytes(record.to_bytes())
    return record


def _announce(store: Store, survey: SurveyRecord | None, record: VersionRecord) -> None:
    """Name a version as the current one; only then does it exist for readers."""
    versions = survey.versions if survey else ()
    if record.number not in {one.number for one in versions}:
        versions = (*versions, SurveyVersion(number=record.number, created=datetime.now(UTC)))
    title = survey.title if survey else split(store.root if "://" in store.root else str(Path(store.root).resolve()))[1]
    made = SurveyRecord(title=title, current=record.number, versions=versions)
    store.write(SURVEY_RECORD, made.to_bytes())


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
        "settings": [
            config.duplicate_radius_arcsec,
            config.system_radius_arcsec,
            config.known_radius_arcsec,
            config.max_candidates,
        ],
        "known": lenses.hexdigest(),
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
