"""The whole run, as ``scanner run`` and :func:`scanner.scan` start it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from scanner import __version__
from scanner.catalogue.known_lenses import load_known_lenses
from scanner.config import RunConfig
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.session import Scorer
from scanner.errors import error_with_code
from scanner.records import FailedTile, Tile
from scanner.sky import tile_list
from scanner.sky.tile_list import TileList
from scanner.storage import absolute
from scanner.survey.folder import fingerprint
from scanner.survey.folder.ledger import DamagedTileError, RunFolder, RunRecord
from scanner.survey.folder.resume import HEAD_START_S, InputChecks, committed_inputs, input_checks, open_run
from scanner.survey.messages import Event, MergeStarted, RunStarted, TileFinished, TileJob, TileProgress
from scanner.survey.plan import RunPlan, plan
from scanner.survey.scan.tile import GPU_PROVIDERS, parallel_scores
from scanner.survey.status import RunReport, StatusFile
from scanner.survey.workers.cluster import worker_count
from scanner.survey.workers.engine import run_on_workers
from scanner.survey.workers.steps import SCANNING

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRequest:
    """What is to be run: the tile list and the run folder (local paths or ``s3://…``), and the settings.

    ``restart``: throw away what the folder holds. ``verify``: hash the cutouts of finished tiles too, to scan damaged
    ones again.
    """

    tile_list: str
    out: str
    config: RunConfig
    restart: bool = False
    verify: bool = False


def dry_run(request: RunRequest) -> RunPlan:
    """Say what :func:`run_survey` would do; writes nothing."""
    config = request.config
    listed = tile_list.read(request.tile_list, config.storage)
    parallel = parallel_scores(config, worker_count(config.engine, len(listed.tiles)))
    planned = plan(listed.tiles, config, _scorer(bundles.load(config.scoring.bundle, config.storage), config, parallel))
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
        At once, for what can be known before the first tile is opened: list, settings, bundle, known lenses, provider, output
        folder, tiles committed with other settings. As soon as it is found, for a committed tile whose inputs have changed.
        What goes wrong with a single tile is in the report. The run folder can be run again.
    """
    config = request.config
    listed = tile_list.read(request.tile_list, config.storage)
    bundle = bundles.load(config.scoring.bundle, config.storage)
    known = load_known_lenses(config.catalogue.known_lenses, config.storage) if config.catalogue.known_lenses else None
    record = _record(request, listed, bundle, _provider(bundle, config))
    with (
        open_run(request.out, config.storage, record, restart=request.restart) as folder,
        StatusFile(folder, record) as status,
    ):

        def tell(event: Event) -> None:
            status(event)
            if not isinstance(event, TileProgress):
                status.raise_if_refused()
            on_event(event)

        repaired: set[str] = set()
        while True:
            deep = request.verify and not repaired
            failed = (*listed.failed, *_scan(folder, record, bundle, listed, tell, deep))
            tell(MergeStarted())
            # Matplotlib and its like take a second to load: not before the first tile is on its way.
            from scanner.survey.finish import finish

            try:
                report = finish(folder, record, bundle, listed.tiles, failed, known)
                status.finished(report)
                return report
            except DamagedTileError as error:
                # Found while it is read for the results: what can be scanned again is no reason to stop.
                if error.tile_id in repaired:
                    raise
                logger.warning("%s This is done now.", error, extra={"tile": error.tile_id})
                repaired.add(error.tile_id)
                folder.discard(error.tile_id)


def _scan(
    folder: RunFolder, record: RunRecord, bundle: Bundle, listed: TileList, tell: Callable[[Event], None], deep: bool
) -> Iterator[FailedTile]:
    """Scan what is not committed yet and check what is; yields the tiles that cannot be scanned or compared."""
    storage = record.config.storage
    committed = committed_inputs(folder, record, deep=deep)
    with input_checks(folder, listed.tiles, committed, storage) as checks:
        checks.wait(HEAD_START_S)
        n_todo = sum(tile_id not in committed for tile_id in listed.tiles)
        tell(
            RunStarted(
                n_tiles=len(listed),
                n_done_before=len(listed.tiles) - n_todo,
                n_workers=worker_count(record.config.engine, n_todo) if record.config.engine.starts_workers else None,
                provider=record.provider,
                run_folder=folder.location,
                bundle_name=record.bundle_name,
                bundle_version=record.bundle_version,
            )
        )
        for failure in listed.failed:
            tell(TileFinished(tile_id=failure.tile_id, commit=None, failed=failure))
        if n_todo:
            yield from _scan_new(_jobs(folder, record, bundle, listed, committed), n_todo, record, checks, tell)
        for failure in checks.unreadable():
            tell(TileFinished(tile_id=failure.tile_id, commit=None, failed=failure))
            yield failure


def _scan_new(
    jobs: Iterator[TileJob], n_jobs: int, record: RunRecord, checks: InputChecks, tell: Callable[[Event], None]
) -> Iterator[FailedTile]:
    on_gpu = record.provider in GPU_PROVIDERS
    # Closed here and now when something stops the run: workers must not go on until the garbage is collected.
    with closing(run_on_workers(jobs, n_jobs, record.config, SCANNING, tell, on_gpu=on_gpu)) as outcomes:
        for outcome in outcomes:
            checks.raise_if_changed()
            if outcome.fatal is not None:
                raise error_with_code(outcome.fatal.exit_code, outcome.fatal.message)
            tile_id = outcome.commit.tile_id if outcome.commit else outcome.failed.tile_id if outcome.failed else ""
            tell(TileFinished(tile_id=tile_id, commit=outcome.commit, failed=outcome.failed))
            if outcome.failed is not None:
                yield outcome.failed


def _jobs(
    folder: RunFolder, record: RunRecord, bundle: Bundle, listed: TileList, committed: Mapping[str, str]
) -> Iterator[TileJob]:
    for tile_id in listed.tiles:
        if tile_id not in committed:
            yield _job(listed.tiles[tile_id], folder, record, bundle)


def _job(tile: Tile, folder: RunFolder, record: RunRecord, bundle: Bundle) -> TileJob:
    return TileJob(
        tile=tile,
        run_folder=absolute(folder.location),
        hold=folder.hold,
        config=record.config,
        provider=record.provider,
        bundle=bundle.location,
        config_fingerprint=record.config_fingerprint,
        bundle_fingerprint=record.bundle_fingerprint,
    )


def _record(request: RunRequest, listed: TileList, bundle: Bundle, provider: str) -> RunRecord:
    return RunRecord(
        scanner_version=__version__,
        tile_list=absolute(request.tile_list),
        tile_ids=tuple(sorted({*listed.tiles, *(tile.tile_id for tile in listed.failed)})),
        bundle_name=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        bundle_fingerprint=bundle.fingerprint,
        provider=provider,
        config_fingerprint=fingerprint.of_config(request.config, provider),
        config=request.config,
        decision=bundle.decision_rule(request.config.scoring.beta, request.config.scoring.threshold),
    )


def _provider(bundle: Bundle, config: RunConfig) -> str:
    """What runs the networks: tried here, unless it is named and workers from elsewhere have to have it."""
    if not config.engine.starts_workers and config.scoring.provider != "auto":
        bundle.threshold(config.scoring.beta, config.scoring.threshold)
        return config.scoring.provider
    return _scorer(bundle, config).provider


def _scorer(bundle: Bundle, config: RunConfig, parallel: int = 1) -> Scorer:
    scoring = config.scoring
    return Scorer(
        bundle,
        provider=scoring.provider,
        threads=scoring.threads,
        beta=scoring.beta,
        max_bad_fraction=config.cutouts.max_bad_fraction,
        parallel=parallel,
        require_all_bands=config.cutouts.require_all_bands,
        threshold=scoring.threshold,
        screen=scoring.screen,
    )
