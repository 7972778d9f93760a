"""``scanner explain``: why the networks say what they say, of one object of a run or of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scanner import config as configuration
from scanner.config import StorageConfig
from scanner.errors import UsageError
from scanner.interface.progress import bar
from scanner.records import MEMBERS, MemberName
from scanner.report.explanations import METHODS, QUICK, PageRequest

if TYPE_CHECKING:
    pass


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
    from scanner.explain.object_page import PAGE, ExplainRequest, explain_object
    from scanner.labelled_set import LabelledSet

    storage = configuration.load(config_file, {"storage.endpoint": endpoint, "storage.anonymous": anonymous}).storage
    asked: dict[str, Any] = {"fill": fill, "dream_steps": dream_steps, "methods": _methods(methods)}
    if members:
        asked["members"] = members
    place = out or Path(candidate.strip().lstrip("#").replace("/", "-").replace(" ", "-") + "-explained")
    with bar("explaining") as move:
        record = explain_object(
            ExplainRequest(
                run_folder=run_folder,
                candidate=candidate,
                out=place,
                page=PageRequest.model_validate(asked),
                bundle=bundle,
                dataset=None if data is None else LabelledSet(data),
                cache=cache_folder(),
                storage=None if storage == StorageConfig() else storage,
                scratch=scratch,
            ),
            lambda what, done, total: move(done, total, what),
        )
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


class BundleOrCandidate(click.Group):
    """Takes a first word that is no command for the run folder of :attr:`default`: ``scanner explain OUT CANDIDATE_ID``."""

    default = "candidate"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Both commands."""
        return [self.default, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command by name."""
        if cmd_name == self.default:
            return candidate
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a line."""
        return super().resolve_command(ctx, args if args[0] in self.list_commands(ctx) else [self.default, *args])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Both ways to call it."""
        return ["OUT CANDIDATE_ID [OPTIONS]", "| bundle [BUNDLE] --out DIR [OPTIONS]"]


@click.group(cls=BundleOrCandidate)
def explain() -> None:
    """Explain why the networks say what they say.

    With a run folder and an object of it: what speaks for a lens, what against, and who says so ('scanner explain candidate
    --help' lists the options). With the word bundle: what the networks of a bundle respond to.
    """


@explain.command("bundle")
@click.argument("bundle", required=False)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make; what is in it goes on.")
@click.option("--data", type=click.Path(path_type=Path), help="Labelled set: shows the objects that activate each kernel most.")
@click.option(
    "--member", "members", multiple=True, type=click.Choice(MEMBERS), help="Network; repeat for more [default: OU-66, OU-200]."
)
@click.option("--kernels", type=click.IntRange(1), default=8, show_default=True, help="Kernels of each convolution.")
@click.option("--all-kernels", is_flag=True, help="All kernels of each convolution.")
@click.option("--class-steps", type=click.IntRange(1), default=5000, show_default=True, help="Steps of a class image.")
@click.option("--kernel-steps", type=click.IntRange(1), default=1000, show_default=True, help="Steps of a kernel image.")
@click.option("--objects", type=click.IntRange(2), default=2000, show_default=True, help="Objects of the set to look at.")
@click.option("--examples", type=click.IntRange(1), default=3, show_default=True, help="Objects shown for each kernel.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the noise, and of the choice of objects."
)
@click.option("--device", default="cpu", show_default=True, help="Of torch: cpu, cuda, cuda:1 ...")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch [default: the cores].")
def explain_bundle_(
    bundle: str | None,
    out: Path,
    data: Path | None,
    members: tuple[MemberName, ...],
    kernels: int,
    all_kernels: bool,
    class_steps: int,
    kernel_steps: int,
    objects: int,
    examples: int,
    seed: int,
    device: str,
    threads: int | None,
) -> None:
    """Draw the atlas of BUNDLE (default: the one that ships with scanner): class images and kernels.

    For each network the images that it takes for the best of lenses and of non-lenses, and for kernels of every convolution the
    image that each responds to most, beside the objects of a labelled set that activate it most. Writes index.html, PNG
    sheets, arrays.zarr and explanation.json. With the paper's numbers of steps this takes an hour of one core, most of it for
    OU-200; it can be stopped at any moment, and the same command goes on.
    """
    import torch

    from scanner.ensemble import bundles
    from scanner.explain.atlas import AS_IN_THE_PAPER, PAGE, explain_bundle
    from scanner.labelled_set import LabelledSet

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UsageError(f"--device {device} cannot be used ({reason}); choose cpu, or another.") from None
    request = AS_IN_THE_PAPER.model_copy(
        update={
            "members": members or AS_IN_THE_PAPER.members,
            "seed": seed,
            "class_steps": class_steps,
            "kernel_steps": kernel_steps,
            "kernels": None if all_kernels else kernels,
            "objects": objects,
            "examples": examples,
        }
    )
    dataset = None if data is None else LabelledSet(data)
    with bar("drawing", lines=("", 20.0), many=True) as move:

        def report(what: str, done: int, total: int) -> None:
            move(done, total, what)

        record = explain_bundle(bundles.load(bundle), out, request, dataset=dataset, device=device, report=report)
    for member in record.members:
        told = (
            f"{made.name} {made.before:.1f} to {made.reached:.1f} (noise {made.best_of_noise:.1f})" for made in member.classes
        )
        click.echo(f"{member.member}: logits of the class images: {', '.join(told)}")
    click.echo(f"{out / PAGE}: the atlas of {record.bundle}")
