"""Recoveries in Python: lenses painted into a run's own tiles, and what the run would have made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from scanner.config import StorageConfig
from scanner.interface.model import worked_on
from scanner.interface.opened import Run
from scanner.interface.progress import bar
from scanner.interface.selection import selection_function
from scanner.processes import sigterm_interrupts
from scanner.storage import Store, absolute, open_store

if TYPE_CHECKING:
    from scanner.recovery.stage import RecoveryReport


def recover(
    run: str | Path | Run,
    *,
    out: str | Path,
    n: int = 20_000,
    seed: int = 0,
    ground: Literal["galaxies", "sky", "both"] = "both",
    population: str | Path | None = None,
    models: int = 500,
    grades: str | Path | None = None,
    known: str | Path | None = None,
    salt: Sequence[str | Path] = (),
    density_deg2: float | None = None,
    density_error: float | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    storage: StorageConfig | None = None,
    progress: bool | None = None,
) -> RecoveryReport:
    """Paint lenses into the tiles of a finished run and scan them as it did, as ``scanner recovery`` does.

    ``lenses.parquet`` in the folder has one row a lens: what it is, its fate, score and rank. What is scanned already is not
    done again. From a hundred lenses on, completeness, purity, map and page are made of them, see
    :func:`scanner.selection_function`.

    Parameters
    ----------
    run
        A run folder, or what :func:`scanner.scan` returned.
    out
        Folder of the recovery.
    n, seed
        Lenses in all, and which: the same numbers paint the same lenses.
    ground
        Paint onto real galaxies, whole lenses into the sky, or both.
    population
        Table that lenses are drawn from (``theta_e_arcsec`` and more); by default the preset ``survey`` of the simulator.
    models
        Where the run has lens models: so many of the painted lenses that rank as high as its modelled objects are modelled too.
    grades, known, salt, density_deg2, density_error
        What purity and completeness by grade take into account, see :func:`scanner.selection_function`; what is given makes its
        files anew.
    workers, scheduler
        Worker processes, or the address of a standing Dask scheduler; by default as the run had them.
    storage
        How object stores are reached; by default as the run reached them.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Returns
    -------
    RecoveryReport
        ``record``, ``n_before``, ``n_done``, ``failed``.

    Raises
    ------
    ScannerError
        The run is not finished or damaged, the folder holds another recovery, or the table cannot be used.

    Examples
    --------
    >>> import scanner
    >>> report = scanner.recover("scan", out="recovery", n=4, seed=1, workers=1)
    >>> report.record.n_lenses, sum(report.record.fates.values())
    (4, 4)
    """
    from scanner.recovery import stage
    from scanner.recovery.paint import RecoveryRequest, read_population
    from scanner.recovery.selection import SELECTION
    from scanner.survey.folder.ledger import RunFolder

    location = run.location if isinstance(run, Run) else str(run)
    folder = RunFolder(open_store(location, storage or StorageConfig()))
    config = worked_on(folder.record().config, workers, scheduler, storage)
    table = None if population is None else read_population(Path(population))
    sha256 = None if table is None else hashlib.sha256(table).hexdigest()
    request = RecoveryRequest(n_lenses=n, seed=seed, ground=ground, population_sha256=sha256, n_models=models)
    # Workers work in folders of their own.
    folder = RunFolder(open_store(absolute(location), config.storage))
    store = open_store(absolute(str(out)), config.storage)
    with sigterm_interrupts(), bar("recovering", shown=progress, unit="lenses") as move:
        report = stage.recover(
            folder, config, store, request, table, move, lambda done, total: move(done, total, "looking closer at some")
        )
    is_asked = bool(salt) or any(value is not None for value in (grades, known, density_deg2, density_error))
    if enough_for_completeness(store) and (report.n_done or is_asked or not store.exists(SELECTION)):
        selection_function(
            run,
            store.root,
            grades=grades,
            known=known,
            salt=salt,
            density_deg2=density_deg2,
            density_error=density_error,
            storage=config.storage,
        )
    return report


def enough_for_completeness(recovery: Store) -> bool:
    """Whether so many of the painted lenses came out as lenses that completeness can be fitted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from scanner.recovery.completeness import LEAST_LENSES
    from scanner.recovery.lenses import LENSES

    came_out = pq.read_table(pa.BufferReader(recovery.read(LENSES)), columns=["is_lens"])["is_lens"]
    return int(np.count_nonzero(came_out.to_numpy())) >= LEAST_LENSES
