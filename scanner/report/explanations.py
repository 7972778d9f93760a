"""Explanations of candidates in a run folder, as files: written where torch is, read where it is not."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from scanner.errors import ContentError
from scanner.records import Record
from scanner.storage import Staging, Store

EXPLANATIONS = "explanations"
RECORD, STRIP, MAPS = "explanation.json", "strip.png", "maps.zarr"


class Explanation(Record):
    """``explanation.json``: why the networks say what they say of one candidate.

    ``input_fingerprint``, ``bundle_fingerprint``: of the tile's files and of the bundle; an explanation with others is of
    another object. ``probabilities``: of the seven members; ``votes``: how many say 0.5 or more; ``spread``: their standard
    deviation; ``disagreement_bits``: see :mod:`scanner.explain.disagreement`. ``methods``: the maps in ``maps.zarr``, arrays
    ``<method>_<member>``. ``place``: where the files lie, below the record.
    """

    format_version: Literal[1] = 1
    tile_id: str
    target_id: int
    input_fingerprint: str
    bundle_fingerprint: str
    scanner_version: str
    probabilities: tuple[float, ...]
    votes: int
    spread: float
    disagreement_bits: float
    methods: tuple[str, ...]
    place: str = ""


def key(tile_id: str, target_id: int) -> str:
    """Key of an explanation's folder in its run folder."""
    return f"{EXPLANATIONS}/{tile_id}/{target_id}"


def read(store: Store, tile_id: str, target_id: int) -> Explanation | None:
    """The explanation of an object; None where there is none.

    Raises
    ------
    ContentError
        It is damaged.
    """
    record = f"{key(tile_id, target_id)}/{RECORD}"
    try:
        return Explanation.model_validate_json(store.read(record))
    except FileNotFoundError:
        return None
    except ValidationError:
        where = store.where(key(tile_id, target_id))
        raise ContentError(f"{store.where(record)}: damaged; remove {where} and explain it again.") from None


def strip(store: Store, explanation: Explanation) -> bytes:
    """The explanation as one picture, PNG.

    Raises
    ------
    ContentError
        The file has gone.
    """
    place = file_key(explanation, STRIP)
    try:
        return store.read(place)
    except FileNotFoundError:
        raise ContentError(f"{store.where(place)}: missing; remove its folder and explain the candidate again.") from None


def file_key(explanation: Explanation, name: str) -> str:
    """Key of one of its files."""
    return "/".join(part for part in (key(explanation.tile_id, explanation.target_id), explanation.place, name) if part)


def staged(store: Store, tile_id: str, target_id: int, scratch: Path | None) -> AbstractContextManager[Staging]:
    """A local folder to write an explanation into, its record too; see :meth:`scanner.storage.contract.Store.staged`."""
    return store.staged(key(tile_id, target_id), RECORD, scratch)
