"""The cutout store: bytes per object, write and read rates of both codecs, and what ``compact`` does to the scores.

    python benchmarks/storing.py [--store CUTOUTS.zarr] [--objects 2048] [--bundle BUNDLE] [--settings]

Cutouts come from a synthetic tile, or from a store such as a simulated data set's (``--store``, codec ``exact``). Rates are
objects per CPU second of this process. ``--bundle`` scores every cutout before and after the round trip (``default``: the one
that ships with scanner). ``--settings`` compares compressors.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from synthetic_tile import write_tile
from zarr.codecs import BloscCodec

from scanner.config import CutoutsConfig
from scanner.cutouts import store as compact
from scanner.cutouts.extract import cut
from scanner.cutouts.quality import fill_bad_pixels
from scanner.cutouts.store import CHUNK_OBJECTS, SHARD_OBJECTS, CutoutStore, CutoutWriter
from scanner.records import MEMBERS, CodecName, CutoutBatch
from scanner.sky.tile_images import open_tile


def source(store: str | None, folder: Path, objects: int) -> Iterator[CutoutBatch]:
    """Batches to store."""
    if store is not None:
        opened = CutoutStore(store)
        for start in range(0, min(objects, len(opened)), SHARD_OBJECTS):
            yield opened.read(slice(start, min(start + SHARD_OBJECTS, objects)))
        return
    tile, targets = write_tile(folder, 4800, "slice", objects)
    with open_tile(tile, CutoutsConfig()) as images:
        yield from cut(images, targets, 64)


def folder_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def measure(name: CodecName, batches: list[CutoutBatch], path: Path) -> CutoutStore:
    count = sum(len(batch) for batch in batches)
    start = time.process_time()
    with CutoutWriter(path, tile_id="1", wcs_header="", zero_points={}, units={}, codec=name) as writer:
        for batch in batches:
            writer.append(batch)
    writing = time.process_time() - start
    store = CutoutStore(path)
    start = time.process_time()
    for _ in store.batches():
        pass
    reading = time.process_time() - start
    chosen = np.random.default_rng(0).integers(0, count, 100)
    start = time.perf_counter()
    for index in chosen:
        store.read(int(index))
    single = (time.perf_counter() - start) / len(chosen)
    print(
        f"{name:8s} {folder_bytes(path) / count / 1000:7.1f} kB an object, write {count / writing:6.0f}/s, "
        f"read {count / reading:6.0f}/s, one object {1000 * single:.1f} ms"
    )
    return store


def compare_scores(bundle: str, batches: list[CutoutBatch], store: CutoutStore) -> None:
    """Probabilities before and after the round trip through ``compact``."""
    from scanner.ensemble import bundles
    from scanner.ensemble.session import Scorer

    scorer = Scorer(bundles.load(None if bundle == "default" else bundle), "cpu", 1)
    change, calibrated, decided, first = [], [], 0, 0
    for before in batches:
        after = store.read(slice(first, first + len(before)))
        first += len(before)
        scores = [
            scorer.score(*fill_bad_pixels(batch), batch.sky, batch.sigma, batch.bad_fraction, batch.flags)
            for batch in (before, after)
        ]
        change.append(np.abs(scores[1].probabilities - scores[0].probabilities))
        calibrated.append(np.abs(scores[1].calibrated - scores[0].calibrated))
        decided += int((scores[1].decision != scores[0].decision).sum())
    values = np.concatenate(change)
    values = values[np.isfinite(values).all(axis=1)]
    print(f"change of scores under compact, {len(values)} objects, bundle {scorer.bundle.path}:")
    columns = dict(zip(MEMBERS, values.T, strict=True)) | {"calibrated": _finite(np.concatenate(calibrated))}
    for name, column in columns.items():
        p99 = np.quantile(column, 0.99)
        print(f"  {name:10s} |dp| max {column.max():.1e}, p99 {p99:.1e}, median {np.median(column):.1e}")
    print(f"  decisions that changed: {decided}")


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[np.isfinite(values)]


def compare_settings(batches: list[CutoutBatch], folder: Path) -> None:
    """Compressors on the VIS images."""
    vis = np.concatenate([batch.vis for batch in batches])
    codes = np.concatenate([compact.encode(batch.vis, batch.sky[:, 0], batch.sigma[:, 0]) for batch in batches])
    for label, data in (("exact", vis), ("compact", codes)):
        for shuffle in ("shuffle", "bitshuffle"):
            for name, level in (("lz4", 5), ("zstd", 1), ("zstd", 3)):
                path = folder / f"{label}-{shuffle}-{name}-{level}"
                array = zarr.create_array(
                    path,
                    shape=data.shape,
                    chunks=(CHUNK_OBJECTS, *data.shape[1:]),
                    shards=(SHARD_OBJECTS, *data.shape[1:]),
                    dtype=data.dtype,
                    compressors=BloscCodec(cname=name, clevel=level, shuffle=shuffle, typesize=data.itemsize),
                )
                start = time.process_time()
                for first in range(0, len(data), SHARD_OBJECTS):
                    array[first : first + SHARD_OBJECTS] = data[first : first + SHARD_OBJECTS]
                writing = time.process_time() - start
                start = time.process_time()
                for first in range(0, len(data), SHARD_OBJECTS):
                    array[first : first + SHARD_OBJECTS]
                reading = time.process_time() - start
                print(
                    f"VIS {label:8s} {shuffle:10s} {name}-{level} {folder_bytes(path) / len(data) / 1000:7.1f} kB an object, "
                    f"write {len(data) / writing:6.0f}/s, read {len(data) / reading:6.0f}/s"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store")
    parser.add_argument("--objects", type=int, default=2048)
    parser.add_argument("--bundle")
    parser.add_argument("--settings", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        batches = list(source(arguments.store, folder, arguments.objects))
        measure("exact", batches, folder / "exact.zarr")
        store = measure("compact", batches, folder / "compact.zarr")
        if arguments.bundle:
            compare_scores(arguments.bundle, batches, store)
        if arguments.settings:
            compare_settings(batches, folder)


if __name__ == "__main__":
    main()
