"""The request to paint lenses into real tiles, and the record that stands beside the result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scanner.records import Band, CodecName, Record, Tile
from scanner.simulation.datasets.dataset import DrawnRecord, DrawRequest

Ground = Literal["galaxies", "sky", "both"]
PsfSource = Literal["image", "stars", "default"]
SlopeSource = Literal["rms map", "default"]


class Region(Record):
    """Part of the sky that objects are painted in: HEALPix cells of one order with nested numbers in a row, less a margin.

    A cell is the field of its objects. ``avoided``: right ascension and declination, degrees, of objects that are not used.
    """

    order: int = Field(ge=0, le=29)
    first: int = Field(ge=0, description="Number of the first cell.")
    stop: int = Field(description="One more than the number of the last cell.")
    margin_arcsec: float = Field(ge=0, description="Of other cells objects are at least so far away.")
    avoided: tuple[tuple[float, float], ...] = ()


class InjectionRequest(DrawRequest):
    """What to paint, and into what."""

    tiles: tuple[Tile, ...] = Field(description="The tiles of the list, with the files of each.")
    ground: Ground = Field("both", description="Paint beside real galaxies, whole objects into empty sky, or both.")
    mosaics: bool = Field(False, description="Paint into copies of the mosaics instead of cutouts.")
    codec: CodecName = Field("compact", description="Codec of the cutout store.")
    region: Region | None = Field(None, description="Only there; none: wherever the tiles are.")
    own_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Of the non-lenses on real galaxies, the share whose middle is left as it is, any galaxy as likely as any "
        "other; none: half, half of them early-type galaxies.",
    )
    uses: int = Field(1, ge=1, description="Most objects that one place is used for.")

    def described(self) -> str:
        """In a few words, to tell one from another."""
        kind = "mosaics" if self.mosaics else self.codec
        return f"{super().described()}, {len(self.tiles)} tiles, ground {self.ground}, {kind}"


class BandOptics(Record):
    """How light is painted into one band of one tile."""

    zero_point: float = Field(description="MAGZERO of the mosaic.")
    psf: PsfSource = Field(
        description="Where the PSF comes from: an image, our own at the width of the tile's stars, or our own."
    )
    psf_width: float = Field(gt=0, description="Factor on the widths of our own PSF.")
    variance_slope: float = Field(
        gt=0, description="Variance that one unit of flux adds, per pixel of 0.1 arcsec, mosaic units."
    )
    slope: SlopeSource = Field(description="Where the slope comes from.")


class TileSummary(Record):
    """What was found in one tile."""

    tile_id: str
    alignment: str
    bands: dict[Band, BandOptics]
    n_stars: int = Field(description="Stars that the PSF's width was measured on.")
    n_deflectors: int = Field(description="Bright early-type galaxies with good pixels around.")
    n_galaxies: int = Field(description="Other objects with good pixels around.")
    n_empty: int = Field(description="Empty places with good pixels around.")


class InjectionRecord(DrawnRecord):
    """``dataset.json`` of painted cutouts, ``injection.json`` of painted mosaics."""

    request: InjectionRequest
    tiles: tuple[TileSummary, ...] = ()
