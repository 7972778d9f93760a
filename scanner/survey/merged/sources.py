"""The runs that are merged into a survey, looked at before anything is written.

In: locations of run folders. Out: :class:`SourceRun`: what each is, which tiles it holds, one hash over their tables. Refused:
folders that are no finished run (InputMissingError), one run named twice, bundles that cannot be told apart or are not compared
(UsageError), tiles that are gone or were committed with other settings (ContentError).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.catalogue import columns
from scanner.catalogue.tiles import TILE_SCHEMA
from scanner.config import StorageConfig
from scanner.errors import ContentError, UsageError
from scanner.records import CommitRecord
from scanner.storage import is_remote
from scanner.storage.in_order import in_order
from scanner.survey.folder.ledger import SCORES, RunFolder, RunRecord
from scanner.survey.folder.resume import READERS, refuse_other_settings
from scanner.survey.merged.opening import TILES_TABLE, open_published
from scanner.survey.merged.records import MergedRun


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
            digest.update(f"{commit.tile_id} {commit.sha256[SCORES]}\n".encode())
        digest.update(str(self.tiles.to_pylist()).encode())
        return MergedRun(
            run_id=self.record.run_id,
            location=self.folder.location,
            tile_list=Path(self.record.tile_list).name,
            bundle=self.record.bundle,
            bundle_fingerprint=self.record.bundle_fingerprint,
            config_fingerprint=self.record.config_fingerprint,
            inputs=digest.hexdigest(),
            n_tiles=len(self.tiles),
            n_failed=len(self.tiles) - len(self.commits),
        )

    def tables(self) -> Iterator[pa.Table]:
        """The tables of the tiles, of :data:`~scanner.catalogue.columns.SOURCE_SCHEMA`."""
        for table in in_order(self.folder.scores, self.commits):
            yield columns.with_source(table, self.record.run_id, self.record.bundle)


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
    InputMissingError, UsageError, ContentError
        See the module.
    """
    runs: dict[str, SourceRun] = {}
    for location in locations:
        run = _open(location if is_remote(location) else str(Path(location).resolve()), storage)
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
        if other.config.scoring.beta != record.config.scoring.beta:
            raise UsageError(
                f"{run.folder.location}: was decided with another beta ({record.config.scoring.beta}) than run {other.run_id} "
                f"({other.config.scoring.beta}), so that candidates mean something else; run one again."
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


def _open(location: str, storage: StorageConfig) -> SourceRun:
    published = open_published(location, storage=storage)
    if published.version is not None:
        raise UsageError(f"{location}: is a survey; name the run folders that it was made from.")
    (folder,) = published.runs
    record = folder.record()
    tiles = pq.read_table(pa.BufferReader(published.store.read(published.key(TILES_TABLE))))
    if tiles.schema.names != TILE_SCHEMA.names:
        raise ContentError(
            f"{published.store.where(TILES_TABLE)}: was made by another version of scanner; give the run's command again."
        )
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
