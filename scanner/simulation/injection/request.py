"""The request to paint lenses into real tiles, and the record that stands beside the result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scanner.records import Band, CodecName, Record, Tile
from scanner.simulation.datasets.presets import PRESETS, Preset, PresetName

Ground = Literal["galaxies", "sky", "both"]
PsfSource = Literal["image", "stars", "default"]
SlopeSource = Literal["rms map", "default"]


class InjectionRequest(Record):
    """What to paint, and into what."""

    preset: PresetName
    n_objects: int = Field(ge=1, le=100_000_000)
    seed: int = Field(ge=0, lt=2**63)
    tiles: tuple[Tile, ...] = Field(description="The tiles of the list, with the files of each.")
    ground: Ground = Field("both", description="Paint beside real galaxies, whole objects into empty sky, or both.")
    mosaics: bool = Field(False, description="Paint into copies of the mosaics instead of cutouts.")
    codec: CodecName = Field("compact", description="Codec of the cutout store.")

    @property
    def drawn_as(self) -> Preset:
        """How objects are drawn."""
        return PRESETS[self.preset]

    def described(self) -> str:
        """In a few words, to tell one from another."""
        kind = "mosaics" if self.mosaics else self.codec
        what = f"preset {self.preset}, {self.n_objects} objects, seed {self.seed}"
        return f"{what}, {len(self.tiles)} tiles, ground {self.ground}, {kind}"


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


class InjectionRecord(Record):
    """``dataset.json`` of painted cutouts, ``injection.json`` of painted mosaics; ``complete`` once everything is in place."""

    format_version: Literal[1] = 1
    scanner_version: str
    request: InjectionRequest
    preset: Preset
    complete: bool = False
    tiles: tuple[TileSummary, ...] = ()
    n_lenses: int | None = None
    n_visible: int | None = None
