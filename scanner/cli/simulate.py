"""``scanner simulate``: draws labelled datasets and small surveys."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from scanner.errors import UsageError
from scanner.simulation.datasets.dataset import draw_dataset
from scanner.simulation.datasets.presets import PRESETS
from scanner.simulation.datasets.request import DatasetRequest
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles

_PLAIN_SECONDS = 10.0


@click.group()
def simulate() -> None:
    """Draw simulated Euclid-like images, with the truth beside them."""


def _workers(value: int | None) -> int:
    return len(os.sched_getaffinity(0)) if value is None else value


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise UsageError(f"--{name} must be at least {least:g} (given: {value:g}).")


@simulate.command()
@click.option("--preset", type=click.Choice(list(PRESETS)), default="train", show_default=True, help="How objects are drawn.")
@click.option("--n", "n_objects", type=int, required=True, help="Number of objects.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same objects; presets never share any.")
@click.option("--codec", type=click.Choice(["compact", "exact"]), default="compact", show_default=True, help="Of the store.")
@click.option("--workers", type=int, default=None, help="Processes; all cores by default.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make, or to go on with.")
def dataset(preset: str, n_objects: int, seed: int, codec: str, workers: int | None, out: Path) -> None:
    """Draw labelled cutouts: a cutout store, truth.parquet and dataset.json.

    An interrupted run goes on where it was when the same command is given again.
    """
    _at_least("n", n_objects, 1)
    _at_least("seed", seed, 0)
    _at_least("workers", _workers(workers), 1)
    request = DatasetRequest.model_validate({"preset": preset, "n_objects": n_objects, "seed": seed, "codec": codec})
    with _progress("objects") as show:
        record = draw_dataset(request, out, _workers(workers), show)
    click.echo(f"{out}: {n_objects} objects, {record.n_lenses} lenses, {record.n_visible} of them visible")


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
    _at_least("n", n_tiles, 1)
    _at_least("size", size, 400)
    _at_least("seed", seed, 0)
    _at_least("workers", _workers(workers), 1)
    _at_least("lenses-per-tile", lenses_per_tile, 0)
    _at_least("density", density, 0)
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
    with _progress("tiles") as show:
        n_visible, n_rows = draw_tiles(request, out, _workers(workers), show)
    click.echo(f"{out / 'tile-list.txt'}: {n_tiles} tiles, {n_rows} catalogued objects, {n_visible} visible lenses")


@contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the remaining time on a terminal; elsewhere a line now and then, on standard error."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(f"drawing {unit}", total=None)

            def move(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            yield move
    else:
        last = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last > _PLAIN_SECONDS:
                last = now
                click.echo(f"{done} of {total} {unit}", err=True)

        yield line
