"""More like this, in Python: feature vectors of a run's objects, and which objects are most like one."""

from __future__ import annotations

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
        from scanner.training.features import write_run_features
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
    import pyarrow as pa

    from scanner.grading.similar import read_features

    folder = _folder(run, storage)
    opened = run if isinstance(run, Run) else Run(str(run), storage)
    table = read_features(folder)
    if str(like).endswith((".fits", ".fits.gz")):
        vector = _vector_of(Path(str(like)), folder, storage)
    else:
        (found,) = opened.find(like).select(["tile_id", "target_id"]).to_pylist()
        row = table.row_of(found["tile_id"], found["target_id"])
        if row is None:
            raise InputMissingError(f"{folder.location}: the cutout of {like} is not stored, so it has no features.")
        vector = table.values[row].astype(np.float32)
    # Rows that lost to another tile's row of the same object are not in the catalogue.
    rows, cosine = table.most_like(vector, 4 * top)
    place = {(table.tile_id[row], int(table.target_id[row])): float(value) for row, value in zip(rows, cosine, strict=True)}
    relation = opened.catalogue.source().relation
    wanted = ", ".join(str(target_id) for _, target_id in place)
    sql = f"SELECT {', '.join(SHOWN)} FROM {relation.sql} WHERE target_id IN ({wanted})"
    objects = opened.catalogue.query(sql, relation.parameters)
    keys = list(zip(objects["tile_id"].to_pylist(), objects["target_id"].to_pylist(), strict=True))
    values = np.array([place.get(key, np.nan) for key in keys], dtype=np.float32)
    order = np.lexsort((objects["rank"].to_numpy(), -values))
    order = order[np.isfinite(values[order])][:top]
    return objects.add_column(0, "similarity", pa.array(values)).take(pa.array(order))


def _folder(run: str | Path | Run, storage: StorageConfig | None) -> RunFolder:
    from scanner.survey.folder.ledger import RunFolder

    return RunFolder(open_store(run.location if isinstance(run, Run) else str(run), storage or StorageConfig()))


def _vector_of(path: Path, folder: RunFolder, storage: StorageConfig | None) -> Float32:
    """The vector of a cutout in a FITS file."""
    from astropy.io import fits

    from scanner.ensemble import bundles
    from scanner.grading.similar import MEMBER, read_basis
    from scanner.interface.bundle import cutouts_of

    with importing("features", "train"):
        from scanner.training.features import FeatureSession
    record = folder.record()
    try:
        with fits.open(path, memmap=False) as hdus:
            bands = {name: np.asarray(hdus[name].data, dtype=np.float32) for name in ("VIS", "Y", "J", "H")}
        batch = cutouts_of(bands["VIS"], np.stack([bands[name] for name in ("Y", "J", "H")]))
    except FileNotFoundError:
        raise InputMissingError(f"{path}: there is no such file.") from None
    except (OSError, KeyError, ValueError, TypeError):
        raise ContentError(
            f"{path}: is no cutout; it needs the extensions VIS (200 x 200 pixels) and Y, J, H (66 x 66)."
        ) from None
    bundle = bundles.load(record.config.scoring.bundle, storage or record.config.storage)
    basis = read_basis(folder, record.bundle_fingerprint)
    if basis is None:
        raise InputMissingError(f"{folder.location}: has no features; 'scanner features' makes them.")
    vector: Float32 = basis.apply(FeatureSession(bundle, (MEMBER,), logits=False)(batch).values[MEMBER])[0]
    return vector
