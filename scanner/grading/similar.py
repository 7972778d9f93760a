"""More like this: short feature vectors of a run's objects, kept in its folder, and which are most like a given one.

``features/BUNDLE/TILE.parquet`` has a row for each stored cutout of a tile, in 16-bit floats with a checksum of every page;
``axes.npz`` beside them turns the features of a network into such vectors.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanner.errors import ContentError, InputMissingError
from scanner.records import CommitRecord, Float32, Int64, MemberName
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.published import Published

FEATURES, AXES = "features", "axes.npz"
#: Whose features they are: the member that sees all bands, and is quick.
MEMBER: MemberName = "OU-66"
#: Numbers of a vector at most: a million objects are 128 MB.
DIMENSIONS = 64
_INPUT = b"input_fingerprint"
_AGAIN = "'scanner features' makes it again once it is removed"


@dataclass(frozen=True)
class Basis:
    """``mean`` (F,) and principal ``axes`` (D, F) of a network's features."""

    mean: Float32
    axes: Float32

    def apply(self, features: Float32) -> Float32:
        """Vectors (N, D) of features (N, F)."""
        return np.asarray((features - self.mean) @ self.axes.T, dtype=np.float32)


@dataclass(frozen=True)
class FeatureTable:
    """Objects and their vectors: ``tile_id`` (N,) object, ``target_id`` (N,), ``values`` (N, D) float16."""

    tile_id: np.typing.NDArray[np.object_]
    target_id: Int64
    values: np.typing.NDArray[np.float16]

    def row_of(self, tile_id: str, target_id: int) -> int | None:
        """Where an object stands; None: it has no vector."""
        found = np.flatnonzero((self.target_id == target_id) & (self.tile_id == tile_id))
        return int(found[0]) if len(found) else None

    def most_like(self, vector: Float32, n: int) -> tuple[Int64, Float32]:
        """The rows most like a vector (D,), best first, and their similarities: cosines of the angles between them."""
        mine = vector / max(float(np.linalg.norm(vector)), 1e-12)
        cosine = np.empty(len(self.values), np.float32)
        # In blocks: in 32 bits all would be twice as much memory.
        for start in range(0, len(cosine), _BLOCK):
            block = self.values[start : start + _BLOCK].astype(np.float32)
            cosine[start : start + _BLOCK] = (block @ mine) / np.maximum(np.linalg.norm(block, axis=1), 1e-12)
        n = min(n, len(cosine))
        best = np.argpartition(-cosine, n - 1)[:n] if n else np.empty(0, np.int64)
        # Of equals the first: the same question has the same answer.
        order = best[np.lexsort((best, -cosine[best]))]
        return order, cosine[order]


_BLOCK = 100_000


def read_basis(folder: RunFolder, bundle_fingerprint: str) -> Basis | None:
    """The axes of a bundle's features; None: there are none yet."""
    try:
        content = folder.store.read(_key(bundle_fingerprint, AXES))
    except FileNotFoundError:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return Basis(arrays["mean"], arrays["axes"])
    except (ValueError, KeyError, OSError, EOFError) as error:
        where = folder.store.where(_key(bundle_fingerprint, AXES))
        raise ContentError(f"{where}: damaged ({type(error).__name__}); remove {FEATURES} and make it again.") from None


def write_basis(folder: RunFolder, bundle_fingerprint: str, basis: Basis) -> None:
    """Keep the axes of a bundle's features."""
    buffer = io.BytesIO()
    np.savez(buffer, mean=basis.mean, axes=basis.axes)
    folder.store.write(_key(bundle_fingerprint, AXES), buffer.getvalue())


def write_tile(folder: RunFolder, bundle_fingerprint: str, commit: CommitRecord, target_id: Int64, values: Float32) -> None:
    """Keep the vectors (N, D) of a tile's objects."""
    flat = pa.array(values.astype(np.float16).ravel(), pa.float16())
    table = pa.table(
        {"target_id": pa.array(target_id, pa.int64()), "features": pa.FixedSizeListArray.from_arrays(flat, values.shape[1])}
    ).replace_schema_metadata({_INPUT: commit.input_fingerprint.encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    folder.store.write(_key(bundle_fingerprint, f"{commit.tile_id}.parquet"), buffer.getvalue())


def read_tile(folder: RunFolder, bundle_fingerprint: str, commit: CommitRecord) -> pa.Table | None:
    """The vectors of a tile's objects; None: there are none of its files as they were scanned.

    Raises
    ------
    ContentError
        The table is damaged.
    """
    key = _key(bundle_fingerprint, f"{commit.tile_id}.parquet")
    try:
        content = folder.store.read(key)
    except FileNotFoundError:
        return None
    try:
        table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ContentError(f"{folder.store.where(key)}: damaged ({str(error).splitlines()[0]}); {_AGAIN}.") from None
    return table if (table.schema.metadata or {}).get(_INPUT) == commit.input_fingerprint.encode() else None


def read_features(folder: RunFolder) -> FeatureTable:
    """The vectors of all objects of a run by its bundle.

    Raises
    ------
    InputMissingError
        There are none.
    ContentError
        A table is damaged.
    """
    fingerprint = folder.record().bundle_fingerprint
    tiles = list(_tables(folder, fingerprint))
    if not tiles:
        raise InputMissingError(
            f"{folder.location}: has no features of its bundle; 'scanner features {folder.location}' makes them."
        )
    return FeatureTable(
        np.concatenate([np.full(len(table), tile_id, dtype=object) for tile_id, table in tiles]),
        np.concatenate([table["target_id"].to_numpy() for _, table in tiles]),
        np.concatenate([_values(table) for _, table in tiles]),
    )


def features_if_any(published: Published) -> FeatureTable | None:
    """The vectors of a run's objects; None where there are none, and of a survey."""
    if published.version is not None or len(published.runs) != 1:
        return None
    try:
        return read_features(published.runs[0])
    except InputMissingError:
        return None


def vectors_of(features: FeatureTable, objects: Sequence[tuple[str, int]]) -> Float32:
    """The vectors of some objects, each by its tile and id, (N, D); NaN where there is none."""
    place = {
        (tile_id, int(target_id)): row
        for row, (tile_id, target_id) in enumerate(zip(features.tile_id, features.target_id, strict=True))
    }
    rows = np.array([place.get(one, -1) for one in objects], dtype=np.int64)
    found = features.values[rows].astype(np.float32)
    found[rows < 0] = np.nan
    return found


def _tables(folder: RunFolder, fingerprint: str) -> Iterator[tuple[str, pa.Table]]:
    for tile_id in sorted(folder.committed()):
        commit = folder.commit_of(tile_id)
        table = None if commit is None else read_tile(folder, fingerprint, commit)
        if table is not None:
            yield tile_id, table


def _values(table: pa.Table) -> np.typing.NDArray[np.float16]:
    column = table["features"].combine_chunks()
    return np.asarray(column.values.to_numpy(zero_copy_only=False), np.float16).reshape(len(table), column.type.list_size)


def _key(bundle_fingerprint: str, name: str) -> str:
    return f"{FEATURES}/{bundle_fingerprint[:16]}/{name}"
