"""``scanner explain OUT CANDIDATE_ID``: the page of one object of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from scanner import config as configuration
from scanner.config import StorageConfig
from scanner.records import MEMBERS, MemberName
from scanner.report.object_page import METHODS, QUICK, PageRequest


@click.command("candidate")
@click.argument("run_folder", metavar="OUT")
@click.argument("candidate", metavar="CANDIDATE_ID")
@click.option("--to", "out", type=click.Path(path_type=Path), help="Folder to make [default: the object's name, here].")
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice([*METHODS, "all"]),
    help="Repeat for more [default: all but deep-dream, which takes minutes].",
)
@click.option(
    "--member", "members", multiple=True, type=click.Choice(MEMBERS), help="Network; repeat for more [default: OU-200, OU-66]."
)
@click.option(
    "--fill",
    type=click.Choice(["sky", "zero"]),
    default="sky",
    show_default=True,
    help="What occlusion covers with; the paper: zero.",
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Labelled set whose objects are searched for neighbours, and shown."
)
@click.option("--bundle", help="Bundle, where it is no longer where the run found it, or another one.")
@click.option("--dream-steps", type=click.IntRange(1), default=1000, show_default=True, help="Steps of Deep Dream.")
@click.option("--scratch", help="Folder for fetched, decompressed and resampled mosaics.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings; [storage] counts here."
)
@click.option("--endpoint", help="URL of an S3-compatible server [default: the run's; AWS, or AWS_ENDPOINT_URL].")
@click.option("--anonymous", is_flag=True, default=None, help="Do not sign requests to object stores.")
def candidate(
    run_folder: str,
    candidate: str,
    out: Path | None,
    methods: tuple[str, ...],
    members: tuple[MemberName, ...],
    fill: str,
    data: Path | None,
    bundle: str | None,
    dream_steps: int,
    scratch: str | None,
    config_file: Path | None,
    endpoint: str | None,
    anonymous: bool | None,
) -> None:
    """Explain an object of the run in OUT: what speaks for a lens, what against, and who says so.

    CANDIDATE_ID is a name ('EUCL J…'), a rank ('#3', or 3) or a place (tile/target_id). Writes index.html, PNG, arrays.zarr and
    explanation.json; the run folder is only read.
    """
    from scanner.cli.evaluate import cache_folder
    from scanner.evaluation.labelled_data import Dataset
    from scanner.explain.page.object import ExplainRequest, explain_object
    from scanner.explain.page.write import PAGE

    storage = configuration.load(config_file, {"storage.endpoint": endpoint, "storage.anonymous": anonymous}).storage
    asked: dict[str, Any] = {"fill": fill, "dream_steps": dream_steps, "methods": _methods(methods)}
    if members:
        asked["members"] = members
    place = out or Path(candidate.strip().lstrip("#").replace("/", "-").replace(" ", "-") + "-explained")
    record = explain_object(
        ExplainRequest(
            run_folder=run_folder,
            candidate=candidate,
            out=place,
            page=PageRequest.model_validate(asked),
            bundle=bundle,
            dataset=None if data is None else Dataset(data),
            cache=cache_folder(),
            storage=None if storage == StorageConfig() else storage,
            scratch=scratch,
        ),
        _told if sys.stderr.isatty() else lambda what, done, total: None,
    )
    if sys.stderr.isatty():
        click.echo("\r\033[K", err=True, nl=False)
    votes = ", ".join(f"{vote.member} {vote.probability:.2f}" for vote in record.votes)
    click.echo(f"{record.name}: {record.n_votes} of 7 say lens ({votes})")
    for found in record.maps:
        if found.deletion_gain is not None and found.insertion_gain is not None:
            click.echo(
                f"{found.member} {found.method}: against random orders, deletion {found.deletion_gain.value:+.3f}, insertion "
                f"{found.insertion_gain.value:+.3f}"
            )
    click.echo(f"Look at {place / PAGE}")


def _methods(words: tuple[str, ...]) -> tuple[str, ...]:
    if "all" in words:
        return METHODS
    return tuple(method for method in METHODS if method in words) if words else QUICK


def _told(what: str, done: int, total: int) -> None:
    click.echo(f"\r\033[K{what}" + (f": {done} of {total}" if total > 1 else ""), err=True, nl=False)
