"""One tile, from its mosaics to its committed table: the work of one Dask task, or of two.

In: a :class:`TileJob`. Out: small outcomes; the arrays stay in the run folder. :func:`scan_tile` does all; :func:`cut_tile`
hands all cutouts over through the run folder and :func:`score_tile` goes on from there, with the same bytes in the end.
:func:`fetch_tile` may bring remote files here beforehand. Each may be killed anywhere and given again, and does nothing where
the tile is committed. Refused: nothing is raised; what went wrong with the tile, a store, the output or the bundle is told in
the outcome.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import scanner
from scanner.errors import ScannerError, TileError, UnavailableError
from scanner.records import FailedTile
from scanner.survey import metrics
from scanner.survey.messages import CutOutcome, FatalError, TileJob, TileOutcome
from scanner.survey.scan import tile_work
from scanner.survey.scan.tile_work import OnProgress

_log = logging.getLogger(__name__)


def fetch_tile(job: TileJob) -> None:
    """Bring the remote files of a tile to this process's scratch folder; what fails is left for the scan to tell."""
    try:
        tile_work.fetch_ahead(job)
    except Exception as error:
        _log.info("not fetched ahead: %s", error, extra={"tile": job.tile.tile_id})


def scan_tile(job: TileJob, on_progress: OnProgress = lambda _: None) -> TileOutcome:
    """Cut and score one tile, and commit it.

    Parameters
    ----------
    job
        The tile, the settings and the run folder.
    on_progress
        Called after each batch.
    """
    try:
        with metrics.tile_in_progress():
            return TileOutcome(commit=tile_work.scan(job, on_progress))
    except Exception as error:
        return TileOutcome(**_told(job, error))


def cut_tile(job: TileJob, on_progress: OnProgress = lambda _: None) -> CutOutcome:
    """Cut one tile and hand its cutouts over to be scored, wherever that is.

    Parameters
    ----------
    job
        The tile, the settings and the run folder.
    on_progress
        Called after each batch; none is done before it is scored.
    """
    try:
        with metrics.tile_in_progress():
            return CutOutcome(tile_id=job.tile.tile_id, input_fingerprint=tile_work.cut_out(job, on_progress))
    except Exception as error:
        return CutOutcome(tile_id=job.tile.tile_id, **_told(job, error))


def score_tile(job: TileJob, cut_outcome: CutOutcome, on_progress: OnProgress = lambda _: None) -> TileOutcome:
    """Score the cutouts that were handed over, and commit the tile.

    Parameters
    ----------
    job
        The tile, the settings and the run folder.
    cut_outcome
        What :func:`cut_tile` told; where that is a failure, it is the outcome here too.
    on_progress
        Called after each batch.
    """
    if cut_outcome.failed or cut_outcome.passing or cut_outcome.fatal:
        return TileOutcome(failed=cut_outcome.failed, passing=cut_outcome.passing, fatal=cut_outcome.fatal)
    try:
        with metrics.tile_in_progress():
            return TileOutcome(commit=tile_work.score(job, cut_outcome.input_fingerprint, on_progress))
    except Exception as error:
        return TileOutcome(**_told(job, error))


def _told(job: TileJob, error: Exception) -> dict[str, Any]:
    """The field of an outcome that tells an error."""
    metrics.tile_failed()
    tile_id = job.tile.tile_id
    if isinstance(error, UnavailableError):
        return {"passing": FailedTile(tile_id=tile_id, reason=str(error))}
    if isinstance(error, TileError):
        return {"failed": FailedTile(tile_id=tile_id, reason=str(error))}
    if isinstance(error, ScannerError):
        return {"fatal": FatalError(message=str(error), exit_code=error.exit_code)}
    _log.error("internal error", exc_info=error, extra={"tile": tile_id})
    package = str(Path(scanner.__file__).parent)
    steps = traceback.extract_tb(error.__traceback__)
    where = next((step for step in reversed(steps) if step.filename.startswith(package)), steps[-1])
    place = f"{Path(where.filename).name}:{where.lineno}"
    reason = f"tile {tile_id}: internal error, please report it: {type(error).__name__}: {error} ({place})"
    return {"failed": FailedTile(tile_id=tile_id, reason=reason)}
