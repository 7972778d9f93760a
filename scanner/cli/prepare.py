"""``scanner prepare``: make tiles of any survey's images."""

from __future__ import annotations

from pathlib import Path

import click

from scanner.cli.options import at_least
from scanner.errors import UsageError
from scanner.interface import prepare as interface
from scanner.records import BANDS, RESAMPLING_METHODS, Band, ResamplingMethod


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--out", "-o", type=click.Path(path_type=Path), required=True, help="Folder to make, or to go on with.")
@click.option("--survey", default="euclid", show_default=True, help="Whose images: euclid, roman, lsst, hst, jwst, or a file.")
@click.option(
    "--method", type=click.Choice(RESAMPLING_METHODS), default="spline", show_default=True, help="How images are resampled."
)
@click.option("--match-background", is_flag=True, help="Subtract a level of each image, so that overlapping ones agree.")
@click.option(
    "--fwhm",
    type=(click.Choice(BANDS), float),
    multiple=True,
    metavar="BAND ARCSEC",
    help="Width of the PSF that a band is to get.",
)
@click.option(
    "--zero-point", type=(click.Choice(BANDS), float), multiple=True, metavar="BAND MAG", help="AB, where a header gives none."
)
@click.option("--tile-pixels", type=int, default=None, help='VIS pixels of 0.1" along a tile, a multiple of 3 [default: 9600].')
@click.option("--workers", type=click.IntRange(1), help="Processes that make tiles [default: one a core].")
@click.option("--name", help="What the ids of tiles begin with [default: the folder's name].")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings; [storage] counts here.")
@click.option("--endpoint", help="URL of an S3-compatible server [default: AWS, or AWS_ENDPOINT_URL].")
@click.option("--anonymous", is_flag=True, default=None, help="Do not sign requests to object stores.")
def prepare(
    images: tuple[str, ...],
    out: Path,
    survey: str,
    method: ResamplingMethod,
    match_background: bool,
    fwhm: tuple[tuple[Band, float], ...],
    zero_point: tuple[tuple[Band, float], ...],
    tile_pixels: int | None,
    workers: int | None,
    name: str | None,
    config: Path | None,
    endpoint: str | None,
    anonymous: bool | None,
) -> int:
    """Make tiles to scan of IMAGES with any pixels, projection, frame and footprint.

    IMAGES are FITS files, patterns and folders, here or on object stores (s3://…), sorted by the filters in their names, or
    given as VIS=FILE, Y=FILE, J=FILE, H=FILE. Images of one band are added up, weighted by their RMS or weight maps. Writes a
    tile list to scan; an interrupted call goes on where it was.
    """
    if tile_pixels is not None:
        at_least("tile-pixels", tile_pixels, 480)
        if tile_pixels % 3:
            raise UsageError(f"--tile-pixels must be a multiple of 3 (given: {tile_pixels}).")
    plain, named = interface.by_band(images)
    if plain and named:
        raise UsageError("Give all images as BAND=FILE, or none.")
    listed = interface.prepare(
        named or plain,
        out,
        survey=survey,
        method=method,
        match_background=match_background,
        fwhm_arcsec=dict(fwhm),
        zero_points=dict(zero_point),
        tile_pixels=tile_pixels,
        name=name,
        workers=workers,
        config=config,
        endpoint=endpoint,
        anonymous=anonymous,
        progress=True,
    )
    n_tiles = sum(not line.startswith("#") for line in listed.read_text().splitlines())
    click.echo(f"{listed}: {n_tiles} tile{'s' * (n_tiles != 1)}; scan with: scanner run {listed} --survey {survey}")
    return 0
