"""``scanner simulate dataset``, ``sets`` and ``presets``: labelled cutouts, the evaluation sets, and what can be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click
from pydantic import ValidationError

from scanner.cli.drawing import at_least, processes, progress
from scanner.cutouts.layout import CodecName
from scanner.errors import UsageError
from scanner.simulation.datasets.dataset import draw_dataset
from scanner.simulation.datasets.labelled_cutouts import GeneratorName
from scanner.simulation.datasets.presets import EVALUATION_SETS, PRESETS
from scanner.simulation.datasets.request import DatasetRecord, DatasetRequest, DeviceName
from scanner.simulation.population.paper_compound import Parameters

_codec = click.option(
    "--codec", type=click.Choice(get_args(CodecName)), default="compact", show_default=True, help="Of the store."
)
_workers = click.option("--workers", type=int, default=None, help="Processes; all cores by default.")


@click.command()
@click.option("--preset", type=click.Choice(list(PRESETS)), default="train", show_default=True, help="How objects are drawn.")
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
    preset: str,
    n_objects: int | None,
    seed: int,
    red_fraction: float | None,
    generator: str,
    parameters: str,
    device: str,
    codec: str,
    workers: int | None,
    out: Path,
) -> None:
    """Draw labelled cutouts: a cutout store, truth.parquet and dataset.json.

    An interrupted run goes on where it was when the same command is given again. `scanner simulate presets` lists what there is
    to draw.
    """
    if n_objects is None:
        n_objects = next(item.n_objects for name, item in PRESETS.items() if name == preset)
    at_least("n", n_objects, 1)
    at_least("seed", seed, 0)
    if red_fraction is not None and not 0.0 <= red_fraction <= 1.0:
        raise UsageError(f"--red-fraction must be between 0 and 1 (given: {red_fraction:g}).")
    request = _request(
        preset=preset,
        n_objects=n_objects,
        seed=seed,
        red_source_fraction=red_fraction,
        generator=generator,
        parameters=parameters,
        device=device,
        codec=codec,
    )
    _draw(request, out, processes(workers))


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--scale", type=float, default=1.0, show_default=True, help="Factor on their sizes; only whole ones compare.")
@_codec
@_workers
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the sets, one folder each.")
def sets(names: tuple[str, ...], scale: float, codec: str, workers: int | None, out: Path) -> None:
    """Draw the evaluation sets, or those that are NAMEd.

    They are fixed by preset, seed and size: the same for everybody, and never trained on. Sets that are there already are left
    as they are; the same command goes on with the others.
    """
    known = {item.name: item for item in EVALUATION_SETS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"{', '.join(unknown)}: no such evaluation set; there are {', '.join(known)}.")
    if not 0.0 < scale <= 1.0:
        raise UsageError(f"--scale must be above 0 and at most 1 (given: {scale:g}).")
    count = processes(workers)
    for item in [item for item in EVALUATION_SETS if not names or item.name in names]:
        n_objects = max(1, round(scale * item.n_objects))
        _draw(_request(preset=item.name, n_objects=n_objects, seed=item.seed, codec=codec), out / item.name, count)


@click.command()
def presets() -> None:
    """List the presets: what each is for, how many objects it has, and of what."""
    wide = max(map(len, PRESETS))
    click.echo(f"{'preset':{wide}}  {'purpose':10}  {'objects':>7}  {'lenses':>6}  what for; mix")
    for name, preset in PRESETS.items():
        click.echo(f"{name:{wide}}  {preset.purpose:10}  {preset.n_objects:7,}  {preset.lens_share:6.0%}  {preset.summary}")
        click.echo(f"{'':{wide + 31}}{', '.join(f'{kind} {share:.1%}' for kind, share in preset.mix.items())}")


def _request(**values: Any) -> DatasetRequest:
    try:
        return DatasetRequest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{first['loc'][0]}: " if first["loc"] else ""
        raise UsageError(f"{where}{first['msg'].removeprefix('Value error, ')}.") from None


def _draw(request: DatasetRequest, out: Path, workers: int) -> DatasetRecord:
    with progress("objects") as show:
        record = draw_dataset(request, out, workers, show)
    click.echo(f"{out}: {request.n_objects} objects, {record.n_lenses} lenses, {record.n_visible} of them visible")
    return record
