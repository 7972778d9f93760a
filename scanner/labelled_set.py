"""Labelled sets of cutouts, simulated, painted, graded or imported: their files and columns, how they are read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from scanner.atomic_file import file_sha256, flush_tree, partial_name, remove, writing_to
from scanner.catalogue.columns import Column, column
from scanner.config import StorageConfig
from scanner.cutouts.quality import fill_bad_pixels
from scanner.cutouts.store import CutoutStore, CutoutWriter
from scanner.errors import ContentError, InputMissingError, OutputError
from scanner.records import (
    BANDS,
    DRAWN,
    VIS_PIXEL_SCALE_ARCSEC,
    CutoutBatch,
    Float32,
    Float64,
    Int64,
    SealedRecord,
    unsealed,
)
from scanner.sky.local_files import irregular
from scanner.storage import open_store
from scanner.storage.contract import is_remote, split

#: A folder holds a cutout store, a table of truth with one row a cutout in the store's order, and what was asked for.
CUTOUTS, TRUTH, DESCRIPTION = "cutouts.zarr", "truth.parquet", "dataset.json"
#: What every table of truth tells; it may have further columns. There are no nulls: what is not known is NaN.
TRUTH_COLUMNS = (
    column("target_id"),
    Column("is_lens", "bool", "", "A lens", "meta.code.class"),
    Column("visible", "bool", "", "A lens whose arcs a person could see", "meta.code.class"),
    Column("class_name", "string", "", "What was drawn, or the grade that people gave", "meta.code.class"),
    Column("arc_snr", "float32", "", "Signal-to-noise ratio of the lensed light in VIS", "stat.snr"),
    Column("x_arcsec", "float64", "arcsec", "The object's place from the cutout's centre, x", "pos.cartesian.x"),
    Column("y_arcsec", "float64", "arcsec", "The object's place from the cutout's centre, y", "pos.cartesian.y"),
)
#: Longest name of a class, in letters: an array of names has room for the longest in each row.
LONGEST_NAME = 200
MOST_DESCRIPTION_BYTES = 1 << 26
_AGAIN = "draw the dataset again."
#: Further column of objects of the real sky: rows of one field are never on both sides of training and validation.
FIELD_COLUMN = Column("field", "string", "", "Tile or field that the object lies in", "meta.id;obs.field")
#: Non-lenses that a network must tell from lenses by the arcs alone: the galaxy is what a lens would be, by class name.
HARD_NEGATIVES = ("elliptical", "companion", "tangential", "near_lens")


@dataclass(frozen=True)
class Truth:
    """What is known of ``N`` cutouts.

    ``target_id`` (N,) int64. ``is_lens`` (N,) bool. ``class_name`` (N,) str. ``arc_snr`` (N,) float32: signal-to-noise ratio of
    the lensed light in VIS. ``visible`` (N,) bool: lenses whose arcs a person could see. ``position`` (N, 2) float32: (y, x)
    of the object off the cutout's centre, arcsec; 0 where there is none.
    """

    target_id: Int64
    is_lens: NDArray[np.bool_]
    class_name: NDArray[np.str_]
    arc_snr: Float32
    visible: NDArray[np.bool_]
    position: Float32

    def __len__(self) -> int:
        return len(self.is_lens)

    @property
    def is_hard_negative(self) -> NDArray[np.bool_]:
        """Non-lenses of the classes :data:`HARD_NEGATIVES`, (N,) bool."""
        return np.isin(self.class_name, HARD_NEGATIVES) & ~self.is_lens

    def take(self, index: NDArray[Any]) -> Truth:
        """Select by an integer or boolean index array."""
        return Truth(**{name: values[index] for name, values in vars(self).items()})


class LabelledSet:
    """A labelled set on disk; it may hold lenses only, or non-lenses only.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    InputMissingError
        The folder or one of its three parts is missing.
    ContentError
        The truth table does not fit the store, or lacks columns.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        for part in (CUTOUTS, TRUTH, DESCRIPTION):
            if not (self.path / part).exists():
                raise InputMissingError(
                    f"{self.path}: not a dataset, {part} is missing; make one with 'scanner simulate dataset'."
                )
            if part != CUTOUTS and (kind := irregular(self.path / part)):
                raise ContentError(f"{self.path / part}: {kind}; {_AGAIN}")
        self._described = self._read_description()
        self.store = CutoutStore(self.path / CUTOUTS, self._damaged_cutouts)
        self.truth = read_truth(self.path / TRUTH)
        if len(self.store) != len(self.truth):
            raise ContentError(
                f"{self.path}: {len(self.store)} cutouts but {len(self.truth)} rows of truth; draw the dataset again."
            )
        if not np.array_equal(self.store.target_id, self.truth.target_id):
            raise ContentError(f"{self.path / TRUTH}: its target_id are not those of the cutouts; draw the dataset again.")

    def _damaged_cutouts(self, reason: str) -> ContentError:
        return ContentError(f"{self.path / CUTOUTS}: {reason}; remove {self.path} and draw the dataset again.")

    def _read_description(self) -> dict[str, Any]:
        """Read the description, and compare files with what it says of them, where it does: a set made by hand need not."""
        where = self.path / DESCRIPTION
        if where.stat().st_size > MOST_DESCRIPTION_BYTES:
            raise ContentError(f"{where}: is longer than {MOST_DESCRIPTION_BYTES >> 20} MB; {_AGAIN}")
        content = where.read_bytes()
        try:
            if b'"sha256"' in content or b'"checksum"' in content:
                content = unsealed(content)
            described = json.loads(content)
            if not isinstance(described, dict):
                raise ValueError("no JSON object")
        except (ValueError, RecursionError) as error:
            raise ContentError(f"{where}: damaged ({error}); remove {self.path} and draw the dataset again.") from None
        listed: dict[str, str] = described.get("sha256", {})
        found = described_sha256(self.path) if listed else {}
        for name, sha256 in listed.items():
            if name not in found:
                raise InputMissingError(f"{self.path / name}: is missing; remove {self.path} and draw the dataset again.")
            if found[name] != sha256:
                raise ContentError(
                    f"{self.path / name}: damaged (its SHA-256 is not the one in {DESCRIPTION}); "
                    f"remove {self.path} and draw the dataset again."
                )
        return described

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over the description and the truth table."""
        digest = hashlib.sha256()
        for part in (DESCRIPTION, TRUTH):
            digest.update((self.path / part).read_bytes())
        return digest.hexdigest()

    @property
    def content_key(self) -> str:
        """Hex SHA-256 over fingerprint, names and sizes of the cutouts' files: other pixels of the same truth have another."""
        digest = hashlib.sha256(self.fingerprint.encode())
        folder = self.path / CUTOUTS
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        return digest.hexdigest()

    @property
    def description(self) -> str:
        """The text of ``dataset.json``."""
        return (self.path / DESCRIPTION).read_text(encoding="utf-8")

    @property
    def drawn_from(self) -> str | None:
        """``drawn:PRESET:SEED``, where the description says so."""
        request = self._request
        return f"{DRAWN}{request['preset']}:{request['seed']}" if request.keys() >= {"preset", "seed"} else None

    def was_seen_by(self, trained_on: Collection[str]) -> bool:
        """Whether it, or a part of it or more of it, is among sets that something was trained on, by their fingerprints."""
        return self.fingerprint in trained_on or self.drawn_from in {name.rpartition(":")[0] for name in trained_on}

    @property
    def part_of(self) -> str | None:
        """Fingerprint of the set that its rows were taken from, where the description says so."""
        found = self._described.get("part_of")
        return found if isinstance(found, str) else None

    @property
    def preset(self) -> str:
        """Name of the preset that it was drawn with; the folder's name where the description does not say."""
        return str(self._request.get("preset", self.path.name))

    @property
    def is_for_evaluation_only(self) -> bool:
        """Whether the description says, of itself or of its preset, that nothing may be trained on it."""
        try:
            return "evaluation" in (self._described.get("purpose"), dict(self._described.get("preset") or {}).get("purpose"))
        except (ValueError, TypeError):
            return False

    @property
    def fields(self) -> list[str] | None:
        """Tile or field of each object, of which no two parts of a split share one; None where the truth does not say."""
        if FIELD_COLUMN.name not in pyarrow.parquet.read_schema(self.path / TRUTH).names:
            return None
        return list(_read_table(self.path / TRUTH, [FIELD_COLUMN.name])[FIELD_COLUMN.name].to_pylist())

    @property
    def _request(self) -> dict[str, Any]:
        """What was asked of the simulator; nothing where the description does not say."""
        try:
            return dict(self._described["request"])
        except (ValueError, KeyError, TypeError):
            return {}

    def column(self, name: str) -> Float64 | None:
        """One more column of the truth table, (N,) float64, row-aligned; None where the table has no such column."""
        if name not in pyarrow.parquet.read_schema(self.path / TRUTH).names:
            return None
        return np.asarray(_read_table(self.path / TRUTH, [name])[name].to_numpy(), dtype=np.float64)

    @property
    def visible_single_lenses(self) -> NDArray[np.bool_]:
        """Lenses whose arcs are visible, of one source and one deflector: those with one Einstein radius, (N,) bool."""
        deflectors = self.column("n_deflectors")
        lenses: NDArray[np.bool_] = self.truth.is_lens & self.truth.visible & (self.truth.class_name == "lens")
        return lenses if deflectors is None else lenses & (deflectors == 1)

    def batches(self, rows: Int64, size: int) -> Iterator[tuple[CutoutBatch, Float32, Float32]]:
        """Read rows in order: batches of at most ``size``, with VIS and NISP free of NaN."""
        for start in range(0, len(rows), size):
            batch = self.store.read(rows[start : start + size])
            yield batch, *fill_bad_pixels(batch)


R = TypeVar("R", bound=SealedRecord)


class LabelledSetWriter:
    """Writes a labelled set batch by batch; made by :func:`writing_labelled_set`.

    ``path``: the folder until it has its name; further files may be written into it.
    """

    def __init__(self, path: Path, schema: pyarrow.Schema, cutouts: CutoutWriter) -> None:
        self.path = path
        self._schema, self._cutouts = schema, cutouts
        self._truth: list[Mapping[str, Any]] = []
        self.is_finished = False

    def __len__(self) -> int:
        return len(self._truth)

    def append(self, batch: CutoutBatch, truth: Sequence[Mapping[str, Any]]) -> None:
        """Add cutouts and their rows of truth, which are as many; a row's ``target_id`` and place are those of its cutout."""
        x, y = (batch.offset.T * VIS_PIXEL_SCALE_ARCSEC).astype(np.float64)
        for target_id, x_arcsec, y_arcsec, row in zip(batch.targets.target_id, x, y, truth, strict=True):
            place = {"target_id": int(target_id), "x_arcsec": float(x_arcsec), "y_arcsec": float(y_arcsec)}
            self._truth.append({**row, **place})
        self._cutouts.append(batch)

    def finish(self, record: R) -> R:
        """Write the truth and, with the checksums of all files, the description; the set is whole then."""
        self._cutouts.close()
        truth = pyarrow.Table.from_pylist(self._truth, schema=self._schema)
        pyarrow.parquet.write_table(truth, self.path / TRUTH, write_page_checksum=True)
        record = record.model_copy(update={"sha256": described_sha256(self.path)})
        (self.path / DESCRIPTION).write_bytes(record.to_bytes())
        self.is_finished = True
        return record


@contextmanager
def writing_labelled_set(out: Path, schema: pyarrow.Schema, name: str) -> Iterator[LabelledSetWriter]:
    """Write a set of cutouts of several tiles; it appears under its name if it is finished when the block ends.

    Parameters
    ----------
    out
        Its folder, which must not exist.
    schema
        Of its truth: :data:`TRUTH_COLUMNS` and further columns.
    name
        Recorded in the store in the place of a tile's id.

    Raises
    ------
    OutputError
        The folder is there already, or cannot be written.
    """
    if out.exists():
        raise OutputError(f"{out}: is there already; choose another --out or remove it.")
    partial = partial_name(out)
    none, unknown = dict.fromkeys(BANDS, ""), dict.fromkeys(BANDS, np.nan)
    try:
        with writing_to(out):
            partial.mkdir(parents=True)
            cutouts = CutoutWriter(
                partial / CUTOUTS, tile_id=name, wcs_header="", zero_points=unknown, units=none, codec="exact"
            )
            writer = LabelledSetWriter(partial, schema, cutouts)
            yield writer
            if writer.is_finished:
                flush_tree(partial)
                partial.rename(out)
    finally:
        remove(partial)


def described_sha256(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a dataset that have no checksum of their own: its tables, and what describes its cutouts."""
    files = [*folder.glob("*.parquet"), *(folder / CUTOUTS).rglob("zarr.json")]
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in sorted(files)}


def read_truth(path: Path) -> Truth:
    """Read ``truth.parquet``.

    Raises
    ------
    ContentError
        Not Parquet, or columns missing.
    """
    table = _read_table(path)
    missing = [one.name for one in TRUTH_COLUMNS if one.name not in table.column_names]
    if missing:
        raise ContentError(f"{path}: column {', '.join(missing)} is missing; {_AGAIN}")
    for one in TRUTH_COLUMNS:
        if wrong := _wrong(table[one.name], one):
            raise ContentError(f"{path}: column {one.name} {wrong}; {_AGAIN}")
    return Truth(
        target_id=table["target_id"].to_numpy().astype(np.int64),
        is_lens=table["is_lens"].to_numpy().astype(bool),
        class_name=np.asarray(table["class_name"].to_pylist(), dtype=np.str_),
        arc_snr=table["arc_snr"].to_numpy().astype(np.float32),
        visible=table["visible"].to_numpy().astype(bool),
        position=np.nan_to_num(np.stack([table[name].to_numpy() for name in ("y_arcsec", "x_arcsec")], axis=1)).astype(
            np.float32
        ),
    )


def _wrong(values: pyarrow.ChunkedArray, expected: Column) -> str:
    """What is wrong with a column of truth, "" for nothing: what is no label must not become one."""
    type_, is_of = values.type, pyarrow.types
    kinds = {
        "bool": is_of.is_boolean(type_),
        "string": is_of.is_string(type_) or is_of.is_large_string(type_),
        "int64": is_of.is_integer(type_),
    }
    if not kinds.get(expected.dtype, is_of.is_floating(type_) or is_of.is_integer(type_)):
        return f"holds {type_}, not {expected.dtype}"
    if values.null_count:
        return "has rows without a value"
    if expected.unit == "arcsec" and is_of.is_floating(type_) and pc.any(pc.is_inf(values)).as_py():
        return "is infinite in places"
    longest = pc.max(pc.utf8_length(values)).as_py() if expected.dtype == "string" else 0
    return f"holds a name of {longest} letters" if (longest or 0) > LONGEST_NAME else ""


def _read_table(path: Path, columns: list[str] | None = None) -> pyarrow.Table:
    try:
        return pyarrow.parquet.read_table(path, columns=columns, page_checksum_verification=True)
    except (OSError, pyarrow.ArrowInvalid):
        raise ContentError(f"{path}: not a readable Parquet file; draw the dataset again.") from None


def local_datasets(locations: Sequence[str], copies: Path, storage: StorageConfig) -> tuple[Path, ...]:
    """The folders of datasets, in order; those on an object store are copied below ``copies`` unless they are there."""
    return tuple(_copied(one, copies, storage) if is_remote(one) else Path(one) for one in locations)


def _copied(location: str, copies: Path, storage: StorageConfig) -> Path:
    store = open_store(location, storage)
    versions = []
    for part in (DESCRIPTION, TRUTH, CUTOUTS):
        entry = store.entry(part)
        if entry is None:
            raise InputMissingError(
                f"{location}: not a dataset, {part} is missing; upload what 'scanner simulate dataset' makes."
            )
        versions.append(entry.version)
    name = split(location)[1]
    copy = copies / f"{name}-{hashlib.sha256(' '.join([location, *versions]).encode()).hexdigest()[:12]}"
    if not copy.exists():
        store.fetch("", copy)
    return copy
