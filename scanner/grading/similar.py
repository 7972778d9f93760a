"""More like this: short feature vectors of a run's objects, kept in its folder, and which are most like a given one.

``features/BUNDLE/TILE.parquet`` has a row for each stored cutout of a tile, in 16-bit floats with a checksum of every page;
``axes.npz`` beside them makes such a vector of any other cutout: it holds the network and the axes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanner.cutouts.quality import fill_bad_pixels
from scanner.errors import ContentError, InputMissingError, importing
from scanner.query.region import SqlPart
from scanner.records import CommitRecord, CutoutBatch, Float32, Int64, MemberName
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
    """``mean`` (F,) and principal ``axes`` (D, F) of the features that ``network``, an ONNX graph, finds in cutouts."""

    mean: Float32
    axes: Float32
    network: bytes

    @classmethod
    def of(cls, features: Float32, network: bytes) -> Basis:
        """The axes along which the features (N, F) of some objects differ most."""
        mean = features.mean(axis=0, dtype=np.float64)
        axes = np.linalg.svd(features - mean, full_matrices=False)[2][:DIMENSIONS]
        return cls(mean.astype(np.float32), axes.astype(np.float32), network)

    def apply(self, features: Float32) -> Float32:
        """Vectors (N, D) of features (N, F)."""
        return np.asarray((features - self.mean) @ self.axes.T, dtype=np.float32)

    def vector_of(self, cutout: CutoutBatch) -> Float32:
        """The vector (D,) of a cutout of any origin, a batch of one; missing pixels are filled as a scan fills them.

        Raises
        ------
        ContentError
            The network cannot be run.
        """
        with importing("features of a cutout", "cpu"):
            import onnxruntime
        from scanner.ensemble.session import open_graph

        session = open_graph(onnxruntime, self.network, Path(AXES), "cpu", 1)
        vis, nisp = fill_bad_pixels(cutout)
        arrays = {"vis": vis, "nisp": nisp, "sky": cutout.sky, "sigma": cutout.sigma}
        (features,) = session.run(None, {node.name: arrays[node.name] for node in session.get_inputs()})
        return np.asarray(self.apply(features)[0], dtype=np.float32)


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
    """What makes vectors by a bundle; None: there are none yet.

    Raises
    ------
    ContentError
        The file is damaged, or an earlier version made it.
    """
    try:
        content = folder.store.read(_key(bundle_fingerprint, AXES))
    except FileNotFoundError:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return Basis(arrays["mean"], arrays["axes"], arrays["network"].tobytes())
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        where = folder.store.where(_key(bundle_fingerprint, AXES))
        raise ContentError(
            f"{where}: damaged, or made by an earlier version ({type(error).__name__}); remove the folder it lies in, and "
            "'scanner features' makes it again."
        ) from None


def write_basis(folder: RunFolder, bundle_fingerprint: str, basis: Basis) -> None:
    """Keep what makes vectors by a bundle."""
    buffer = io.BytesIO()
    np.savez(buffer, mean=basis.mean, axes=basis.axes, network=np.frombuffer(basis.network, np.uint8))
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


def has_features(published: Published) -> bool:
    """Whether vectors of a run's objects were made; not of a survey, nor by an earlier bundle."""
    return _features_of(published) is not None


def features_if_any(published: Published) -> FeatureTable | None:
    """The vectors of a run's objects; None where there are none, and of a survey."""
    return None if _features_of(published) is None else read_features(published.runs[0])


def basis_if_any(published: Published) -> Basis | None:
    """What makes such vectors of other cutouts; None likewise."""
    found = _features_of(published)
    return None if found is None else read_basis(*found)


def _features_of(published: Published) -> tuple[RunFolder, str] | None:
    """The run and the fingerprint of the bundle that its vectors are by."""
    if published.version is not None or len(published.runs) != 1:
        return None
    (folder,) = published.runs
    fingerprint = folder.record().bundle_fingerprint
    return (folder, fingerprint) if folder.store.exists(_key(fingerprint, AXES)) else None


def objects_like(
    features: FeatureTable,
    vector: Float32,
    n: int,
    objects: SqlPart,
    ask: Callable[[str, Sequence[object]], pa.Table],
    columns: Sequence[str] = ("*",),
) -> pa.Table:
    """The objects of a catalogue that are most like a vector, best first.

    Parameters
    ----------
    features, vector, n
        Vectors of the run; what is compared with them; so many objects.
    objects, ask
        The catalogue's objects, and what asks them: a SELECT and its parameters.
    columns
        What is said of each; with rank, tile_id and target_id.

    Returns
    -------
    pyarrow.Table
        ``similarity`` and the columns.
    """
    # Rows that lost to another tile's row of the same object are not in the catalogue.
    rows, cosine = features.most_like(vector, 4 * n)
    place = {
        (features.tile_id[row], int(features.target_id[row])): float(value) for row, value in zip(rows, cosine, strict=True)
    }
    wanted = ", ".join(str(target_id) for _, target_id in place)
    sql = f"SELECT {', '.join(columns)} FROM {objects.sql} WHERE target_id IN ({wanted})"
    found = ask(sql, objects.parameters)
    keys = zip(found["tile_id"].to_pylist(), found["target_id"].to_pylist(), strict=True)
    values = np.array([place.get(key, np.nan) for key in keys], dtype=np.float32)
    order = np.lexsort((found["rank"].to_numpy(), -values))
    order = order[np.isfinite(values[order])][:n]
    return found.add_column(0, "similarity", pa.array(values)).take(pa.array(order))


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
