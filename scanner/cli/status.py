"""``scanner status``: how far a run is, read from its folder while it goes on or afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from scanner.cli.output import storage_options
from scanner.config import StorageConfig
from scanner.interface.opened import Run
from scanner.interface.progress import counted, duration
from scanner.storage import Store, open_store
from scanner.survey.folder.cost import one_line
from scanner.survey.status import RunStatus

#: Running tiles, and failed ones, that are printed.
PRINTED_TILES = 20
#: A driver that seems silent is given this many of its intervals to write once more.
PATIENCE_INTERVALS = 2


@click.command()
@click.argument("out")
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON, as the run folder's status.json has it.")
@storage_options()
def status(out: str, as_json: bool, storage: StorageConfig) -> None:
    """Say how far the run in the folder OUT is: a local path or s3://….

    The driver writes its status every few seconds; one that was killed falls silent, which is shown too.
    """
    known = Run(out, storage).status
    if as_json:
        click.echo(known.model_dump_json(indent=2))
        return
    lost = known.driver_is_gone
    if not lost and known.driver_is_silent(datetime.now(UTC)):
        # Perhaps it is only that two machines' clocks differ: a driver that lives writes meanwhile.
        time.sleep(PATIENCE_INTERVALS * known.interval_s)
        before, known = known, Run(out, storage).status
        lost = not known.is_over and known.updated == before.updated
    for line in _lines(open_store(out, storage), known, datetime.now(UTC), lost):
        click.echo(line)


def _lines(store: Store, known: RunStatus, now: datetime, lost: bool) -> Iterator[str]:
    yield f"{store.root}: {_state(known, now)}"
    if lost:
        from scanner.survey.folder.ledger import RunFolder

        yield (
            f"Its driver (process {known.pid} on {known.host}) has not been heard of since "
            f"{known.updated:%Y-%m-%d %H:%M:%S} UTC by its clock; {len(RunFolder(store).committed()):,} tiles are committed. "
            "If it is dead, give the same 'scanner run' again and it goes on."
        )
    yield f"  tiles    {known.n_done:,} of {known.n_tiles:,} done, {known.n_failed:,} failed, {len(known.running):,} running"
    if known.objects_per_s:
        yield f"  rate     {known.objects_per_s:,.1f} objects/s"
    if known.eta_s is not None:
        yield f"  to go    {duration(known.eta_s)}"
    if known.totals is not None:
        totals = known.totals
        yield f"  objects  {totals.n_targets:,}, {totals.n_unique:,} distinct, {totals.n_scored:,} scored"
        yield f"  found    {counted(totals.n_candidates, 'candidate')} in {totals.sky_area_deg2:.4f} deg²"
        yield f"  cost     {one_line(totals.cost).removeprefix('Cost: ')}"
    for tile in known.running[:PRINTED_TILES]:
        yield f"  running  {tile.tile_id}: {tile.n_done:,} of {tile.n_targets:,} objects"
    for failure in known.failed[:PRINTED_TILES]:
        yield f"  failed   {failure.tile_id}: {failure.reason}"
    if known.n_failed > PRINTED_TILES:
        yield f"           … and {known.n_failed - PRINTED_TILES:,} more; --json names them, and failed-tiles.ecsv at the end"


def _state(known: RunStatus, now: datetime) -> str:
    lasted = duration((known.updated - known.started).total_seconds())
    match known.state:
        case "running" | "merging":
            doing = "scanning" if known.state == "running" else "merging and ranking"
            ago = max((now - known.updated).total_seconds(), 0.0)
            return f"{doing} for {lasted}, last heard of {duration(ago)} ago"
        case "done":
            return f"done at {known.updated:%Y-%m-%d %H:%M} UTC, in {lasted}"
        case "failed":
            return f"failed at {known.updated:%Y-%m-%d %H:%M} UTC: {known.reason}"
        case _:
            return f"interrupted at {known.updated:%Y-%m-%d %H:%M} UTC; give the same 'scanner run' again and it goes on"
