"""Finished runs and surveys, opened to be read: by queries, by the service."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.catalogue import columns
from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError
from scanner.query.catalogue import MODELS_TABLE, OTHER_MODELS, Catalogue
from scanner.query.database import DEFAULT_LIMITS, DatabaseLimits
from scanner.records import Record, SealedRecord
from scanner.storage import Store, open_store, split
from scanner.storage.verified import VerifiedFiles
from scanner.survey.folder.ledger import RUN_RECORD, RunFolder

SURVEY_RECORD = "survey.json"
VERSION_RECORD = "version.json"
VERSIONS = "versions"


class MergedRun(Record):
    """A run that went into a version.

    ``inputs``: one hash over the tables of its tiles, its decision and its lens models. ``sky_prevalence``: share of lenses
    that its probabilities are for.
    """

    run_id: str
    location: str
    tile_list: str
    bundle: str
    bundle_fingerprint: str
    config_fingerprint: str
    sky_prevalence: float | None
    inputs: str
    n_tiles: int
    n_failed: int


class VersionRecord(SealedRecord):
    """``version.json``: what a version was made from, and what came of it.

    ``fingerprint``: of the runs and of all settings that the result depends on, so that merging the same again is seen.
    ``preferred``: the bundles from the most to the least preferred, where the runs have several. ``sky_area_deg2``: with good
    VIS pixels, overlaps of tiles counted once. ``place``: where the version's other files lie, below the record's own folder;
    ``sha256``: of each of them.
    """

    format_version: Literal[1] = 1
    number: int
    place: str = ""
    scanner_version: str
    fingerprint: str
    runs: tuple[MergedRun, ...]
    preferred: tuple[str, ...]
    duplicate_radius_arcsec: float
    system_radius_arcsec: float
    max_candidates: int
    known_lenses: str | None
    known_radius_arcsec: float
    n_targets: int
    n_objects: int
    n_candidates: int
    n_tiles: int
    n_failed: int
    sky_area_deg2: float
    sha256: dict[str, str]


class SurveyVersion(Record):
    """One line of ``survey.json``."""

    number: int
    created: datetime


class SurveyRecord(SealedRecord):
    """``survey.json``: the versions there are, and the ``current`` one, which is opened where none is named."""

    format_version: Literal[1] = 1
    title: str
    current: int
    versions: tuple[SurveyVersion, ...]


def version_key(number: int) -> str:
    """Key of a version's folder."""
    return f"{VERSIONS}/{number}"


def results_key(record: VersionRecord) -> str:
    """Key of the folder that holds a version's results."""
    return "/".join(part for part in (version_key(record.number), record.place) if part)


#: Names of the results that runs and surveys both have.
CATALOGUE = "catalogue"
CANDIDATES = "candidates"
SCHEMA = "catalogue/dataset/_common_metadata"
TILES_TABLE = "tiles.parquet"
FOOTPRINT = "footprint.fits"
#: Of a run that was scored again: the best objects before and after, and their ranks.
MOVED = "who-moved.ecsv"
_SERVED = (CATALOGUE, MODELS_TABLE, TILES_TABLE, FOOTPRINT, MOVED)

AnyRecord = TypeVar("AnyRecord", bound=SealedRecord)


@dataclass(frozen=True)
class Published:
    """What may be asked about.

    ``location``: the folder as it was named; ``slug``: a name of it for URLs and tables, letters, digits, ``_`` and ``-``;
    ``title``: one for people. ``files``: ``catalogue/…``, ``tiles.parquet`` and the other results, verified as they are read.
    ``version``: the survey's, None for a run. ``bundles``: name and version of those that scored. ``run_folders``: the
    run folders that it came from, by run id: they hold cutouts and explanations, and may have gone meanwhile.
    ``sky_prevalence``: by run id, the share of lenses that probabilities are stated for; None: not calibrated.
    ``sky_area_deg2``: with good VIS pixels, overlaps of tiles counted once.
    """

    location: str
    slug: str
    title: str
    files: VerifiedFiles
    version: int | None
    bundles: tuple[str, ...]
    run_folders: Mapping[str, RunFolder]
    sky_prevalence: Mapping[str, float | None]
    sky_area_deg2: float

    @property
    def runs(self) -> tuple[RunFolder, ...]:
        """The run folders, by run id."""
        return tuple(self.run_folders.values())

    @cached_property
    def state(self) -> str:
        """A text that changes when the catalogue, its lens models, its tiles or its footprint do."""
        served = [item for item in sorted((self.files.sha256 or {}).items()) if item[0].startswith(_SERVED)]
        return hashlib.sha256(str((self.version, served)).encode()).hexdigest()

    def open_catalogue(self, cache: Path | None = None, limits: DatabaseLimits = DEFAULT_LIMITS) -> Catalogue:
        """The catalogue of objects; parameters and errors as those of :meth:`scanner.query.catalogue.Catalogue.open`."""
        has_models = MODELS_TABLE in (self.files.sha256 or {})
        return Catalogue.open(self.files.below(CATALOGUE), cache, limits, self.files if has_models else None)


def open_published(location: str, version: int | None = None, storage: StorageConfig = StorageConfig()) -> Published:
    """Open a run folder or a survey folder.

    Parameters
    ----------
    location
        The folder, a local path or ``s3://…``.
    version
        Of a survey; the current one by default.
    storage
        How object stores are reached.

    Raises
    ------
    InputMissingError
        It is neither, its tiles have not been merged yet, or there is no such version.
    ContentError
        A record is damaged, or another version of scanner made the catalogue.
    """
    store = open_store(location, storage)
    if store.exists(SURVEY_RECORD):
        published = _open_survey(location, store, version, storage)
    elif store.exists(RUN_RECORD):
        if version is not None:
            raise InputMissingError(f"{location}: is a single run, which has no versions; leave the version out.")
        published = _open_run(location, store)
    else:
        raise InputMissingError(
            f"{location}: neither a run folder (it has no {RUN_RECORD}) nor a survey folder (no {SURVEY_RECORD}); name another."
        )
    _refuse_other_columns(published)
    return published


def read_record(store: Store, key: str, model: type[AnyRecord]) -> AnyRecord:
    """A survey's own record.

    Raises
    ------
    InputMissingError
        It is not there.
    ContentError
        It is damaged.
    """
    try:
        content = store.read(key)
    except FileNotFoundError:
        if key != SURVEY_RECORD:
            raise InputMissingError(f"{store.where(key)}: is not there; {_anew(store)}.") from None
        raise InputMissingError(
            f"{store.where(key)}: is not there; name a survey folder ('scanner catalogue merge' makes them)."
        ) from None
    return model.from_bytes(content, store.where(key), _anew(store))


def _anew(store: Store) -> str:
    return f"remove {store.where(SURVEY_RECORD)} and merge the runs anew"


def _open_survey(location: str, store: Store, version: int | None, storage: StorageConfig) -> Published:
    survey = read_record(store, SURVEY_RECORD, SurveyRecord)
    number = survey.current if version is None else version
    if number not in {known.number for known in survey.versions}:
        there = ", ".join(str(known.number) for known in survey.versions)
        raise InputMissingError(f"{location}: has no version {number}; there are {there}.")
    record = read_record(store, f"{version_key(number)}/{VERSION_RECORD}", VersionRecord)
    return Published(
        location=location,
        slug=_slug(location),
        title=survey.title,
        files=VerifiedFiles(store, results_key(record), record.sha256, _anew(store)),
        version=number,
        bundles=tuple(sorted({run.bundle for run in record.runs})),
        run_folders={run.run_id: RunFolder(open_store(run.location, storage)) for run in record.runs},
        sky_prevalence={run.run_id: run.sky_prevalence for run in record.runs},
        sky_area_deg2=record.sky_area_deg2,
    )


def _open_run(location: str, store: Store) -> Published:
    folder = RunFolder(store)
    record = folder.record()
    return Published(
        location=location,
        slug=_slug(record.run_id),
        title=record.run_id.rpartition("-")[0],
        files=folder.results(record),
        version=None,
        bundles=(record.bundle,),
        run_folders={record.run_id: folder},
        sky_prevalence={record.run_id: record.decision.sky_prevalence},
        sky_area_deg2=record.sky_area_deg2 or 0.0,
    )


def read_tiles(files: VerifiedFiles) -> pa.Table:
    """The table of tiles of a run or survey.

    Raises
    ------
    InputMissingError, ContentError
        It is missing, damaged, or of another version of scanner.
    """
    tiles = pq.read_table(pa.BufferReader(files.read(TILES_TABLE)), page_checksum_verification=True)
    if tiles.schema.names != columns.TILE_SCHEMA.names:
        raise ContentError(f"{files.where(TILES_TABLE)}: was made by another version of scanner; {files.remedy}.")
    return tiles


def read_models(files: VerifiedFiles) -> pa.Table | None:
    """The lens models of a run or survey, of :data:`~scanner.catalogue.columns.MODEL_SCHEMA`; None where it has none.

    Raises
    ------
    InputMissingError, ContentError
        The table is missing, damaged, or of another version of scanner.
    """
    if MODELS_TABLE not in (files.sha256 or {}):
        return None
    models = pq.read_table(pa.BufferReader(files.read(MODELS_TABLE)), page_checksum_verification=True)
    if models.schema.names != columns.MODEL_SCHEMA.names:
        raise ContentError(f"{files.where(MODELS_TABLE)}: {OTHER_MODELS}.")
    return models


def _refuse_other_columns(published: Published) -> None:
    files = published.files
    if SCHEMA not in (files.sha256 or {}):
        raise InputMissingError(
            f"{published.location}: its tiles have not been merged yet; finish the run by giving its command again."
        )
    found = pq.read_schema(pa.BufferReader(files.read(SCHEMA))).names
    if found != columns.with_further(columns.CATALOGUE_SCHEMA, columns.further_of(found)).names:
        raise ContentError(
            f"{files.where(CATALOGUE)}: was made by another version of scanner; give the command that made it again, which "
            "merges its tiles anew."
        )


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", split(name)[1] or name).strip("-") or "catalogue"
