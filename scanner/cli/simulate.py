"""``scanner simulate``: draw tiles and labelled datasets, or paint lenses into real tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from scanner.cli.output import WholeSentences, at_least, processes
from scanner.errors import TileError, UsageError
from scanner.interface import simulate as interface
from scanner.interface.progress import counted
from scanner.records import BANDS, Band, CodecName
from scanner.simulation import PRESET_NAMES, DeviceName, GeneratorName, Ground, Parameters, PresetName

_codec = click.option(
    "--codec", type=click.Choice(get_args(CodecName)), default="compact", show_default=True, help="Of the store."
)
_workers = click.option("--workers", type=int, default=None, help="Processes; all cores by default.")


@click.command()
@click.option("--preset", type=click.Choice(PRESET_NAMES), default="train", show_default=True, help="How objects are drawn.")
@click.option("--n", "n_objects", type=int, default=None, help="Number of objects; the preset's by default.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same objects; presets never share any.")
@click.option("--red-fraction", type=float, default=None, help="Share of red sources, instead of the preset's.")
@click.option(
    "--generator", type=click.Choice(get_args(GeneratorName)), default="fast", show_default=True, help="What traces the rays."
)
@click.option(
    "--parameters",
    type=click.Choice(get_args(Parameters)),
    default="physical",
    show_default=True,
    help="Compound lenses as physics has them, or as Table 1 of the paper.",
)
@click.option(
    "--device", type=click.Choice(get_args(DeviceName)), default="cpu", show_default=True, help="What computes the pixels."
)
@_codec
@_workers
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make, or to go on with.")
def dataset(
    preset: PresetName,
    n_objects: int | None,
    seed: int,
    red_fraction: float | None,
    generator: GeneratorName,
    parameters: Parameters,
    device: DeviceName,
    codec: CodecName,
    workers: int | None,
    out: Path,
) -> None:
    """Draw labelled cutouts: a cutout store, truth.parquet and dataset.json.

    An interrupted run goes on where it was when the same command is given again. `scanner simulate presets` lists what there is
    to draw.
    """
    from scanner.simulation.datasets.presets import PRESETS

    n_objects = PRESETS[preset].n_objects if n_objects is None else n_objects
    at_least("n", n_objects, 1)
    at_least("seed", seed, 0)
    if red_fraction is not None and not 0.0 <= red_fraction <= 1.0:
        raise UsageError(f"--red-fraction must be between 0 and 1 (given: {red_fraction:g}).")
    _draw(
        out,
        preset,
        n_objects,
        seed=seed,
        red_fraction=red_fraction,
        generator=generator,
        parameters=parameters,
        device=device,
        codec=codec,
        workers=processes(workers),
    )


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--scale", type=float, default=1.0, show_default=True, help="Factor on their sizes; only whole ones compare.")
@_codec
@_workers
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the sets, one folder each.")
def sets(names: tuple[str, ...], scale: float, codec: CodecName, workers: int | None, out: Path) -> None:
    """Draw the evaluation sets, or those that are NAMEd.

    They are fixed by preset, seed and size: the same for everybody, and never trained on. Sets that are there already are left
    as they are; the same command goes on with the others.
    """
    from scanner.simulation.datasets.presets import EVALUATION_SETS

    known = {item.name: item for item in EVALUATION_SETS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"{', '.join(unknown)}: no such evaluation set; there are {', '.join(known)}.")
    if not 0.0 < scale <= 1.0:
        raise UsageError(f"--scale must be above 0 and at most 1 (given: {scale:g}).")
    count = processes(workers)
    for item in [item for item in EVALUATION_SETS if not names or item.name in names]:
        n_objects = max(1, round(scale * item.n_objects))
        _draw(out / item.name, item.name, n_objects, seed=item.seed, codec=codec, workers=count)


@click.command()
def presets() -> None:
    """List the presets: what each is for, how many objects it has, and of what."""
    from scanner.simulation.datasets.presets import PRESETS

    wide = max(map(len, PRESETS))
    click.echo(f"{'preset':{wide}}  {'purpose':10}  {'objects':>7}  {'lenses':>6}  what for; mix")
    for name, preset in PRESETS.items():
        click.echo(f"{name:{wide}}  {preset.purpose:10}  {preset.n_objects:7,}  {preset.lens_share:6.0%}  {preset.summary}")
        click.echo(f"{'':{wide + 31}}{', '.join(f'{kind} {share:.1%}' for kind, share in preset.mix.items())}")


def _draw(out: Path, preset: PresetName, n_objects: int, **settings: Any) -> None:
    record = interface.simulate_dataset(out, preset, n_objects, progress=True, **settings)
    click.echo(f"{out}: {n_objects} objects, {record.n_lenses} lenses, {record.n_visible} of them visible")


@click.command()
@click.argument("tile_list", type=click.Path(path_type=Path))
@click.option("--preset", type=click.Choice(PRESET_NAMES), default="train", show_default=True, help="How objects are drawn.")
@click.option("--n", "n_objects", type=int, required=True, help="Number of objects.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed and mosaics, same objects.")
@click.option(
    "--ground",
    type=click.Choice(get_args(Ground)),
    default="both",
    show_default=True,
    help="Paint beside real galaxies, whole objects into empty sky, or both.",
)
@click.option("--mosaics", is_flag=True, help="Paint into copies of the mosaics, to measure what a whole scan finds.")
@click.option("--codec", type=click.Choice(get_args(CodecName)), default="compact", show_default=True, help="Of the store.")
@click.option("--workers", type=int, default=None, help="Processes; all cores by default.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make, or to go on with.")
def inject(
    tile_list: Path,
    preset: PresetName,
    n_objects: int,
    seed: int,
    ground: Ground,
    mosaics: bool,
    codec: CodecName,
    workers: int | None,
    out: Path,
) -> None:
    """Paint lenses and look-alikes into the real tiles of TILE_LIST.

    Writes labelled cutouts as `scanner simulate dataset` does, ready to train and to measure on; or, with --mosaics, copies of
    the mosaics with a tile list to scan. Light is painted through the tile's PSF (VIS_PSF=… and so on in the list, else the
    width of its stars), with the noise of its photons. An interrupted run goes on when the same command is given again.
    """
    at_least("n", n_objects, 1)
    at_least("seed", seed, 0)
    n_processes = processes(workers)
    record = interface.inject(
        tile_list,
        out,
        n_objects,
        preset=preset,
        seed=seed,
        ground=ground,
        mosaics=mosaics,
        codec=codec,
        workers=n_processes,
        progress=True,
    )
    place = out / "tile-list.txt" if mosaics else out
    click.echo(f"{place}: {n_objects} objects painted, {record.n_lenses} lenses, {record.n_visible} of them visible")


@click.command()
@click.argument("tile_list", type=click.Path(path_type=Path))
@click.option(
    "--fwhm",
    type=(click.Choice(BANDS), float),
    multiple=True,
    metavar="BAND ARCSEC",
    help="Width of a band's PSF, taken for a Gaussian, where the list names no image of it.",
)
@click.option(
    "--zero-point",
    type=(click.Choice(BANDS), float),
    multiple=True,
    metavar="BAND MAG",
    help="AB zero point of a band whose headers do not tell.",
)
@click.option("--depth", type=float, default=1.0, show_default=True, help="Exposure time in units of Euclid's.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the noise.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make, or to go on with.")
def euclidise(
    tile_list: Path,
    fwhm: tuple[tuple[Band, float], ...],
    zero_point: tuple[tuple[Band, float], ...],
    depth: float,
    seed: int,
    out: Path,
) -> int:
    """Make the images of TILE_LIST, of HST or JWST, like Euclid's.

    The list names images by the bands that they stand for, and their PSFs: id=NAME VIS=f814w.fits VIS_PSF=psf.fits Y=f115w.fits
    H=f160w.fits. Each gets Euclid's PSF, pixels, zero point, and noise. Writes a tile list to scan.
    """
    at_least("seed", seed, 0)
    made = interface.euclidise(
        tile_list, out, seed=seed, depth=depth, fwhm_arcsec=dict(fwhm), zero_points=dict(zero_point), progress=True
    )
    for failed in made.failed:
        click.echo(f"{failed.tile_id}: {failed.reason}", err=True)
    for tile in made.tiles:
        for band in (band for band, image in tile.bands.items() if image.as_noisy):
            click.echo(f"{tile.tile_id}: {band} is no deeper than that; it is noisier than Euclid's.", err=True)
    click.echo(f"{out / 'tile-list.txt'}: {len(made.tiles)} tiles like Euclid's")
    return TileError.exit_code if made.failed else 0


@click.group(cls=WholeSentences)
def simulate() -> None:
    """Draw simulated Euclid-like images, with the truth beside them."""


for command in (dataset, sets, presets, inject, euclidise):
    simulate.add_command(command)


@simulate.command()
@click.option("--n", "n_tiles", type=int, default=2, show_default=True, help="Number of tiles, in a row along RA.")
@click.option("--size", type=int, default=2000, show_default=True, help='Side of a tile in VIS pixels of 0.1".')
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same sky and same bytes.")
@click.option("--overlap", type=float, default=0.15, show_default=True, help="Share of a side that neighbours have in common.")
@click.option("--lenses-per-tile", type=float, default=12.0, show_default=True, help="Visible lenses in a tile, on average.")
@click.option("--density", type=float, default=1.0, show_default=True, help="Galaxies and stars relative to the real sky.")
@click.option("--companions/--no-companions", default=True, show_default=True, help="Write RMS and FLAG mosaics too.")
@click.option("--workers", type=int, default=None, help="Processes, one a tile; all cores by default.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make, or to go on with.")
def tiles(
    n_tiles: int,
    size: int,
    seed: int,
    overlap: float,
    lenses_per_tile: float,
    density: float,
    companions: bool,
    workers: int | None,
    out: Path,
) -> None:
    """Draw overlapping tiles with catalogues, a tile list to scan, and truth.parquet.

    Even tiles have all bands on one 0.1" grid, as MER's mosaics; odd tiles have native 0.3" NISP images, slightly rotated.
    """
    at_least("n", n_tiles, 1)
    at_least("size", size, 400)
    at_least("seed", seed, 0)
    at_least("lenses-per-tile", lenses_per_tile, 0)
    at_least("density", density, 0)
    if not 0.0 <= overlap <= 0.5:
        raise UsageError(f"--overlap must be between 0 and 0.5 (given: {overlap:g}).")
    drawn = interface.simulate(
        out,
        n_tiles,
        size,
        seed=seed,
        overlap=overlap,
        lenses_per_tile=lenses_per_tile,
        density=density,
        companions=companions,
        workers=processes(workers),
        progress=True,
    )
    click.echo(
        f"{drawn.tile_list}: {counted(n_tiles, 'tile')}, {counted(drawn.n_objects, 'catalogued object')}, "
        f"{drawn.n_visible:,} visible lens{'es' * (drawn.n_visible != 1)}"
    )
