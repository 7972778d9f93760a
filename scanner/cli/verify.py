"""``scanner verify``: whether a run, a survey, a bundle, a dataset or a cutout store is still what was written."""

from __future__ import annotations

import click

from scanner.cli.options import storage_options
from scanner.config import StorageConfig
from scanner.errors import ContentError
from scanner.interface.progress import counted


@click.command()
@click.argument("path")
@click.option("--deep", is_flag=True, help="Read every byte: cutouts, and all versions of a survey, too.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@storage_options()
def verify(path: str, deep: bool, as_json: bool, storage: StorageConfig) -> int:
    """Compare the files in PATH with the checksums that were recorded when they were written: a path or s3://….

    PATH holds a run, a survey, a bundle, a store of bundles, a dataset or a cutout store. Nothing is changed; every file that
    is damaged or missing is named, with what makes it whole again. Exit codes: 0 whole, 66 nothing to verify, 78 damaged.
    """
    from scanner.interface.verify import IN_WORDS, verified

    found = verified(path, storage, deep=deep, progress=True)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return 0 if found.is_whole else ContentError.exit_code
    for problem in found.problems:
        click.echo(problem)
    for note in found.notes:
        click.echo(f"Note: {note}.")
    compared = f"{counted(found.n_files, 'file')} ({found.n_bytes / 1e6:,.1f} MB)"
    if not found.is_whole:
        problems = counted(len(found.problems), "problem")
        raise ContentError(f"{path}: {problems} in {IN_WORDS[found.kind]}, of which {compared} were compared.")
    deeper = "" if deep else "; --deep reads cutouts too"
    click.echo(f"{path}: {IN_WORDS[found.kind]}, whole: {compared} are what was written{deeper}.")
    return 0
