"""``scanner train bundle``: make a bundle of seven finished runs, and publish it."""

from __future__ import annotations

from pathlib import Path

import click

from scanner.cli import logs
from scanner.cli.console import standard_output
from scanner.cli.session_options import provider_option
from scanner.cli.storage_options import endpoint_option, storage_of
from scanner.cli.termination import sigterm_interrupts
from scanner.ensemble import bundle as bundles
from scanner.ensemble.published_bundles import PublishedBundles
from scanner.errors import UsageError
from scanner.evaluation.decisions import SKY_PREVALENCE
from scanner.evaluation.fetched_data import local_datasets
from scanner.evaluation.labelled_data import Dataset
from scanner.survey.scan.machine import cores
from scanner.training.assemble import EMBEDDED_ROWS, SECOND_LOOK_SHARE, Assembly, Naming, assemble, publish
from scanner.training.data import TrainingData
from scanner.training.jobs import pull_members
from scanner.training.runs import read_ensemble


@click.command("bundle")
@click.option("--data", required=True, multiple=True, help="What the members were trained on: folders or s3://…")
@click.option("--members", type=click.Path(path_type=Path), required=True, help="Folder of the seven finished runs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the bundle; an old bundle is replaced.")
@click.option("--name", help="Name of the bundle [default: that of its folder].")
@click.option("--version", default="1", show_default=True, help="Version of the bundle.")
@click.option("--description", default="Trained on simulated images.", show_default=True, help="One sentence on what it is.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the embedding.")
@click.option("--embed", type=click.IntRange(10), default=EMBEDDED_ROWS, show_default=True, help="Most rows of the embedding.")
@click.option("--cells", type=click.IntRange(2), help="Cells of the grid along each axis [default: 100 for 45,000 rows].")
@click.option(
    "--second-look",
    type=click.FloatRange(0, 1, max_open=True),
    default=SECOND_LOOK_SHARE,
    show_default=True,
    help="Objects that score as high as this share of the non-lenses are scored eight ways round; 0: none.",
)
@click.option("--evaluate-on", multiple=True, help="Held-out dataset for the card, a folder or s3://…; repeat for more.")
@click.option("--compare", multiple=True, help="Another bundle to set beside it in the card.")
@click.option("--images", type=click.Path(path_type=Path), help="Tile list of single images for the card.")
@click.option("--known", type=click.Path(path_type=Path), help="List of known lenses, images of any telescope, for the card.")
@click.option("--rotations", type=click.IntRange(0), help="Objects scored eight ways round [default: as 'scanner evaluate'].")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of log-odds on held-out data [default: in --members].")
@provider_option
@click.option("--jobs", type=click.IntRange(1), help="Processes that score [default: one a core; 1 on a GPU].")
@click.option("--mirror", help="Mirror of the runs, see 'scanner train all'; members are taken from there first.")
@click.option("--publish", "store", help="Store of bundles, a folder or s3://…, that it is put into when it is done.")
@endpoint_option
@logs.log_format_option
def train_bundle(
    data: tuple[str, ...],
    members: Path,
    out: Path,
    name: str | None,
    version: str,
    description: str,
    seed: int,
    embed: int,
    cells: int | None,
    second_look: float,
    evaluate_on: tuple[str, ...],
    compare: tuple[str, ...],
    images: Path | None,
    known: Path | None,
    rotations: int | None,
    cache: Path | None,
    provider: str,
    jobs: int | None,
    mirror: str | None,
    store: str | None,
    endpoint: str | None,
    log_format: str,
) -> None:
    """Make a bundle of seven finished runs: grid, calibration, thresholds, figures, model card.

    Log-odds are kept in the folder of the runs, so that an interrupted call goes on where it was. With --publish the bundle can
    then be promoted: 'scanner models promote latest --published STORE'.
    """
    from scanner.cli.evaluate import compared
    from scanner.evaluation.compare import TURNED
    from scanner.training.drawings import draw_assembled

    console = standard_output()
    storage = storage_of(endpoint)
    with sigterm_interrupts(), logs.written(log_format):
        training = TrainingData(local_datasets(data, members / "datasets", storage))
        held_out = [Dataset(path) for path in local_datasets(evaluate_on, members / "datasets", storage)]
        if mirror is not None:
            pull_members(mirror, members, storage)
        ensemble = read_ensemble(members, training.fingerprint, training.drawn_from)
        trained_on = ensemble.trained_on(training.fingerprints)
        for dataset in held_out:
            if dataset.was_seen_by(trained_on):
                raise UsageError(f"{dataset.path}: is what the members were trained on; evaluate on another dataset.")
        how = Assembly(
            cache=members / "log-odds",
            seed=seed,
            embed=embed,
            cells=cells,
            provider=provider,
            workers=jobs or (1 if provider in ("cuda", "tensorrt") else cores()),
            threads=cores(),
            second_look=second_look,
        )
        naming = Naming(name or out.resolve().name, version, description)
        assembled = assemble(ensemble, training, out, naming, how, lambda text: console.print(text))
        draw_assembled(assembled, training, members)
        evaluation = None
        if held_out:
            console.print(f"evaluating on {', '.join(str(dataset.path) for dataset in held_out)}")
            others = [str(bundles.load(other, storage).path) for other in compare]
            evaluation = compared(
                (str(out), *others),
                [dataset.path for dataset in held_out],
                images,
                known,
                beta=None,
                prevalence=SKY_PREVALENCE,
                n_turned=TURNED if rotations is None else rotations,
                n_recoloured=0,
                cache=cache or members / "log-odds",
                provider=provider,
                threads=1,
            ).evaluation
        bundle = publish(assembled.bundle, ensemble, training, evaluation)
        console.print(f"{bundle.path}: bundle {bundle.manifest.name} {bundle.manifest.version}, {bundle.fingerprint[:12]}")
        if store is not None:
            console.print(f"published as {PublishedBundles(store, storage).publish(bundle)}")
