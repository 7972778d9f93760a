"""Flip bits in every kind of file of a run and a survey; count which are named, harmless, or served as wrong answers.

python benchmarks/damage.py FOLDER --flips 100
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

import scanner
from scanner.config import StorageConfig
from scanner.errors import ScannerError
from scanner.storage import open_store
from scanner.survey.folder.ledger import RunFolder


def of_catalogue(location: Path) -> str:
    """Hash of all that readers get of a catalogue: every row, and the list of candidates."""
    opened = scanner.open(location)
    digest = hashlib.sha256(_bytes(opened.query(arrow=True)))
    digest.update(str(opened.candidates.as_array().tolist()).encode())
    return digest.hexdigest()


def of_tile(location: Path, scratch: Path) -> Callable[[Path], str]:
    """What hashes all that merging and readers get of a tile."""

    def read(path: Path) -> str:
        folder = RunFolder(open_store(str(location), StorageConfig()))
        tile_id = path.relative_to(location / "tiles").parts[0]
        commit = folder.commit_of(tile_id)
        if commit is None:
            return "none"
        folder.verify(commit)
        digest = hashlib.sha256(commit.model_dump_json().encode() + _bytes(folder.scores(commit)))
        stored = folder.cutouts(commit, scratch)
        if stored is not None:
            digest.update(stored.attributes.model_dump_json().encode())
            for batch in stored.batches():
                for array in (batch.vis, batch.nisp, batch.flags, *vars(batch.targets).values()):
                    digest.update(array.tobytes())
        return digest.hexdigest()

    return read


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def outcomes(path: Path, read: Callable[[], str], flips: int, seed: int) -> Counter[str]:
    """Flip bits one after the other, each alone, and read."""
    whole, expected = path.read_bytes(), read()
    random = np.random.default_rng([seed, *path.name.encode()])
    found: Counter[str] = Counter()
    for _ in range(flips):
        content = bytearray(whole)
        content[random.integers(0, len(whole))] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(content)
        try:
            found["same" if read() == expected else "WRONG"] += 1
        except ScannerError:
            found["named"] += 1
        except Exception as error:
            found[f"internal error ({type(error).__name__})"] += 1
    path.write_bytes(whole)
    return found


def kind_of(path: Path) -> str:
    """What a file is one of many of."""
    return "Npix=….parquet" if path.name.startswith("Npix") else "/".join(path.parts[-2:]) if "c" in path.parts else path.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="made if need be: two simulated tiles, their run and its survey")
    parser.add_argument("--flips", type=int, default=100, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    sky, run, survey = (arguments.folder / name for name in ("sky", "run", "survey"))
    if not run.exists():
        scanner.simulate(sky, 2, 640, seed=3, progress=False)
        scanner.scan(sky / "tile-list.txt", run, keep="all", progress=False)
        scanner.merge([run], survey)
    total: Counter[str] = Counter()
    for what, folder in (("run", run), ("survey", survey)):
        files = {kind_of(path): path for path in sorted(folder.rglob("*")) if path.is_file() and "tiles" not in path.parts}
        for kind in sorted(files.keys() - {".lock", "status.json"}):
            found = outcomes(files[kind], lambda folder=folder: of_catalogue(folder), arguments.flips, arguments.seed)
            total += found
            print(f"{what:7} {kind:24} {dict(found)}", flush=True)
    for kind, path in {kind_of(path): path for path in sorted((run / "tiles").rglob("*")) if path.is_file()}.items():
        read = of_tile(run, arguments.folder)
        found = outcomes(path, lambda path=path, read=read: read(path), arguments.flips, arguments.seed)
        total += found
        print(f"tile    {kind:24} {dict(found)}", flush=True)
    print(dict(total))
    sys.exit(any(kind not in ("named", "same") for kind in total))


if __name__ == "__main__":
    main()
