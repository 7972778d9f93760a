"""What others have, made ours: ``scanner prepare``, tiles of any survey's images; ``scanner labels``, labelled sets."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from scanner.cli.output import WholeSentences, at_least
from scanner.errors import UsageError
from scanner.interface import prepare as interface
from scanner.labels.table import PRESETS, Purpose
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


@click.group(cls=WholeSentences)
def labels() -> None:
    """Labels that others gave: published tables, votes of volunteers, lists of one's own."""


@labels.command("import")
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--tiles", help="Tile list with the mosaics to cut from.")
@click.option("--cutouts", type=click.Path(path_type=Path), help="Folder of cutouts: FITS or .npy, one file an object.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the set; must not be there.")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Kind of table, with its columns and labels.")
@click.option("--columns", help="Names of columns, as ra=ALPHA,dec=DELTA,label=GRADE,weight=W,file=STAMP,id=NAME,field=TILE.")
@click.option("--lens", help="Labels of lenses [default: the preset's; else A,B,lens,1,true,yes]; '>=0.5' for numbers.")
@click.option("--not-lens", help="Labels of non-lenses [default: the preset's; else X,non-lens,other,0,false,no …].")
@click.option(
    "--purpose",
    type=click.Choice(get_args(Purpose)),
    help="What the set is for; nothing is trained on one for evaluation [default: the preset's, else training].",
)
@click.option("--scale", type=float, help="Width in arcsec of the pixels of cutouts without a WCS.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings; [storage] counts here.")
@click.option("--endpoint", help="URL of an S3-compatible server [default: AWS, or AWS_ENDPOINT_URL].")
@click.option("--anonymous", is_flag=True, default=None, help="Do not sign requests to object stores.")
def import_(
    table: Path,
    tiles: str | None,
    cutouts: Path | None,
    out: Path,
    preset: str | None,
    columns: str | None,
    lens: str | None,
    not_lens: str | None,
    purpose: Purpose | None,
    scale: float | None,
    config: Path | None,
    endpoint: str | None,
    anonymous: bool | None,
) -> None:
    """Make a labelled set for 'scanner train' and 'scanner evaluate' of the labels in TABLE.

    TABLE is CSV, ECSV, FITS, VOTable or Parquet, its columns found by their usual names. Nothing is dropped in silence:
    left-out.ecsv in the set names every row that is not in it, and why.
    """
    made = interface.import_labels(
        table,
        out,
        tiles=tiles,
        cutouts=cutouts,
        preset=preset,
        columns=_assignments(columns),
        lens=_words(lens),
        not_lens=_words(not_lens),
        purpose=purpose,
        scale_arcsec=scale,
        config=config,
        endpoint=endpoint,
        anonymous=anonymous,
        progress=True,
    )
    click.echo(f"{out}: {made.n_objects:,} objects, {made.n_lenses:,} of them lenses, for {made.purpose}")
    if made.n_left_out:
        from scanner.labels.importing import LEFT_OUT

        counts = ", ".join(f"{n:,} {reason}" for reason, n in made.n_left_out.items())
        click.echo(f"left out: {counts}; {out / LEFT_OUT} says why")
    for tile in made.failed_tiles:
        click.echo(f"not used: tile {tile.tile_id}: {tile.reason}", err=True)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _assignments(text: str | None) -> dict[str, str]:
    """``role=name,role=name`` as a mapping."""
    found: dict[str, str] = {}
    for word in _words(text):
        role, equals, name = (part.strip() for part in word.partition("="))
        if not equals or not name or role in found:
            raise UsageError(f"--columns cannot be understood at {word!r}; write, for example, ra=ALPHA,dec=DELTA,label=GRADE.")
        found[role] = name
    return found
