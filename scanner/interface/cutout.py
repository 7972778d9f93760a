"""Cutouts of a run's objects, with their place on the sky, and pictures of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from scanner.config import RunConfig, StorageConfig
from scanner.cutouts.framed import BandImage, FramedCutout, fits_bytes, of_store
from scanner.errors import InputMissingError
from scanner.records import BANDS, NISP_BANDS, Band, CutoutBatch, Float32, Tile
from scanner.report import colour
from scanner.sky import tile_list
from scanner.sky.local_files import temporary_folder

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from matplotlib.figure import Figure

    from scanner.survey.folder.ledger import RunFolder

#: Pictures beside one another in a figure, and the width of each in inches.
COLUMNS, INCHES = 4, 2.4


@dataclass(frozen=True, repr=False)
class Cutout:
    """Four images around one object: ``cutout["VIS"].pixels``, ``.wcs``, ``.unit``, ``.zero_point``.

    Attributes
    ----------
    name : str
        Of the object.
    images : Mapping
        Band → :class:`~scanner.cutouts.framed.BandImage`, VIS, Y, J, H; pixels float32, NaN where there are none.
    batch : CutoutBatch
        The same as the networks get it, with sky level and noise.

    Examples
    --------
    >>> import scanner
    >>> cutout = scanner.open("scan").cutout(1)
    >>> cutout["VIS"].pixels.shape, cutout.nisp.shape
    ((200, 200), (3, 66, 66))
    >>> cutout.wcs.pixel_to_world(99.5, 99.5).icrs.name
    'icrs'
    """

    name: str
    images: Mapping[Band, BandImage]
    batch: CutoutBatch

    @classmethod
    def of(cls, name: str, framed: FramedCutout) -> Cutout:
        """A cutout with the object's name."""
        return cls(name, {image.band: image for image in framed.images}, framed.cutout)

    def __getitem__(self, band: Band) -> BandImage:
        return self.images[band]

    def __repr__(self) -> str:
        sides = ", ".join(f"{band} {image.pixels.shape[0]} x {image.pixels.shape[1]}" for band, image in self.images.items())
        return f"<Cutout {self.name}: {sides} pixels>"

    @property
    def vis(self) -> Float32:
        """Pixels of VIS, (200, 200), 0.1″ each."""
        return self.images["VIS"].pixels

    @property
    def nisp(self) -> Float32:
        """Pixels of Y, J and H, (3, 66, 66), 0.3″ each."""
        return np.stack([self.images[band].pixels for band in NISP_BANDS])

    @property
    def wcs(self) -> WCS:
        """Where the pixels of VIS lie on the sky."""
        return self.images["VIS"].wcs

    @property
    def picture(self) -> colour.UInt8:
        """VIS coloured by NISP, (200, 200, 3) uint8, row 0 at the bottom."""
        return picture(self.batch)

    def write(self, path: str | Path) -> None:
        """Write a FITS file with one extension a band, each with its WCS."""
        from scanner.atomic_file import write_atomically

        write_atomically(Path(path), fits_bytes([self.images[band] for band in BANDS], {"OBJECT": self.name}))

    def _repr_png_(self) -> bytes:
        from scanner.report.self_contained import png

        return png(colour.side_by_side(self.batch, 1))


def picture(batch: CutoutBatch) -> colour.UInt8:
    """VIS coloured by NISP of a batch of one."""
    return colour.colour_image(batch.vis[0], batch.nisp[0], batch.sky[0], batch.sigma[0])


def kept_cutouts(folder: RunFolder, tile_id: str, target_ids: Sequence[int]) -> dict[int, FramedCutout]:
    """The cutouts of a tile's objects that its scan kept, by the objects' ids."""
    commit = folder.commit_of(tile_id)
    if commit is None:
        return {}
    with temporary_folder(None) as scratch:
        store = folder.cutouts(commit, scratch)
        if store is None:
            return {}
        rows = {int(target_id): row for row, target_id in enumerate(store.target_id)}
        places = {target_id: rows[target_id] for target_id in target_ids if target_id in rows}
        return {one: of_store(store.read(np.array([row])), store.attributes) for one, row in places.items()}


def cut_again(folder: RunFolder, row: pa.Table, storage: StorageConfig | None) -> FramedCutout:
    """Cut an object again from its tile's mosaics; ``row``: of the catalogue, ``storage``: None, as the run did.

    Raises
    ------
    InputMissingError
        The tile, or the list that names it, is no longer there.
    """
    from scanner.survey.candidate_cutouts import framed_again

    record = folder.record()
    config: RunConfig = record.config if storage is None else record.config.model_copy(update={"storage": storage})
    return framed_again(row, _tile(record.tile_list, row["tile_id"][0].as_py(), config.storage), config)


def _tile(location: str, tile_id: str, storage: StorageConfig) -> Tile:
    for tile in tile_list.read(location, storage).tiles:
        if tile.tile_id == tile_id:
            return tile
    raise InputMissingError(f"{location}: no longer lists tile {tile_id}; put its line back.")


def figure(cutouts: Sequence[Cutout], titles: Sequence[str]) -> Figure:
    """Pictures of cutouts beside one another: a :class:`matplotlib.figure.Figure` that a notebook shows by itself."""
    from matplotlib.figure import Figure

    class ObjectFigure(Figure):
        """A figure that a notebook shows whatever its backend is."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png")
            return stream.getvalue()

    n_rows = max(1, -(-len(cutouts) // COLUMNS))
    shown = ObjectFigure(figsize=(COLUMNS * INCHES, n_rows * (INCHES + 0.35)), layout="constrained", dpi=100)
    for number, (cutout, title) in enumerate(zip(cutouts, titles, strict=True), start=1):
        axes = shown.add_subplot(n_rows, COLUMNS, number)
        axes.imshow(cutout.picture, origin="lower", interpolation="nearest")
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
    return shown
