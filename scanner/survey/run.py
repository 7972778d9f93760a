"""The whole run, as ``scanner run`` and Python users start it.

In: a :class:`RunRequest`. Out: a :class:`RunReport` and the run folder. Refused: everything that can be known before the first
tile is opened (list, settings, bundle, provider, output folder); what befalls single tiles is in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scanner import __version__
from scanner.config import RunConfig
from scanner.ensemble import bundle as bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.score import Scorer
from scanner.errors import ContentError, TileError, error_with_code
from scanner.records import CommitRecord, FailedTile, Tile
from scanner.sky import tile_list
from scanner.storage import is_remote
from scanner.survey import fingerprint
from scanner.survey.engine import scan_tiles, worker_count
from scanner.survey.finish import RunReport, finish
from scanner.survey.ledger import RunFolder, RunRecord
from scanner.survey.messages import TileJob, TileProgress
from scanner.survey.opening import open_run
from scanner.survey.plan import RunPlan, plan


@dataclass(frozen=True)
class RunRequest:
    """What is to be run: the tile list, the run folder and the settings."""

    tile_list: str
    out: str
    config: RunConfig
    restart: bool = False


@dataclass(frozen=True)
class RunStarted:
    """The first event of a run: how many tiles there are, and how many of them were done before."""

    n_tiles: int
    n_done_before: int
    n_workers: int
    provider: str
    bundle_name: str
    bundle_version: str


@dataclass(frozen=True)
class TileFinished:
    """A tile is committed or has failed."""

    tile_id: str
    commit: CommitRecord | None
    failed: FailedTile | None


@dataclass(frozen=True)
class Merging:
    """All tiles are through; their tables are being merged."""


Event = RunStarted | TileProgress | TileFinished | Merging


def dry_run(request: RunRequest) -> RunPlan:
    """Say what :func:`run_survey` would do; writes nothing."""
    listed = tile_list.read(request.tile_list)
    planned = plan(listed.tiles, request.config, _scorer(bundles.load(request.config.scoring.bundle), request.config))
    return planned.model_copy(update={"failed": (*listed.failed, *planned.failed)})


def run_survey(request: RunRequest, on_event: Callable[[Event], None] = lambda _: None) -> RunReport:
    """Scan every tile that is not committed yet, then merge, rank, export and draw.

    Parameters
    ----------
    request
        What to run.
    on_event
        Called as the run goes on, possibly from another thread.

    Raises
    ------
    ScannerError
        See the module's docstring; the run folder can be run again.
    """
    config = request.config
    listed = tile_list.read(request.tile_list)
    bundle = bundles.load(config.scoring.bundle)
    provider = _scorer(bundle, config).provider
    config_print = fingerprint.of_config(config, provider)
    record = RunRecord(
        scanner_version=__version__,
        tile_list=str(request.tile_list),
        tile_ids=tuple(sorted({tile.tile_id for tile in listed.tiles} | {tile.tile_id for tile in listed.failed})),
        bundle_name=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        bundle_fingerprint=bundle.fingerprint,
        provider=provider,
        config_fingerprint=config_print,
        config=config,
    )
    with open_run(request.out, config.storage, record, restart=request.restart) as folder:
        failed = list(listed.failed)
        todo: list[TileJob] = []
        n_done_before = 0
        done = set(folder.committed())
        for tile in listed.tiles:
            if tile.tile_id in done and (commit := folder.commit_of(tile.tile_id)) is not None:
                try:
                    inputs = fingerprint.of_tile(tile, config.storage)
                except TileError as error:
                    failed.append(FailedTile(tile_id=tile.tile_id, reason=str(error)))
                    continue
                if commit.input_fingerprint != inputs:
                    raise ContentError(
                        f"{folder.store.where(folder.tile(tile.tile_id))}: the tile's input files have changed since it was "
                        "scanned; run with --restart, or name a new folder with --out."
                    )
                n_done_before += 1
            else:
                todo.append(_job(tile, folder, config, provider, bundle, config_print))
        n_tiles = len(listed.tiles) + len(listed.failed)
        n_workers = worker_count(config.engine, len(todo))
        on_event(
            RunStarted(
                n_tiles=n_tiles,
                n_done_before=n_done_before,
                n_workers=n_workers,
                provider=provider,
                bundle_name=bundle.manifest.name,
                bundle_version=bundle.manifest.version,
            )
        )
        for failure in failed:
            on_event(TileFinished(tile_id=failure.tile_id, commit=None, failed=failure))
        failed += list(_scan(todo, config, on_event))
        on_event(Merging())
        return finish(folder, record, bundle, listed.tiles, tuple(failed))


def _scan(todo: list[TileJob], config: RunConfig, on_event: Callable[[Event], None]) -> Iterator[FailedTile]:
    if not todo:
        return
    for outcome in scan_tiles(todo, len(todo), config, on_event):
        if outcome.fatal is not None:
            raise error_with_code(outcome.fatal.exit_code, outcome.fatal.message)
        tile_id = outcome.commit.tile_id if outcome.commit else outcome.failed.tile_id if outcome.failed else ""
        on_event(TileFinished(tile_id=tile_id, commit=outcome.commit, failed=outcome.failed))
        if outcome.failed is not None:
            yield outcome.failed


def _job(tile: Tile, folder: RunFolder, config: RunConfig, provider: str, bundle: Bundle, config_print: str) -> TileJob:
    return TileJob(
        tile=tile,
        run_folder=folder.location if is_remote(folder.location) else str(Path(folder.location).resolve()),
        config=config,
        provider=provider,
        bundle=str(bundle.path.resolve()),
        config_fingerprint=config_print,
        bundle_fingerprint=bundle.fingerprint,
    )


def _scorer(bundle: Bundle, config: RunConfig) -> Scorer:
    scoring = config.scoring
    return Scorer(
        bundle,
        provider=scoring.provider,
        threads=scoring.threads,
        beta=scoring.beta,
        max_bad_fraction=config.cutouts.max_bad_fraction,
    )
