"""More like this, in Python: feature vectors of a run's objects, and which objects are most like one."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError, importing
from scanner.interface.opened import Run
from scanner.interface.progress import bar
from scanner.processes import sigterm_interrupts
from scanner.storage import open_store

if TYPE_CHECKING:
    import pyarrow as pa

    from scanner.interface.objects import Which
    from scanner.records import Float32
    from scanner.survey.folder.ledger import RunFolder

#: What is said of each object, beside its similarity.
SHOWN = ("rank", "name", "ra", "dec", "p_calibrated", "is_candidate", "tile_id", "target_id")


def features(run: str | Path | Run, *, storage: StorageConfig | None = None, progress: bool | None = None) -> int:
    """Compute a short feature vector of each stored cutout of a run, as ``scanner features`` does; says of how many.

    What is there already is left, so that the same call goes on. Needs the extra ``train``.

    Raises
    ------
    UsageError
        No cutout is stored.
    ScannerError
        The run or its bundle cannot be used, or the folder is in use.
    """
    from scanner.ensemble import bundles

    with importing("features", "train"):
        from scanner.training.from_grades import write_run_features
    folder = _folder(run, storage)
    record = folder.record()
    bundle = bundles.load(record.config.scoring.bundle, storage or record.config.storage)
    if bundle.fingerprint != record.bundle_fingerprint:
        raise ContentError(f"{bundle.location}: no longer the bundle of {folder.location}; bring {record.bundle} back.")
    with sigterm_interrupts(), folder.store.held(), bar("features", shown=progress, unit="tiles") as move:
        return write_run_features(folder, bundle, move)


def similar(run: str | Path | Run, like: Which | Path, *, top: int = 20, storage: StorageConfig | None = None) -> pa.Table:
    """Objects of a run that are most like one, by what a network sees in them, as ``scanner query --like`` does.

    Parameters
    ----------
    run
        A run of which :func:`features` were computed.
    like
        An object of the run (see :meth:`Run.find <scanner.interface.opened.Opened.find>`), or the path of a cutout as FITS, as
        ``scanner replay --out`` writes one: extensions VIS (200 × 200 pixels of 0.1″) and Y, J, H (66 × 66 of 0.3″).
    top
        So many objects.

    Returns
    -------
    pyarrow.Table
        ``similarity`` (1: the same; 0: nothing in common beyond what all have) and the columns :data:`SHOWN`, best first.

    Raises
    ------
    InputMissingError
        There are no features, the object has none, or the file is not there.
    ContentError
        The file is no such cutout.
    """
    from scanner.grading.similar import objects_like, read_features

    folder = _folder(run, storage)
    opened = run if isinstance(run, Run) else Run(str(run), storage)
    table = read_features(folder)
    if str(like).endswith((".fits", ".fits.gz")):
        vector = _vector_of(Path(str(like)), folder)
    else:
        (found,) = opened.find(like).select(["tile_id", "target_id"]).to_pylist()
        row = table.row_of(found["tile_id"], found["target_id"])
        if row is None:
            raise InputMissingError(f"{folder.location}: the cutout of {like} is not stored, so it has no features.")
        vector = table.values[row].astype(np.float32)
    return objects_like(table, vector, top, opened.catalogue.source().relation, opened.catalogue.query, SHOWN)


def _folder(run: str | Path | Run, storage: StorageConfig | None) -> RunFolder:
    from scanner.survey.folder.ledger import RunFolder

    return RunFolder(open_store(run.location if isinstance(run, Run) else str(run), storage or StorageConfig()))


def _vector_of(path: Path, folder: RunFolder) -> Float32:
    """The vector of a cutout in a FITS file."""
    from scanner.cutouts.framed import read_cutout
    from scanner.grading.similar import read_basis

    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error):
        raise InputMissingError(f"{path}: there is no such file that can be read.") from None
    basis = read_basis(folder, folder.record().bundle_fingerprint)
    if basis is None:
        raise InputMissingError(f"{folder.location}: has no features; 'scanner features' makes them.")
    return basis.vector_of(read_cutout(content, str(path)))
