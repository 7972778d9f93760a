"""``scanner models publish``, ``promote`` and ``rollback``: which bundle is used."""

from __future__ import annotations

from pathlib import Path

import click

from scanner.cli.session_options import provider_option, threads_option
from scanner.cli.storage_options import endpoint_option, storage_of
from scanner.cli.termination import sigterm_interrupts
from scanner.ensemble import bundle as bundles
from scanner.ensemble.bundle_pointer import PublishedBundle
from scanner.ensemble.published_bundles import PublishedBundles
from scanner.errors import UsageError

#: Exit code of a promotion that was refused.
NOT_PROMOTED = 1


@click.command()
@click.argument("bundle")
@click.option("--to", "store", required=True, help="Store of bundles, a folder or s3://…; made if need be.")
@endpoint_option
def publish(bundle: str, store: str, endpoint: str | None) -> None:
    """Put BUNDLE into a store, where it can be promoted and all machines find it.

    It lies in a folder named by its fingerprint, whole or not at all; what is in use does not change.
    """
    storage = storage_of(endpoint)
    with sigterm_interrupts():
        click.echo(f"{PublishedBundles(store, storage).publish(bundles.load(bundle, storage))}: published")


@click.command()
@click.argument("new")
@click.option("--over", help="Bundle that it is judged against [default: the one in use].")
@click.option(
    "--data",
    required=True,
    multiple=True,
    help="Labelled set that neither was trained on, a folder or s3://…; repeat for more.",
)
@click.option("--images", type=click.Path(path_type=Path), help="Tile list of real lenses, one in the centre of each tile.")
@click.option("--known", type=click.Path(path_type=Path), help="List of known lenses with FITS images of any telescope.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder where log-odds are kept [default: the user's cache].")
@click.option("--models", "folder", type=click.Path(path_type=Path), help="Folder of the bundles [default: scanner's own].")
@click.option("--published", help="Store of published bundles instead, a folder or s3://…; NEW is one of them.")
@endpoint_option
@provider_option
@threads_option
def promote(
    new: str,
    over: str | None,
    data: tuple[str, ...],
    images: Path | None,
    known: Path | None,
    cache: Path | None,
    folder: Path | None,
    published: str | None,
    endpoint: str | None,
    provider: str,
    threads: int,
) -> int:
    """Bring NEW into use, unless it is worse than the bundle in use on any set or image.

    NEW becomes the default bundle; with --published, NEW is 'latest' or a fingerprint, and becomes the store's current bundle.
    Refused, with exit 1, is a bundle that is worse in any figure beyond its interval.
    """
    from scanner.cli.evaluate import cache_folder, compared, plain
    from scanner.evaluation.decisions import SKY_PREVALENCE
    from scanner.evaluation.fetched_data import local_datasets
    from scanner.evaluation.promotion import installed_name, judge, make_default, reasons

    if folder is not None and published is not None:
        raise UsageError("Give one of --models and --published.")
    storage = storage_of(endpoint)
    kept = cache or cache_folder()

    def passes(new: str, old: str | None) -> bool:
        """Compare, and say why."""
        # The comparison reads folders: what lies on an object store is copied.
        pair = [str(bundles.load(bundle, storage).path) for bundle in (new, old)]
        sets = local_datasets(data, kept / "datasets", storage)
        comparison = compared(pair, sets, images, known, None, SKY_PREVALENCE, 0, 0, kept, provider, threads)
        promotion = judge(comparison.evaluation)
        click.echo("\n".join(plain(reasons(promotion))))
        failed = sum(not check.passed for check in promotion.checks)
        if failed:
            click.echo(
                f"{promotion.new} is worse than {promotion.old} in {failed} of {len(promotion.checks)} figures: not promoted."
            )
        return not failed

    with sigterm_interrupts():
        if published is None:
            place = folder or bundles.models_folder()
            name = installed_name(bundles.find(new), place)
            if not passes(new, over):
                return NOT_PROMOTED
            click.echo(f"{make_default(name, place)}: {name} is the default bundle now.")
            return 0
        store = PublishedBundles(published, storage)
        fingerprint, current = store.find(new), store.pointer("current")
        if current is not None and current.bundle == fingerprint:
            click.echo(f"{store.where(fingerprint)}: is in use already.")
            return 0
        if not passes(store.where(fingerprint), over or (None if current is None else store.where(current.bundle))):
            return NOT_PROMOTED
        click.echo(_moved(store, store.move("current", fingerprint, only_from=current)))
    return 0


@click.command()
@click.option("--published", required=True, help="Store of published bundles, a folder or s3://…")
@click.option("--to", "fingerprint", help="Fingerprint of the bundle to use [default: the one that was in use before].")
@endpoint_option
def rollback(published: str, fingerprint: str | None, endpoint: str | None) -> None:
    """Use the bundle again that was in use before the last promotion, or another one of the store.

    Nothing is measured. Runs that have begun go on with the bundle that they began with.
    """
    store = PublishedBundles(published, storage_of(endpoint))
    if fingerprint is None:
        current = store.pointer("current")
        if current is None or current.before is None:
            raise UsageError(f"{published}: no bundle was in use before; name one with --to.")
        chosen = current.before
    else:
        chosen = store.find(fingerprint)
    click.echo(_moved(store, store.move("current", chosen)))


def _moved(store: PublishedBundles, now: PublishedBundle) -> str:
    """What is in use, and how to undo that."""
    text = f"{store.where('current.json')}: {now.name} {now.version} ({now.bundle[:12]}) is in use now."
    if now.before is None:
        return text
    return f"{text}\nTo go back: scanner models rollback --published {store.location} --to {now.before[:12]}"
