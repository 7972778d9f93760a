"""Scan tiles, say what that would cost, or score again what was cut: settings, tile list, stages one after the other."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from scanner import config as configuration
from scanner.config import EngineConfig, RankedBy, RunConfig, StorageConfig
from scanner.errors import TileListError, UsageError
from scanner.imaging_surveys import EUCLID
from scanner.interface.progress import bar, followed
from scanner.processes import script_kept_from_children, sigterm_interrupts
from scanner.records import CodecName, FailedTile, ProviderChoice, ScreenChoice, Tile
from scanner.sky import tile_files
from scanner.sky.tile_list import read as read_tile_list
from scanner.storage import open_store
from scanner.storage.contract import is_remote, join, split

if TYPE_CHECKING:
    from scanner.explain.stage import ExplainReport
    from scanner.interface.opened import Run
    from scanner.modelling.stage import ModelReport
    from scanner.survey.metrics import CandidateStage
    from scanner.survey.rescore import RescoreReport
    from scanner.survey.run import RunPlan, RunRequest
    from scanner.survey.status import RunReport

#: Longest wait for Prometheus's next visit at the end of a run, so that it sees how the run ended. It comes every 15 to 60 s.
LAST_VISIT_SECONDS = 60.0

#: One tile: a folder with the survey's file names, an image (see :func:`~scanner.sky.tile_files.named_tiles`), a mapping like a
#: line of a tile list (``id``, ``VIS``, ``Y``, ``J``, ``H``, ``catalogue``, ``VIS_RMS`` …), or a record.
TileLike = str | Path | Mapping[str, str | Path] | Tile


class RunSettings(TypedDict, total=False):
    """The settings of a run by their short names: the options of ``scanner run``, with ``_`` for ``-``.

    ``docs/reference`` describes each. Whatever else :class:`~scanner.config.RunConfig` has is set with ``config``.
    """

    survey: str | Path
    targets: Literal["auto", "catalogue", "detection", "grid"]
    magnitude_limit: float | None
    all_targets: bool
    max_bad_fraction: float
    require_all_bands: bool
    bundle: str | Path | None
    provider: ProviderChoice
    beta: float | None
    threshold: float | None
    rank: RankedBy
    screen: ScreenChoice | None
    keep: str
    codec: CodecName
    known_lenses: str | Path | None
    explain: Literal["none", "candidates"]
    model: Literal["none", "candidates"]
    workers: int | None
    scheduler: str | None
    listen: str | None
    scale_deployment: str | None
    placement: Literal["whole", "split"]
    memory_gb: float
    scratch: str | Path | None
    insecure: bool | None
    tls_ca: str | Path | None
    tls_cert: str | Path | None
    tls_key: str | Path | None
    endpoint: str | None
    anonymous: bool
    metrics_port: int | None


#: Short name → place in the configuration.
KEYS: Mapping[str, str] = {
    "survey": "targets.survey",
    "targets": "targets.source",
    "magnitude_limit": "targets.magnitude_limit",
    "max_bad_fraction": "cutouts.max_bad_fraction",
    "require_all_bands": "cutouts.require_all_bands",
    "bundle": "scoring.bundle",
    "provider": "scoring.provider",
    "beta": "scoring.beta",
    "threshold": "scoring.threshold",
    "rank": "catalogue.rank",
    "screen": "scoring.screen",
    "keep": "cutouts.keep",
    "codec": "cutouts.codec",
    "known_lenses": "catalogue.known_lenses",
    "explain": "explain.which",
    "model": "model.which",
    "workers": "engine.workers",
    "scheduler": "engine.scheduler",
    "listen": "engine.listen",
    "scale_deployment": "engine.scale_deployment",
    "placement": "engine.placement",
    "memory_gb": "engine.memory_limit_gb",
    "scratch": "engine.scratch",
    "insecure": "engine.insecure",
    "tls_ca": "engine.tls_ca",
    "tls_cert": "engine.tls_cert",
    "tls_key": "engine.tls_key",
    "endpoint": "storage.endpoint",
    "anonymous": "storage.anonymous",
    "metrics_port": "engine.metrics_port",
}


def scan(
    tiles: str | Path | Iterable[TileLike],
    out: str | Path | None = None,
    *,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    restart: bool = False,
    verify: bool = False,
    progress: bool | None = None,
    **settings: Unpack[RunSettings],
) -> Run:
    """Scan tiles and rank what looks like a lens, as ``scanner run`` does.

    Parameters
    ----------
    tiles
        A tile list (path or URL); a folder or an image; or several tiles: folders with the survey's file names, images, or
        mappings such as ``{"id": "a", "VIS": "a.fits[1]", "Y": …, "J": …, "H": …}``. All but a list are written to the tile
        list ``<out>-tiles.txt``.
    out
        Run folder, a path or ``s3://…``; the name of the tile list with ``-scan``, beside it, by default. A run that was
        interrupted goes on where it was.
    config
        More settings: a TOML file, dotted keys (``{"targets.detection_sigma": 2.0}``) or a whole configuration.
    restart
        Throw away what the run folder holds.
    verify
        Hash the cutouts of finished tiles too; tiles whose cutouts are damaged are scanned again.
    progress
        Show a bar; by default on a terminal and in a notebook.
    **settings
        See :class:`RunSettings`; they win over ``config``, which wins over the variables ``SCANNER_…``.

    Returns
    -------
    Run
        The finished run. Tiles that failed do not stop it: see :attr:`Run.status <scanner.interface.opened.Run.status>`.

    Raises
    ------
    ScannerError
        Bad settings, missing input, a folder that cannot be written: one sentence that says what to do.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; the same call goes on where it was.

    Examples
    --------
    >>> import scanner
    >>> run = scanner.scan("sky/tile-list.txt", "scan", keep="all")
    >>> run.candidates[:3].colnames[:4]
    ['rank', 'system_id', 'name', 'target_id']
    """
    from scanner.interface.opened import Run

    request = run_request(tiles, out, config=config, restart=restart, verify=verify, **settings)
    for _ in stages(request, progress=progress):
        pass
    return Run(request.out, request.config.storage)


def rescore(
    run: str | Path | Run,
    bundle: str | Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    storage: StorageConfig | None = None,
    progress: bool | None = None,
) -> RescoreReport:
    """Score the stored cutouts of a finished run with another bundle, without its mosaics, as ``scanner rescore`` does.

    The run folder then is a run by that bundle: catalogue, lists and pictures are made anew. The scores of before are kept, and
    going back to them scores nothing. Objects without a stored cutout keep the scan's scores, with the flag ``NOT_RESCORED``.

    Parameters
    ----------
    run
        A run folder, or what :func:`scanner.scan` returned.
    bundle
        The bundle to score with.
    workers, scheduler
        Worker processes, or the address of a standing Dask scheduler; by default as the run had them.
    storage
        How object stores are reached; by default as the run reached them.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Returns
    -------
    RescoreReport
        ``moved``: the best objects before and after, with both ranks; ``n_rescored``, ``n_kept``.

    Raises
    ------
    UsageError
        A tile has no stored cutouts, or the run is scored by this bundle already.
    ScannerError
        The run is not finished, the bundle cannot be loaded, or the folder is in use.
    """
    from scanner.interface.model import worked_on
    from scanner.survey.folder.ledger import RunFolder
    from scanner.survey.rescore import rescore_run

    location = run if isinstance(run, str | Path) else run.location
    folder = RunFolder(open_store(str(location), storage or StorageConfig()))
    config = worked_on(folder.record().config, workers, scheduler, storage)
    with sigterm_interrupts(), bar("scoring", shown=progress, unit="tiles") as move:
        return rescore_run(str(location), str(bundle), config, move)


def plan(
    tiles: str | Path | Iterable[TileLike],
    out: str | Path | None = None,
    *,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    **settings: Unpack[RunSettings],
) -> RunPlan:
    """Say what a scan would do, as ``scanner run --dry-run`` does: tiles, objects, bytes, seconds. Nothing is written.

    Parameters and errors are those of :func:`scan`.

    Returns
    -------
    RunPlan
        ``tiles``, ``failed``, ``n_targets``, ``input_bytes``, ``seconds`` …

    Examples
    --------
    >>> import scanner
    >>> scanner.plan("sky/tile-list.txt", magnitude_limit=21).n_targets > 0
    True
    """
    from scanner.survey.run import dry_run

    with TemporaryDirectory(prefix="scanner-plan-") as folder:
        if not isinstance(tiles, str | Path):
            tiles = _write_tile_list(list(tiles), f"{folder}/plan", run_config(config, settings))
        return dry_run(run_request(tiles, out, config=config, **settings))


def run_request(
    tiles: str | Path | Iterable[TileLike],
    out: str | Path | None = None,
    *,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    restart: bool = False,
    verify: bool = False,
    **settings: Unpack[RunSettings],
) -> RunRequest:
    """What :func:`scan` hands to the survey: tile list, run folder and settings, checked; parameters as there."""
    from scanner.survey.folder.resume import with_own_bundle
    from scanner.survey.run import RunRequest

    chosen = run_config(config, settings)
    if isinstance(tiles, str | Path) and (tile_files.is_folder(str(tiles)) or tile_files.is_image(str(tiles))):
        tiles = [tiles]
    if isinstance(tiles, str | Path):
        tile_list, folder = str(tiles), _beside(str(tiles)) if out is None else str(out)
        if chosen.targets.survey != EUCLID:
            listed = read_tile_list(tile_list, chosen.storage, chosen.targets.survey)
            tile_list = _write_tile_list([*listed.tiles.values(), *listed.failed], folder, chosen)
    else:
        tiles = list(tiles)
        if out is None and not all(isinstance(tile, str | Path) for tile in tiles):
            raise UsageError(
                "Name a run folder with out: tiles that are no tile list have no name that one could be called after."
            )
        folder = _beside(str(tiles[0])) if out is None and tiles else str(out)
        tile_list = _write_tile_list(tiles, folder, chosen)
    return RunRequest(tile_list, folder, with_own_bundle(chosen, folder, restart=restart), restart, verify)


def stages(request: RunRequest, *, progress: bool | None = None) -> Iterator[RunReport | ExplainReport | ModelReport]:
    """Do a run stage by stage: the scan, then what the settings add to it.

    Parameters
    ----------
    request
        See :func:`run_request`.
    progress
        As for :func:`scan`.

    Yields
    ------
    RunReport, then ModelReport where candidates are modelled, and ExplainReport where they are explained
        As soon as a stage is through.
    """
    from scanner.survey.run import run_survey

    explain = _explainer() if request.config.explain.which == "candidates" else None
    with sigterm_interrupts(), script_kept_from_children(), _driver_metrics(request.config.engine):
        with followed(progress) as on_event:
            report = run_survey(request, on_event)
        yield report
        if request.config.model.which == "candidates":
            from scanner.modelling.stage import model_run

            with _stage("modelling", progress) as move:
                modelled = model_run(request.out, request.config, move)
            yield modelled
        if explain is not None:
            with _stage("explaining", progress) as move:
                explained = explain(request.out, request.config, report, move)
            yield explained


def run_config(config: RunConfig | Mapping[str, Any] | str | Path | None, settings: Mapping[str, Any]) -> RunConfig:
    """The configuration that settings by their short names make, over one that is given; see :func:`scan`."""
    keys: dict[str, Any] = {}
    if isinstance(config, RunConfig):
        keys = {f"{part}.{key}": value for part, values in config.model_dump().items() for key, value in values.items()}
    elif isinstance(config, Mapping):
        keys = dict(config)
    # What is not there is 'none' to a configuration, which would ignore None.
    flags = {key: "none" if value is None else value for key, value in (keys | full_names(settings)).items()}
    return configuration.load(Path(config) if isinstance(config, str | Path) else None, flags)


def full_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their places in the configuration (``section.key``).

    Raises
    ------
    UsageError
        There is no setting of this name.
    """
    keys: dict[str, Any] = {}
    if settings.get("all_targets"):
        keys = {"targets.magnitude_limit": None, "targets.min_area_pixels": 0}
    for name, value in settings.items():
        if name in KEYS:
            keys[KEYS[name]] = str(value) if isinstance(value, Path) else value
        elif name != "all_targets":
            near = difflib.get_close_matches(name, RunSettings.__annotations__, n=1)
            hint = f"did you mean {near[0]}?" if near else "config takes all others by their full names (section.key)."
            raise UsageError(f"There is no setting {name}; {hint}")
    return keys


def _explainer() -> Callable[[str, RunConfig, RunReport, Callable[[int, int], None]], ExplainReport]:
    """The stage that needs torch: where that is missing, nothing is scanned in vain."""
    from scanner.explain.stage import explain_run

    return explain_run


@contextmanager
def _stage(name: CandidateStage, progress: bool | None) -> Iterator[Callable[[int, int], None]]:
    """How far a stage over the candidates is, on a bar and as metrics: called with how many are done, and of how many."""
    from scanner.survey import metrics

    with bar(name, shown=progress, unit="candidates") as move:

        def on_progress(n_done: int, n_candidates: int) -> None:
            metrics.run_candidates(name, n_done, n_candidates)
            move(n_done, n_candidates)

        yield on_progress


@contextmanager
def _driver_metrics(engine: EngineConfig) -> Iterator[None]:
    """Serve the driver's metrics where a port is set."""
    if engine.metrics_port is None:
        yield
        return
    from scanner.survey import metrics

    with metrics.serve(engine.metrics_port, "driver", engine.metrics_address, LAST_VISIT_SECONDS):
        yield


def _beside(tile_list: str) -> str:
    """The run folder where none is named: a public bucket's lists are not to be written beside."""
    folder, name = split(tile_list.rstrip("/") if is_remote(tile_list) else str(Path(tile_list).absolute()))
    stem = name if tile_files.is_folder(tile_list) else Path(name.removesuffix(".gz").removesuffix(".fz")).stem
    return join("." if is_remote(tile_list) else os.path.relpath(folder), f"{stem}-scan")


def _write_tile_list(tiles: Sequence[TileLike | FailedTile], out: str, config: RunConfig) -> str:
    """Write tiles as the list ``<out>-tiles.txt``, from which the run, and anyone who opens it later, reads them."""
    named = [tile for tile in tiles if isinstance(tile, str | Path)]
    found = tile_files.named_tiles([str(one) for one in named], config.storage, config.targets.survey) if named else []
    lines = [_line(tile) for tile in (*found, *(tile for tile in tiles if not isinstance(tile, str | Path)))]
    if not lines:
        raise TileListError("No tile was given; give folders, or mappings such as {'id': …, 'VIS': …, 'Y': …, 'J': …, 'H': …}.")
    location = f"{out.rstrip('/')}-tiles.txt"
    folder, name = split(location)
    open_store(folder, config.storage).write(name, ("\n".join(lines) + "\n").encode())
    return location


def _line(tile: Mapping[str, str | Path] | Tile | FailedTile) -> str:
    """One tile as a line of a tile list; local paths become absolute, as a list's own begin at its folder.

    A tile that lacks its VIS mosaic is a line that names none, with the reason behind it: it fails, and the others go on.
    """
    if isinstance(tile, FailedTile):
        return f"id={tile.tile_id}  # {' '.join(tile.reason.split())}"
    if isinstance(tile, Tile):
        files: dict[str, str | Path] = {}
        for band, images in tile.bands.items():
            files[band] = str(images.image)
            companions = {"RMS": images.rms, "FLAG": images.flag, "PSF": images.psf}
            files |= {f"{band}_{name}": str(file) for name, file in companions.items() if file is not None}
        if tile.catalogue is not None:
            files["catalogue"] = str(tile.catalogue)
        tile = {"id": tile.tile_id, **files}
    words = {key: str(value) if key.upper() == "ID" else _absolute(value) for key, value in tile.items()}
    return " ".join(f"{key}={shlex.quote(value)}" for key, value in words.items())


def _absolute(path: str | Path) -> str:
    text = str(path)
    return text if "://" in text else str(Path(text).absolute()) + ("/" if text.endswith("/") else "")
