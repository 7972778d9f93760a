"""``scanner explain``: why the networks say what they say, of one object of a run or of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from scanner.cli.output import WholeSentences, storage_options
from scanner.config import StorageConfig
from scanner.errors import UsageError
from scanner.interface.opened import Run
from scanner.interface.progress import bar
from scanner.records import MEMBERS, MemberName
from scanner.report.explanations import METHODS, PAPER_FIGURES, FigureNumber, Method


@click.command("candidate")
@click.argument("run_folder", metavar="OUT")
@click.argument("candidate", metavar="CANDIDATE_ID")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder to make [default: the object's name, here].")
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
@storage_options(of_run=True)
def candidate(
    run_folder: str,
    candidate: str,
    out: Path | None,
    methods: tuple[Method | Literal["all"], ...],
    members: tuple[MemberName, ...],
    fill: Literal["sky", "zero"],
    data: Path | None,
    bundle: str | None,
    dream_steps: int,
    scratch: str | None,
    storage: StorageConfig,
) -> None:
    """Explain an object of the run in OUT: what speaks for a lens, what against, and who says so.

    CANDIDATE_ID is a name ('EUCL J…'), a rank ('#3', or 3) or a place (tile/target_id). Writes index.html, PNG, arrays.zarr and
    explanation.json; the run folder is only read.
    """
    explained = Run(run_folder, None if storage == StorageConfig() else storage).explain(
        candidate,
        out,
        methods=METHODS if "all" in methods else tuple(one for one in methods if one != "all") or None,
        members=members or None,
        fill=fill,
        dataset=data,
        bundle=bundle,
        dream_steps=dream_steps,
        scratch=scratch,
        progress=True,
    )
    record = explained.record
    votes = ", ".join(f"{vote.member} {vote.probability:.2f}" for vote in record.votes)
    click.echo(f"{record.name}: {record.n_votes} of 7 say lens ({votes})")
    for found in record.maps:
        if found.deletion_gain is not None and found.insertion_gain is not None:
            click.echo(
                f"{found.member} {found.method}: against random orders, deletion {found.deletion_gain.value:+.3f}, insertion "
                f"{found.insertion_gain.value:+.3f}"
            )
    click.echo(f"Look at {explained.page}")


class BundleOrCandidate(WholeSentences):
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
        return ["OUT CANDIDATE_ID [OPTIONS]", "| bundle [BUNDLE] --out DIR [OPTIONS]", "| figures [BUNDLE] --out DIR [OPTIONS]"]


@click.group(cls=BundleOrCandidate)
def explain() -> None:
    """Explain why the networks say what they say.

    With a run folder and an object of it: what speaks for a lens, what against, and who says so ('scanner explain candidate
    --help' lists the options). With the word bundle: what the networks of a bundle respond to. With the word figures: those of
    section 5 of the paper.
    """


@explain.command("figures")
@click.argument("bundle", required=False)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the figures, a PNG each.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Labelled set whose first objects are shown.",
)
@click.option("--known", type=click.Path(path_type=Path), help="List of known lenses with FITS images, as for 'evaluate'.")
@click.option(
    "--figure", "numbers", type=click.Choice(PAPER_FIGURES), multiple=True, help="Only this one; repeat for more [all]."
)
@click.option("--paper", is_flag=True, help="With the authors' settings: covered with 0, probabilities, their kernels.")
@click.option("--class-steps", type=click.IntRange(1), default=5000, show_default=True, help="Steps of a class image.")
@click.option("--dream-steps", type=click.IntRange(1), default=1000, show_default=True, help="Steps of Deep Dream.")
@click.option("--kernel-steps", type=click.IntRange(1), help="Steps of a kernel image [default: 1000; with --paper 50].")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the noise.")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch [default: the cores].")
def figures_(
    bundle: str | None,
    out: Path,
    data: tuple[Path, ...],
    known: Path | None,
    numbers: tuple[FigureNumber, ...],
    paper: bool,
    class_steps: int,
    dream_steps: int,
    kernel_steps: int | None,
    seed: int,
    threads: int | None,
) -> None:
    """Draw figures 7, 8 and 11 to 17 of the paper for BUNDLE (default: the one that ships with scanner).

    Shown are the first objects of the sets, whatever the networks say of them. Under each figure stands how it was made, the
    authors' settings beside ours. Fig. 16 takes an hour of one core, most of it for OU-200.
    """
    import torch

    from scanner.ensemble import bundles
    from scanner.evaluation.images import known_lens_cutouts, read_known_lenses
    from scanner.explain.figures import FigureSettings, chosen, draw_figures
    from scanner.labelled_set import LabelledSet

    if threads is not None:
        torch.set_num_threads(threads)
    settings = FigureSettings(paper, class_steps, dream_steps, kernel_steps, seed)
    lenses = {} if known is None else known_lens_cutouts(read_known_lenses(known))
    objects = chosen([LabelledSet(path) for path in data], lenses)
    draw_figures(bundles.load(bundle), objects, out, settings, numbers, click.echo)


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
    with bar("drawing", shown=True, unit="steps", many=True) as move:

        def report(what: str, done: int, total: int) -> None:
            move(done, total, what)

        record = explain_bundle(bundles.load(bundle), out, request, dataset=dataset, device=device, report=report)
    for member in record.members:
        told = (
            f"{made.name} {made.before:.1f} to {made.reached:.1f} (noise {made.best_of_noise:.1f})" for made in member.classes
        )
        click.echo(f"{member.member}: logits of the class images: {', '.join(told)}")
    click.echo(f"{out / PAGE}: the atlas of {record.bundle}")
