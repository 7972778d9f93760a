"""``scanner explain``: why the networks say what they say, of one object of a run or of a bundle."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner.errors import UsageError
from scanner.records import MEMBERS, MemberName

if TYPE_CHECKING:
    from scanner.explain.atlas.member import AtlasReport

_PLAIN_SECONDS = 20.0


class BundleOrCandidate(click.Group):
    """Takes a first word that is no command for the run folder of :attr:`default`: ``scanner explain OUT CANDIDATE_ID``."""

    default = "candidate"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Both commands."""
        return [self.default, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command by name."""
        if cmd_name == self.default:
            from scanner.cli.explain_candidate import candidate

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

    from scanner.ensemble import bundle as bundles
    from scanner.evaluation.labelled_data import Dataset
    from scanner.explain.atlas.bundle import AS_IN_THE_PAPER, explain_bundle
    from scanner.explain.atlas.write import PAGE

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
    dataset = None if data is None else Dataset(data)
    with _progress() as report:
        record = explain_bundle(bundles.load(bundle), out, request, dataset=dataset, device=device, report=report)
    for member in record.members:
        told = (
            f"{made.name} {made.before:.1f} to {made.reached:.1f} (noise {made.best_of_noise:.1f})" for made in member.classes
        )
        click.echo(f"{member.member}: logits of the class images: {', '.join(told)}")
    click.echo(f"{out / PAGE}: the atlas of {record.bundle}")


@contextmanager
def _progress() -> Iterator[AtlasReport]:
    """A bar for what is being made, on a terminal; elsewhere a line now and then, on standard error."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            tasks = {}

            def move(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=total)
                bar.update(tasks[what], completed=done)

            yield move
    else:
        last = time.monotonic()

        def line(what: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > _PLAIN_SECONDS:
                last = time.monotonic()
                click.echo(f"{what}: {done} of {total}", err=True)

        yield line
