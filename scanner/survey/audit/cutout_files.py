"""One cutout as files: FITS with a WCS for every band, and a picture.

In: one framed cutout. Out: ``<stem>.fits`` (extensions VIS, Y, J, H in the mosaics' own units, NaN where there is no pixel) and
``<stem>.png`` (VIS, VIS coloured by NISP, NISP; as on the contact sheet). Refused: a folder that cannot be written
(:class:`OutputError`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scanner.atomic_file import write_atomically
from scanner.cutouts.cutout_fits import fits_bytes
from scanner.cutouts.framed import FramedCutout
from scanner.report import panels, picture

#: A VIS pixel of the picture takes this many pixels of the screen along each side, a NISP pixel three times as many.
ZOOM = 2


def write_cutout(folder: Path, stem: str, framed: FramedCutout, header: Mapping[str, str]) -> tuple[Path, ...]:
    """Write one cutout.

    Parameters
    ----------
    folder, stem
        Where; the folder is made if need be.
    framed
        The cutout.
    header
        Cards of the primary header, text by keyword.

    Returns
    -------
    tuple of Path
        The two files.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    cutout = framed.cutout
    cards = dict(header) | {
        "X0": (int(cutout.x0[0]), "column of the tile's VIS mosaic, from 0"),
        "Y0": (int(cutout.y0[0]), "row of the tile's VIS mosaic, from 0"),
    }
    places = (folder / f"{stem}.fits", folder / f"{stem}.png")
    contents = (fits_bytes(framed.images, cards), picture.png(panels.side_by_side(cutout, ZOOM)))
    for place, content in zip(places, contents, strict=True):
        write_atomically(place, content)
    return places
