"""The records of a survey folder: ``survey.json`` and, one a version, ``version.json``.

In and out: JSON. A version never changes once it is there; ``survey.json`` says which versions there are and which one counts.
Refused: keys that are not known.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from scanner.records import Record

SURVEY_RECORD = "survey.json"
VERSION_RECORD = "version.json"
VERSIONS = "versions"


class MergedRun(Record):
    """A run that went into a version; ``inputs``: one hash over the tables of its tiles."""

    run_id: str
    location: str
    tile_list: str
    bundle: str
    bundle_fingerprint: str
    config_fingerprint: str
    inputs: str
    n_tiles: int
    n_failed: int


class VersionRecord(Record):
    """``version.json``: what a version was made from, and what came of it.

    ``fingerprint``: of the runs and of all settings that the result depends on, so that merging the same again is seen.
    ``preferred``: the bundles from the most to the least preferred, where the runs have several. ``sky_area_deg2`` counts sky
    that several tiles cover once a tile. ``place``: where the version's other files lie, below the record's own folder.
    """

    format_version: Literal[1] = 1
    number: int
    place: str = ""
    scanner_version: str
    fingerprint: str
    runs: tuple[MergedRun, ...]
    preferred: tuple[str, ...]
    duplicate_radius_arcsec: float
    max_candidates: int
    known_lenses: str | None
    known_radius_arcsec: float
    n_targets: int
    n_objects: int
    n_candidates: int
    n_tiles: int
    n_failed: int
    sky_area_deg2: float


class SurveyVersion(Record):
    """One line of ``survey.json``."""

    number: int
    created: datetime


class SurveyRecord(Record):
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
