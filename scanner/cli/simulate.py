"""``scanner simulate``: draws labelled datasets and small surveys."""

from __future__ import annotations

from pathlib import Path

import click

from scanner.cli.drawing import at_least, processes, progress
from scanner.cli.inject import inject
from scanner.cli.simulate_datasets import dataset, presets, sets
from scanner.errors import UsageError
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles


@click.group()
def simulate() -> None:
    """Draw simulated Euclid-like images, with the truth beside them."""


for command in (dataset, sets, presets, inject):
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
    request = TilesRequest.model_validate(
        {
            "n_tiles": n_tiles,
            "size": size,
            "seed": seed,
            "overlap": overlap,
            "lenses_per_tile": lenses_per_tile,
            "density": density,
            "companions": companions,
        }
    )
    with progress("tiles") as show:
        n_visible, n_rows = draw_tiles(request, out, processes(workers), show)
    click.echo(f"{out / 'tile-list.txt'}: {n_tiles} tiles, {n_rows} catalogued objects, {n_visible} visible lenses")
