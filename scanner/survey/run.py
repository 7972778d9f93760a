"""The whole run, as ``scanner run`` and :func:`scanner.scan` start it; and what it would do: tiles, objects, bytes, time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner import __version__
from scanner.catalogue.known_lenses import load_known_lenses
from scanner.catalogue.rank import LEAST_LISTED
from scanner.config import RunConfig
from scanner.cutouts.extract import cut
from scanner.cutouts.store import CODECS
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.preprocessing import ORIENTATIONS
from scanner.ensemble.session import Scorer
from scanner.errors import TileError, error_with_code
from scanner.records import NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, FailedTile, Float32, Record, Targets, Tile
from scanner.sky import tile_list
from scanner.sky.local_files import fetch_tile, remote_files, temporary_folder
from scanner.sky.targets import list_targets
from scanner.sky.tile_images import TileImages, open_tile
from scanner.sky.tile_list import TileList
from scanner.storage import absolute
from scanner.survey.folder import fingerprint
from scanner.survey.folder.fingerprint import bytes_of_tile
from scanner.survey.folder.ledger import DamagedTileError, RunFolder, RunRecord
from scanner.survey.folder.resume import HEAD_START_S, InputChecks, committed_inputs, input_checks, open_run
from scanner.survey.messages import Event, MergeStarted, RunStarted, TileFinished, TileJob, TileProgress
from scanner.survey.scan.output import kept_fraction
from scanner.survey.scan.tile import GPU_PROVIDERS, parallel_scores
from scanner.survey.status import RunReport, StatusFile
from scanner.survey.workers.cluster import worker_count
from scanner.survey.workers.engine import run_on_workers
from scanner.survey.workers.steps import SCANNING

#: Remote tiles that are fetched, one after another, to find one that can be measured.
MOST_FETCHED = 3
#: Share of the objects counted as candidates where nothing is known yet.
CANDIDATE_FRACTION = 0.01


class TilePlan(Record):
    """One tile of a planned run that was opened.

    ``cutting_seconds``: of a processor, for one object, with sky, sigma and flags, as measured on a few. ``n_alike``: other
    tiles, not opened, that are taken to be like it.
    """

    tile_id: str
    alignment: str
    target_source: str
    n_seen: int
    n_targets: int
    input_bytes: int
    sky_area_deg2: float
    cutting_seconds: float = 0.0
    n_alike: int = 0


class FetchedTile(Record):
    """The remote tile that was fetched for the plan's sake, and what that took."""

    tile_id: str
    bytes: int
    seconds: float


class RunPlan(Record):
    """A planned run; ``seconds`` is an estimate from short measurements of cutting and scoring on this machine.

    ``objects_per_second``: scored by one worker, on the clock, with the bundle's screen and test-time augmentation as far as
    non-lenses get them. ``scoring_seconds``: of processors, for one object likewise; on a GPU, on the clock.
    ``without_screen``: the same where all members score everything; None where they do. ``share_passing``: of the objects, that
    all members score.
    """

    tiles: tuple[TilePlan, ...]
    failed: tuple[FailedTile, ...]
    fetched: FetchedTile | None = None
    workers: int
    objects_per_second: float
    scoring_seconds: float
    without_screen: float | None = None
    share_passing: float = 1.0

    @property
    def n_tiles(self) -> int:
        """Tiles that would be scanned."""
        return sum(1 + tile.n_alike for tile in self.tiles)

    @property
    def n_targets(self) -> int:
        """Objects that would be scored."""
        return sum((1 + tile.n_alike) * tile.n_targets for tile in self.tiles)

    @property
    def input_bytes(self) -> int:
        """Bytes of the input files."""
        return sum((1 + tile.n_alike) * tile.input_bytes for tile in self.tiles)

    @property
    def sky_area_deg2(self) -> float:
        """Sky with good VIS pixels."""
        return sum((1 + tile.n_alike) * tile.sky_area_deg2 for tile in self.tiles)

    @property
    def core_seconds(self) -> float:
        """Expected processor time, cutting and scoring: what else the machine does has no part in it."""
        return self._cutting_seconds + self.n_targets * self.scoring_seconds

    @property
    def core_seconds_without_screen(self) -> float:
        """The same where all members score everything."""
        return self._cutting_seconds + self.n_targets * (self.without_screen or self.scoring_seconds)

    @property
    def seconds(self) -> float:
        """Expected duration."""
        return (self._cutting_seconds + self.n_targets / self.objects_per_second) / self.workers

    @property
    def _cutting_seconds(self) -> float:
        return sum((1 + tile.n_alike) * tile.n_targets * tile.cutting_seconds for tile in self.tiles)

    def stored_bytes(self, config: RunConfig) -> int:
        """Bytes of cutouts that would be kept."""
        if config.cutouts.keep == "none":
            return 0
        fraction = max(kept_fraction(config.cutouts.keep), CANDIDATE_FRACTION)
        kept = sum((1 + tile.n_alike) * min(tile.n_targets, fraction * tile.n_targets + LEAST_LISTED) for tile in self.tiles)
        return round(kept * CODECS[config.cutouts.codec].bytes_per_object)


def plan(tiles: Mapping[str, Tile], config: RunConfig, scorer: Scorer) -> RunPlan:
    """Open the headers of every local tile and of one remote tile, count the targets and time the scorer.

    A tile on an object store holds gigabytes: one is fetched and measured, and the others are taken to be like it. Targets from
    a catalogue or a grid are counted exactly; with detection the mosaic has to be read once.
    """
    remote: list[str] = []
    plans: list[TilePlan | FailedTile] = []
    for tile_id, tile in tiles.items():
        if remote_files(tile):
            remote.append(tile_id)
        else:
            plans.append(_look_at(tile, config)[0])
    of_remote, fetched = _plan_remote(remote, tiles, config)
    plans += of_remote
    planned = tuple(one for one in plans if isinstance(one, TilePlan))
    return RunPlan(
        tiles=planned,
        failed=tuple(one for one in plans if isinstance(one, FailedTile)),
        fetched=fetched,
        workers=worker_count(config.engine, sum(1 + tile.n_alike for tile in planned)),
        **_scoring_rates(scorer),
    )


def _plan_remote(
    remote: list[str], tiles: Mapping[str, Tile], config: RunConfig
) -> tuple[list[TilePlan | FailedTile], FetchedTile | None]:
    """Fetch tiles until one can be measured, and take the rest to be like it."""
    plans: list[TilePlan | FailedTile] = []
    for number, tile_id in enumerate(remote[:MOST_FETCHED], start=1):
        plan, seconds = _look_at(tiles[tile_id], config)
        if isinstance(plan, TilePlan):
            plans.append(plan.model_copy(update={"n_alike": len(remote) - number}))
            return plans, FetchedTile(tile_id=tile_id, bytes=plan.input_bytes, seconds=seconds)
        plans.append(plan)
    reason = f"not looked at, since the first {MOST_FETCHED} remote tiles cannot be scanned."
    return plans + [FailedTile(tile_id=tile_id, reason=reason) for tile_id in remote[MOST_FETCHED:]], None


def _look_at(tile: Tile, config: RunConfig) -> tuple[TilePlan | FailedTile, float]:
    """Plan of one tile, and the seconds that fetching it took."""
    try:
        with temporary_folder(config.engine.scratch) as scratch:
            start = time.monotonic()
            here = fetch_tile(tile, scratch, config.storage)
            seconds = time.monotonic() - start
            return _plan_tile(here, config, scratch), seconds
    except TileError as error:
        return FailedTile(tile_id=tile.tile_id, reason=str(error)), 0.0


def _plan_tile(tile: Tile, config: RunConfig, scratch: Path) -> TilePlan:
    with open_tile(tile, config.cutouts, scratch) as images:
        selection = list_targets(tile, images.vis, config.targets)
        return TilePlan(
            tile_id=tile.tile_id,
            alignment=images.alignment.case,
            target_source=selection.source,
            n_seen=selection.n_seen,
            n_targets=len(selection.targets),
            input_bytes=bytes_of_tile(tile),
            sky_area_deg2=images.sky_area_deg2,
            cutting_seconds=_cutting_seconds(images, selection.targets),
        )


def _cutting_seconds(images: TileImages, targets: Targets, n_objects: int = 32) -> float:
    """Processor seconds that cutting and measuring one of the objects takes; 0 where there is none.

    Not on the clock: a few objects all over a tile wait for the disk as its thousands, side by side, do not.
    """
    some = targets.take(np.linspace(0, len(targets) - 1, min(n_objects, len(targets))).astype(np.int64))
    start = time.process_time()
    n_cut = sum(len(batch) for batch in cut(images, some, n_objects))
    return (time.process_time() - start) / max(n_cut, 1)


def _scoring_rates(scorer: Scorer, n_objects: int = 16) -> dict[str, Any]:
    """Fields of the plan: each stage of scoring is timed on noise, and weighted by the share of non-lenses that reach it."""
    noise = np.random.default_rng(0)
    vis = noise.standard_normal((n_objects, VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS), np.float32)
    nisp = noise.standard_normal((n_objects, 3, NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), np.float32)
    cutouts = (vis, nisp, np.zeros((n_objects, 4), np.float32), np.ones((n_objects, 4), np.float32))

    def seconds_per_object(score: Callable[..., Float32]) -> NDArray[np.float64]:
        """On the clock, and of processors."""
        score(*(values[:2] for values in cutouts))
        start = np.array([time.perf_counter(), time.process_time()])
        score(*cutouts)
        spent: NDArray[np.float64] = np.array([time.perf_counter(), time.process_time()]) - start
        return spent / n_objects

    manifest, session = scorer.bundle.manifest, scorer.session
    by_all, turning, turned = seconds_per_object(session.plain_logits), np.zeros(2), 0.0
    if manifest.second_look is not None:
        turning, turned = seconds_per_object(session.turned_logits), manifest.second_look.share
    again = (ORIENTATIONS - 1) * turning
    everything = planned = by_all + turned * again
    if scorer.screening is not None and manifest.screen is not None:
        # What turns has passed all stages.
        share = manifest.screen.share_passing
        planned = seconds_per_object(session.screen_logits) + share * by_all + min(share, turned) * again
        if manifest.screen.second_stage is not None:
            planned = planned + manifest.screen.share * turning
    costs = 0 if session.provider in GPU_PROVIDERS else 1
    rates = {"objects_per_second": 1.0 / planned[0], "scoring_seconds": planned[costs]}
    if planned is everything:
        return rates
    return rates | {"without_screen": everything[costs], "share_passing": share}


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
