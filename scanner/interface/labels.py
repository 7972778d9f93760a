"""Make labelled sets of labels that others gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scanner import config as configuration
from scanner.interface.progress import bar
from scanner.processes import sigterm_interrupts

# Tables and mosaics are read where they are used: a name of the package costs nothing before.
if TYPE_CHECKING:
    from scanner.labels.importing import ImportedSetRecord
    from scanner.labels.table import Purpose


def import_labels(
    table: str | Path,
    out: str | Path,
    *,
    tiles: str | Path | None = None,
    cutouts: str | Path | None = None,
    preset: str | None = None,
    columns: Mapping[str, str] | None = None,
    lens: Sequence[str] = (),
    not_lens: Sequence[str] = (),
    purpose: Purpose | None = None,
    scale_arcsec: float | None = None,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    progress: bool | None = None,
) -> ImportedSetRecord:
    """Make a labelled set of a table of labels, as ``scanner labels import`` does.

    Parameters
    ----------
    table
        CSV, ECSV, FITS, VOTable or Parquet: positions, labels or grades, perhaps weights, files and ids.
    out
        Folder of the set, which must not be there; ``left-out.ecsv`` in it says which rows are not in the set, and why.
    tiles
        A tile list, as of :func:`scanner.scan`: cutouts are cut from its mosaics.
    cutouts
        In its place, a folder of cutouts: FITS, or ``.npy``.
    preset
        Kind of table: ``slde``, ``euclid-sage``, ``zooniverse``, ``anomalymatch``.
    columns
        Names of columns by what they hold: ``ra``, ``dec``, ``label``, ``weight``, ``file``, ``id``, ``grade``, ``field``,
        ``theta_e``.
    lens, not_lens
        Labels of lenses, and of non-lenses; ``>=0.5`` and the like for numbers. Other labels are left out.
    purpose
        ``evaluation``: nothing may be trained on the set; by default the preset's, or ``training``.
    scale_arcsec
        Width of a pixel in cutouts without a WCS.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Returns
    -------
    ImportedSetRecord
        ``n_objects``, ``n_lenses``, and ``n_left_out`` by reason.

    Raises
    ------
    UsageError
        Settings that make no sense.
    InputMissingError, ContentError
        Table, list or folder cannot be used; pixels are of the wrong scale; no row can be used.
    OutputError
        The folder is there already, or cannot be written.

    Examples
    --------
    >>> import scanner
    >>> imported = scanner.import_labels("grades.csv", "graded", tiles="sky/tile-list.txt")  # doctest: +SKIP
    >>> imported.n_objects, imported.n_left_out  # doctest: +SKIP
    (97, {'outside': 3})
    """
    from scanner.labels import importing

    with sigterm_interrupts(), bar("cutting", shown=progress, unit="objects") as move:
        return importing.import_labels(
            Path(table),
            Path(out),
            tiles=None if tiles is None else str(tiles),
            cutouts=None if cutouts is None else Path(cutouts),
            preset=preset,
            columns=columns,
            lens=lens,
            not_lens=not_lens,
            purpose=purpose,
            scale_arcsec=scale_arcsec,
            storage=configuration.load_storage(config, endpoint, anonymous),
            report=move,
        )
