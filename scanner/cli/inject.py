"""``scanner simulate inject``: paints lenses and their look-alikes into a user's own mosaics."""

from __future__ import annotations

from pathlib import Path

import click

from scanner.cli.drawing import at_least, processes, progress
from scanner.errors import InputMissingError
from scanner.simulation.datasets.presets import PRESET_NAMES
from scanner.simulation.injection.painted_cutouts import inject_cutouts
from scanner.simulation.injection.painted_mosaics import inject_mosaics
from scanner.simulation.injection.request import InjectionRequest
from scanner.sky import tile_list as tile_lists


@click.command()
@click.argument("tile_list", type=click.Path(path_type=Path))
@click.option("--preset", type=click.Choice(PRESET_NAMES), default="train", show_default=True, help="How objects are drawn.")
@click.option("--n", "n_objects", type=int, required=True, help="Number of objects.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed and mosaics, same objects.")
@click.option(
    "--ground",
    type=click.Choice(["galaxies", "sky", "both"]),
    default="both",
    show_default=True,
    help="Paint beside real galaxies, whole objects into empty sky, or both.",
)
@click.option("--mosaics", is_flag=True, help="Paint into copies of the mosaics, to measure what a whole scan finds.")
@click.option("--codec", type=click.Choice(["compact", "exact"]), default="compact", show_default=True, help="Of the store.")
@click.option("--workers", type=int, default=None, help="Processes; all cores by default.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make, or to go on with.")
def inject(
    tile_list: Path,
    preset: str,
    n_objects: int,
    seed: int,
    ground: str,
    mosaics: bool,
    codec: str,
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
    listed = tile_lists.read(tile_list)
    if listed.failed:
        raise InputMissingError(listed.failed[0].reason)
    request = InjectionRequest.model_validate(
        {
            "preset": preset,
            "n_objects": n_objects,
            "seed": seed,
            "tiles": listed.tiles,
            "ground": "galaxies" if mosaics else ground,
            "mosaics": mosaics,
            "codec": codec,
        }
    )
    with progress("tiles" if mosaics else "objects") as show:
        record = (inject_mosaics if mosaics else inject_cutouts)(request, out, n_processes, show)
    place = out / "tile-list.txt" if mosaics else out
    click.echo(f"{place}: {n_objects} objects painted, {record.n_lenses} lenses, {record.n_visible} of them visible")
