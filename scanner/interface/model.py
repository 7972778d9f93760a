"""Lens models of a run's objects in Python: fitted on its workers, and handed to other software."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scanner.config import RunConfig, StorageConfig
from scanner.errors import InputMissingError
from scanner.interface.opened import Run
from scanner.interface.progress import bar
from scanner.processes import sigterm_interrupts
from scanner.storage import open_store

if TYPE_CHECKING:
    from astropy.cosmology import FLRW
    from astropy.units import Quantity

    from scanner.interface.objects import Which
    from scanner.modelling.lens_model import LensModel
    from scanner.modelling.panels import Format
    from scanner.modelling.stage import ModelReport


def model(
    run: str | Path | Run,
    *,
    top: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    storage: StorageConfig | None = None,
    progress: bool | None = None,
) -> ModelReport:
    """Fit a lens model to the best objects of a finished run, as ``scanner model`` does.

    Each gets ``models/TILE/TARGET/`` in the run folder, and a row of ``models.parquet``. What is modelled already is not done
    again; an object that cannot be modelled gets a record that says why, and never stops the rest.

    Parameters
    ----------
    run
        A run folder, or what :func:`scanner.scan` returned.
    top
        So many objects by rank; by default the candidates that the contact sheet may show.
    workers, scheduler
        Worker processes, or the address of a standing Dask scheduler; by default as the run had them.
    storage
        How object stores are reached; by default as the run reached them.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Returns
    -------
    ModelReport
        ``models``, best object first; ``n_before``, ``n_done``, ``failed``.

    Raises
    ------
    ScannerError
        The run is not finished, is damaged, or is in use by another process.

    Examples
    --------
    >>> import scanner
    >>> report = scanner.model("scan", top=1, workers=1)
    >>> report.models[0].verdict in ("certified", "consistent", "no evidence", "better without a lens", "refused")
    True
    """
    from scanner.modelling.stage import model_run
    from scanner.survey.folder.ledger import RunFolder

    opened = _run(run, storage)
    folder = RunFolder(open_store(opened.location, storage or StorageConfig()))
    config = worked_on(folder.record().config, workers, scheduler, storage)
    with sigterm_interrupts(), bar("modelling", shown=progress, unit="candidates") as move:
        return model_run(opened.location, config, move, top)


def einstein_mass(theta_e: Any, z_lens: Any, z_source: Any, cosmology: FLRW | None = None) -> Quantity:
    """Mass within an Einstein radius, where redshifts are known: θ_E² c² / 4G times D_l D_s / D_ls.

    Parameters
    ----------
    theta_e
        Einstein radius, such as the column ``theta_e``: an angle with a unit, or arcsec.
    z_lens, z_source
        Redshifts of the lens and of what is behind it; arrays and numbers are broadcast.
    cosmology
        Of :mod:`astropy.cosmology`; Planck's of 2018 by default.

    Returns
    -------
    Quantity
        Solar masses, within a circle of that radius; NaN where the source is not behind the lens.

    Examples
    --------
    >>> import scanner
    >>> f"{scanner.einstein_mass(1.0, 0.5, 2.0):.3g}"
    '2.52e+11 solMass'
    """
    from astropy import constants, units
    from astropy.cosmology import Planck18

    cosmos = Planck18 if cosmology is None else cosmology
    angle = units.Quantity(theta_e, units.arcsec).to_value(units.rad)
    near, far = np.broadcast_arrays(np.asarray(z_lens, dtype=np.float64), np.asarray(z_source, dtype=np.float64))
    behind = (near > 0.0) & (far > near)
    # What is not behind the lens is given a place where the formula holds, and NaN in the end.
    near, far = np.where(behind, near, 0.5), np.where(behind, far, 1.0)
    d_near, d_far = (cosmos.comoving_transverse_distance(z) for z in (near, far))
    # Hogg (1999), equation 19: from the lens to the source, in a universe of any curvature.
    curvature = cosmos.Ok0 / cosmos.hubble_distance**2
    between = d_far * np.sqrt(1.0 + curvature * d_near**2) - d_near * np.sqrt(1.0 + curvature * d_far**2)
    distance = d_near * d_far / between / (1.0 + near)
    mass = (angle**2 * constants.c**2 / (4.0 * constants.G) * distance).to(units.solMass)
    return np.where(behind, mass, np.nan * units.solMass)


def export_model(
    run: str | Path | Run,
    which: Which,
    out: str | Path | None = None,
    *,
    to: Format = "fits",
    storage: StorageConfig | None = None,
) -> Path:
    """Hand the lens model of one object to other software, as ``scanner export-model`` does.

    Parameters
    ----------
    run
        A run folder, or what :func:`scanner.scan` returned.
    which
        Rank, name, place or row of the object; see :meth:`Run.find <scanner.interface.opened.Opened.find>`.
    out
        Folder to make; by default ``TILE-TARGET-model``, here.
    to
        ``"fits"``: images and record; ``"lenstronomy"``: these, and the arguments of lenstronomy's classes;
        ``"herculens"``: likewise, of herculens' classes;
        ``"pyautolens"``: a dataset of the Euclid strong lens modelling pipeline, with the best fit to start from.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputMissingError
        The object is not there, or was not modelled.
    OutputError
        The folder is there already.
    """
    from scanner.modelling import panels

    opened = _run(run, storage)
    found = model_of(opened, which, storage)
    folder = Path(f"{found.tile_id}-{found.target_id}-model" if out is None else out)
    panels.hand_over(open_store(opened.location, storage or StorageConfig()), found, to, folder)
    return folder


def model_of(run: Run, which: Which, storage: StorageConfig | None = None) -> LensModel:
    """The lens model of one object of a run.

    Raises
    ------
    InputMissingError
        The object is not there, or was not modelled.
    """
    from scanner.modelling import lens_model

    row = run.find(which).slice(0, 1).to_pylist()[0]
    found = lens_model.read(open_store(run.location, storage or StorageConfig()), row["tile_id"], row["target_id"])
    if found is None:
        raise InputMissingError(
            f"{run.location}: {row['tile_id']}/{row['target_id']} has no lens model; 'scanner model {run.location} --top "
            f"{row['rank']}' makes those of the best {row['rank']}."
        )
    return found


def _run(run: str | Path | Run, storage: StorageConfig | None) -> Run:
    return run if isinstance(run, Run) else Run(str(run), storage)


def worked_on(config: RunConfig, workers: int | None, scheduler: str | None, storage: StorageConfig | None) -> RunConfig:
    """A run's configuration with other workers and another way to its stores."""
    changes = {name: value for name, value in (("workers", workers), ("scheduler", scheduler)) if value is not None}
    config = config.model_copy(update={"engine": config.engine.model_copy(update=changes)})
    return config if storage is None else config.model_copy(update={"storage": storage})
