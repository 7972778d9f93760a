"""Runs and surveys: opened to be looked at and asked, also for more like one object; merged; what is done again for one."""

from __future__ import annotations

import gzip
import html
import io
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import numpy as np

from scanner import config as configuration
from scanner.atomic_file import cache_folder
from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError, importing
from scanner.interface.progress import bar, counted
from scanner.processes import sigterm_interrupts
from scanner.storage import open_store
from scanner.storage.contract import join

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure
    from pyarrow.dataset import Dataset

    from scanner.interface.objects import Cutout, ObjectTable, Place, Question, Which
    from scanner.query.catalogue import Catalogue
    from scanner.query.database import DatabaseLimits
    from scanner.records import Float32, MemberName
    from scanner.report.explanations import Method, PageRecord
    from scanner.survey.folder.ledger import RunFolder, RunRecord
    from scanner.survey.merge_runs import MergedSurvey
    from scanner.survey.objects import ReplayReport
    from scanner.survey.published import Published, SurveyRecord, VersionRecord
    from scanner.survey.status import RunStatus

#: Rows and columns of a picture that a thumbnail shows: the central 10″.
MIDDLE = slice(50, 150)


def open(  # noqa: A001 - it is called scanner.open
    location: str | Path,
    version: int | None = None,
    *,
    cache: str | Path | None = None,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
) -> Run | Survey:
    """Open a run folder or a survey folder, to look at what is in it. Nothing is written there.

    Parameters
    ----------
    location
        The folder, a path or ``s3://…``.
    version
        Of a survey; the current one by default.
    cache
        Folder that keeps files fetched from an object store; a temporary one by default.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.

    Returns
    -------
    Run or Survey
        A run may still be going on: its status can be asked for, its catalogue once it is finished.

    Raises
    ------
    InputMissingError
        There is no run and no survey.

    Examples
    --------
    >>> import scanner
    >>> scanner.open("scan").status.state
    'done'
    """
    from scanner.survey.folder.ledger import RUN_RECORD
    from scanner.survey.published import SURVEY_RECORD, open_published

    storage = configuration.load_storage(config, endpoint, anonymous)
    store = open_store(str(location), storage)
    is_survey = store.exists(SURVEY_RECORD)
    if not is_survey and (version is not None or not store.exists(RUN_RECORD)):
        open_published(str(location), version, storage)  # Says what is missing.
    opened = Survey if is_survey else Run
    return opened(
        str(location),
        # A run's own way to its stores counts where no other is given.
        None if storage == StorageConfig() else storage,
        version=version,
        cache=None if cache is None else Path(cache),
    )


def merge(
    runs: str | Path | Run | Iterable[str | Path | Run],
    out: str | Path,
    *,
    preferred: Iterable[str] = (),
    known_lenses: str | Path | None = None,
    scratch: str | Path | None = None,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    progress: bool | None = None,
) -> Survey:
    """Merge finished runs into a new version of a survey, as ``scanner catalogue merge`` does; the runs are only read.

    Every object is there once, whatever tiles and runs saw it, and ranked among all; the order of the runs does not count.
    When the same runs are merged again, nothing is done.

    Parameters
    ----------
    runs
        One or several runs: folders, paths or ``s3://…``, or what :func:`scanner.scan` returned.
    out
        Survey folder; made, or given a new version.
    preferred
        Where runs have several bundles: names of those that come first, in order.
    known_lenses
        Table that known lenses are looked up in: ``"lenscat"``, or a FITS, VOTable, ECSV or CSV file.
    scratch
        Folder for what memory does not hold; the survey folder by default.
    config, endpoint, anonymous
        A TOML file, whose sections ``[catalogue]`` and ``[storage]`` count, and how object stores are reached.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Returns
    -------
    Survey
        Opened at the version that holds these runs.

    Raises
    ------
    ScannerError
        A run is missing, damaged or not finished; runs whose settings differ.
    OutputError
        The folder holds other things, is in use by another process, or cannot be written.

    Examples
    --------
    >>> import scanner
    >>> survey = scanner.merge(["scan"], "survey")
    >>> survey.record.number, survey.record.n_objects == len(survey.query())
    (1, True)
    """
    merged = merged_survey(
        runs,
        out,
        preferred=preferred,
        known_lenses=known_lenses,
        scratch=scratch,
        config=config,
        endpoint=endpoint,
        anonymous=anonymous,
        progress=progress,
    )
    storage = configuration.load_storage(config, endpoint, anonymous)
    return Survey(str(out), storage, version=merged.version.number)


def merged_survey(
    runs: str | Path | Run | Iterable[str | Path | Run],
    out: str | Path,
    *,
    preferred: Iterable[str],
    known_lenses: str | Path | None,
    scratch: str | Path | None,
    config: str | Path | None,
    endpoint: str | None,
    anonymous: bool | None,
    progress: bool | None = None,
) -> MergedSurvey:
    """Do what :func:`merge` does; returns the version's record, and whether it is new."""
    from scanner.survey.merge_runs import MergeRequest, merge_runs

    flags = {
        "storage.endpoint": endpoint,
        "storage.anonymous": anonymous,
        "catalogue.known_lenses": None if known_lenses is None else str(known_lenses),
        "engine.scratch": None if scratch is None else str(scratch),
    }
    settings = configuration.load(None if config is None else Path(config), flags)
    listed = [runs] if isinstance(runs, str | Path | Run) else list(runs)
    request = MergeRequest(
        runs=tuple(run.location if isinstance(run, Run) else str(run) for run in listed),
        out=str(out),
        preferred=tuple(preferred),
        catalogue=settings.catalogue,
        storage=settings.storage,
        scratch=settings.engine.scratch,
    )
    with sigterm_interrupts(), bar("reading the runs", shown=progress, unit="runs") as move:
        return merge_runs(request, move)


class Opened:
    """What a run and a survey have in common: a catalogue of objects, and the runs that scored them.

    The catalogue is opened when it is first asked for, and stays as it was then; open the folder again after a new scan.

    Attributes
    ----------
    location : str
        Path or URL of the folder.
    """

    def __init__(
        self,
        location: str,
        storage: StorageConfig | None = None,
        *,
        version: int | None = None,
        cache: Path | None = None,
        limits: DatabaseLimits | None = None,
    ) -> None:
        self.location = location
        self._storage, self._version, self._cache, self._limits = storage, version, cache, limits

    @cached_property
    def published(self) -> Published:
        """Where the results lie, and the run folders that they came from."""
        from scanner.survey.published import open_published

        return open_published(self.location, self._version, self._storage or StorageConfig())

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue, opened for queries."""
        from scanner.query.database import DEFAULT_LIMITS

        return self.published.open_catalogue(self._cache, self._limits or DEFAULT_LIMITS)

    @property
    def catalogue_location(self) -> str:
        """Path or URL of the HATS catalogue; LSDB opens the folder that it lies in, with its margin cache."""
        return self.catalogue.where

    @property
    def candidates(self) -> ObjectTable:
        """The best objects by rank, with units; the same rows as ``candidates.fits``.

        All candidates (``is_candidate``: at or above the threshold), and at least the 200 best, or one in 500 where that is
        more. ``query(candidates=True)`` gives candidates alone.

        Examples
        --------
        >>> import scanner
        >>> candidates = scanner.open("scan").candidates
        >>> candidates["ra"].unit, candidates["p_calibrated"].info.description
        (Unit("deg"), 'Calibrated lens probability, all that scored it')
        """
        from astropy.table import Table

        from scanner.interface.objects import ObjectTable

        content = self.published.files.read("candidates.fits")
        rows = Table.read(io.BytesIO(content), format="fits", character_as_bytes=False)
        return ObjectTable.described(rows, self._thumbnails)

    @property
    def objects(self) -> Dataset:
        """Every object, as a :class:`pyarrow.dataset.Dataset`; of an object store, all files are fetched first.

        Lens models are not among its columns: :meth:`query` joins them.

        Examples
        --------
        >>> import scanner
        >>> scanner.open("scan").objects.to_table(columns=["rank"]).num_rows > 0
        True
        """
        import pyarrow.dataset

        files = [str(path) for path in self.catalogue.files()]
        return pyarrow.dataset.dataset(files, schema=self.catalogue.stored, format="parquet")

    @overload
    def query(self, *, arrow: Literal[False] = ..., **question: Unpack[Question]) -> ObjectTable: ...
    @overload
    def query(self, *, arrow: Literal[True], **question: Unpack[Question]) -> pa.Table: ...

    def query(self, *, arrow: bool = False, **question: Unpack[Question]) -> ObjectTable | pa.Table:
        """Ask the catalogue, as ``scanner query`` does.

        Parameters
        ----------
        arrow
            Whether the answer is an Arrow table; an astropy table otherwise.
        **question
            See :class:`Question <scanner.interface.objects.Question>`. Without any, all objects, best first.

        Raises
        ------
        UsageError
            A question that makes no sense, or an answer of more than ``max_rows``.

        Examples
        --------
        >>> import scanner
        >>> run = scanner.open("scan")
        >>> best = run.query(top=1, columns=["ra", "dec"])[0]
        >>> run.query(cone=(best["ra"], best["dec"], "5arcsec"), columns=["rank", "separation"])["separation"].unit
        Unit("arcsec")
        >>> run.query(sql="SELECT count(*) AS n FROM objects WHERE p_calibrated > 0.5", arrow=True).column_names
        ['n']
        """
        from scanner.interface.objects import ObjectTable, answer

        rows = answer(self.catalogue, self.published.slug, question, self._storage or StorageConfig())
        return rows if arrow else ObjectTable.of(rows, self._thumbnails)

    def find(self, which: Which) -> pa.Table:
        """The catalogue's row of one object.

        Parameters
        ----------
        which
            Its rank (``3`` or ``"#3"``), its name (``"EUCL J…"``, or that of a known lens), its place (``"tile/target_id"``,
            of a survey ``"run/tile/target_id"``), where it is (a :class:`~astropy.coordinates.SkyCoord`, within 2″), or a row
            of a table.

        Raises
        ------
        InputMissingError
            There is no such object.
        UsageError
            There are several.
        """
        from scanner.interface.objects import find

        if isinstance(which, str) and "/" in which:
            which = self._candidate_id(which)
        return find(self.catalogue, self.location, which)

    def cutout(self, which: Which) -> Cutout:
        """The images of one object, with their places on the sky: as they were kept, else cut again from the mosaics.

        Parameters and errors are those of :meth:`find`; and :class:`~scanner.errors.InputMissingError` where the cutout was
        not kept and the mosaics are not there any more.
        """
        return self._cutout(self.find(which))

    def show(self, n: int = 12) -> Figure:
        """Pictures of the best ``n`` objects, each with its rank and what that means, as a matplotlib figure.

        Examples
        --------
        >>> import scanner
        >>> scanner.open("scan").show(2).savefig("best.png")
        """
        from scanner.interface.objects import figure
        from scanner.report.contact_sheet import likelihood

        rows = self.query(top=n, arrow=True)
        cutouts = [self._cutout(rows.slice(number, 1)) for number in range(len(rows))]
        titles = []
        for row in rows.select(["rank", "p_calibrated", "is_candidate", "run"]).to_pylist():
            beside = likelihood(row["p_calibrated"], self.published.sky_prevalence.get(row["run"])).partition(" as ")[0]
            titles.append(f"#{row['rank']}{', candidate' if row['is_candidate'] else ''}\np = {row['p_calibrated']:.2g}")
            titles[-1] += f", {beside} an average object's" if beside else ""
        return figure(cutouts, titles)

    def replay(
        self,
        which: Which,
        *,
        out: str | Path | None = None,
        tile_list: str | None = None,
        bundle: str | Path | None = None,
        anyway: bool = False,
        scratch: str | Path | None = None,
    ) -> ReplayReport:
        """Cut and score one object again, and compare with what the run says, as ``scanner replay`` does.

        Parameters
        ----------
        which
            See :meth:`find`.
        out
            Folder for the cutout as FITS, with WCS, and as PNG.
        tile_list, bundle
            Where they are no longer where the run found them.
        anyway
            Go on although the tile's files have changed.
        scratch
            Folder for fetched, decompressed and resampled mosaics.

        Returns
        -------
        ReplayReport
            ``passed``, ``agreement``, ``differences``, ``values``, ``pixels``.

        Examples
        --------
        >>> import scanner
        >>> scanner.open("scan").replay(1).agreement
        'equal'
        """
        from scanner.survey.objects import ReplayRequest, replay

        location, candidate = self._candidate(which)
        return replay(
            ReplayRequest(
                run_folder=location,
                candidate=candidate,
                storage=self._storage,
                tile_list=tile_list,
                bundle=None if bundle is None else str(bundle),
                anyway=anyway,
                out=None if out is None else Path(out),
                scratch=None if scratch is None else Path(scratch),
            )
        )

    def explain(
        self,
        which: Which,
        out: str | Path | None = None,
        *,
        methods: Iterable[Method] | Literal["all"] | None = None,
        members: Iterable[MemberName] | None = None,
        fill: Literal["sky", "zero"] = "sky",
        dataset: str | Path | None = None,
        bundle: str | Path | None = None,
        dream_steps: int = 1000,
        scratch: str | Path | None = None,
        progress: bool | None = None,
    ) -> ObjectExplanation:
        """Explain one object: what speaks for a lens, what against, and who says so, as ``scanner explain`` does.

        Needs the extra ``train`` (torch).

        Parameters
        ----------
        which
            See :meth:`find`.
        out
            Folder to make; the object's name with ``-explained``, here, by default.
        methods
            ``occlusion``, ``guided-grad-cam``, ``votes``, ``neighbours``, ``deep-dream``, or ``"all"``; all but the last, which
            takes minutes, by default.
        members
            Networks; OU-200 and OU-66 by default.
        fill
            What occlusion covers with; the paper: ``zero``.
        dataset
            Labelled set whose objects are searched for neighbours, and shown.
        bundle
            Where it is no longer where the run found it, or another one.
        dream_steps
            Steps of Deep Dream.
        scratch
            Folder for fetched, decompressed and resampled mosaics.
        progress
            Show a bar; by default on a terminal and in a notebook.
        """
        from scanner.explain.object_page import ExplainRequest, explain_object
        from scanner.labelled_set import LabelledSet
        from scanner.report.explanations import METHODS, QUICK, PageRequest

        location, candidate = self._candidate(which)
        wanted = METHODS if methods == "all" else QUICK if methods is None else tuple(methods)
        asked: dict[str, Any] = {"fill": fill, "dream_steps": dream_steps, "methods": [one for one in METHODS if one in wanted]}
        if members is not None:
            asked["members"] = tuple(members)
        folder = Path(out) if out is not None else Path(_file_name(candidate) + "-explained")
        with bar("explaining", shown=progress, unit="candidates") as move:
            record = explain_object(
                ExplainRequest(
                    run_folder=location,
                    candidate=candidate,
                    out=folder,
                    page=PageRequest.model_validate(asked),
                    bundle=None if bundle is None else str(bundle),
                    dataset=None if dataset is None else LabelledSet(Path(dataset)),
                    cache=cache_folder("log-odds"),
                    storage=self._storage,
                    scratch=None if scratch is None else str(scratch),
                ),
                lambda what, done, total: move(done, total, what),
            )
        return ObjectExplanation(record, folder)

    def _candidate_id(self, place: str) -> str:
        """``run/tile/target_id`` of a place."""
        return place

    def _candidate(self, which: Which) -> tuple[str, str]:
        """The run folder that has an object, and what it calls it there."""
        row = self.find(which).slice(0, 1).to_pylist()[0]
        return self.published.run_folders[row["run"]].location, f"{row['tile_id']}/{row['target_id']}"

    def _cutout(self, row: pa.Table) -> Cutout:
        from scanner.interface.objects import Cutout, cut_again, kept_cutouts

        run, tile_id, target_id, name = (row[key][0].as_py() for key in ("run", "tile_id", "target_id", "name"))
        folder = self.published.run_folders[run]
        framed = kept_cutouts(folder, tile_id, [target_id]).get(target_id) or cut_again(folder, row, self._storage)
        return Cutout.of(name, framed)

    def _thumbnails(self, places: Sequence[Place]) -> list[str | None]:
        """Small pictures of the objects whose cutouts were kept."""
        from scanner.interface.objects import kept_cutouts, picture
        from scanner.report.self_contained import data_uri

        by_tile: dict[tuple[str, str], list[int]] = defaultdict(list)
        for run, tile_id, target_id in places:
            by_tile[run, tile_id].append(target_id)
        found: dict[Place, str] = {}
        for (run, tile_id), target_ids in by_tile.items():
            folder = self.published.run_folders.get(run)
            kept = {} if folder is None else kept_cutouts(folder, tile_id, target_ids)
            found |= {(run, tile_id, one): data_uri(picture(framed.cutout)[MIDDLE, MIDDLE]) for one, framed in kept.items()}
        return [found.get(place) for place in places]


class Run(Opened):
    """A run: what :func:`scanner.scan` returns and :func:`scanner.open` finds in a run folder.

    Examples
    --------
    >>> import scanner
    >>> run = scanner.open("scan")
    >>> run.status.n_done, run.record.config.cutouts.codec
    (2, 'compact')
    """

    def __repr__(self) -> str:
        status = self.status
        text = f"{status.state}, {status.n_done:,} of {counted(status.n_tiles, 'tile')}"
        if status.n_failed:
            text += f", {status.n_failed:,} failed"
        if status.totals is not None:
            text += f", {counted(status.totals.n_unique, 'object')}, {counted(status.totals.n_candidates, 'candidate')}"
        return f"<Run {self.location}: {text}>"

    @property
    def status(self) -> RunStatus:
        """How far the run is, and which tiles failed and why; read anew each time."""
        from scanner.survey import status

        return status.read(open_store(self.location, self._storage or StorageConfig()))

    @property
    def record(self) -> RunRecord:
        """What the run was made with: settings, bundle, provider, tiles; and what it cost."""
        from scanner.survey.folder.ledger import RunFolder

        return RunFolder(open_store(self.location, self._storage or StorageConfig())).record()

    @property
    def sheet(self) -> str:
        """Path or URL of the contact sheet."""
        return join(self.location, "candidates.html")

    def _candidate_id(self, place: str) -> str:
        return place if place.count("/") > 1 else f"{self.record.run_id}/{place}"

    def _candidate(self, which: Which) -> tuple[str, str]:
        # A name, a rank or a place is found without a catalogue too, in a run that is still going on.
        return (self.location, str(which)) if isinstance(which, int | str) else super()._candidate(which)


class Survey(Opened):
    """A survey: runs merged into one catalogue (``scanner catalogue merge``)."""

    def __repr__(self) -> str:
        record = self.record
        text = f"version {record.number} of {counted(len(record.runs), 'run')}, {counted(record.n_tiles, 'tile')}"
        objects = f"{counted(record.n_objects, 'object')}, {counted(record.n_candidates, 'candidate')}"
        return f"<Survey {self.location}: {text}, {objects}>"

    @property
    def index(self) -> SurveyRecord:
        """All versions, when each was made, and which is current; read again at each call."""
        from scanner.survey.published import SURVEY_RECORD, SurveyRecord, read_record

        return read_record(open_store(self.location, self._storage or StorageConfig()), SURVEY_RECORD, SurveyRecord)

    @property
    def versions(self) -> tuple[VersionRecord, ...]:
        """What each version was made from, the oldest first."""
        return tuple(self._version_record(one.number) for one in self.index.versions)

    @property
    def record(self) -> VersionRecord:
        """What the opened version was made from: runs, bundles, settings, numbers."""
        return self._version_record(self.index.current if self._version is None else self._version)

    def _version_record(self, number: int) -> VersionRecord:
        from scanner.survey.published import VERSION_RECORD, VersionRecord, read_record, version_key

        store = open_store(self.location, self._storage or StorageConfig())
        return read_record(store, f"{version_key(number)}/{VERSION_RECORD}", VersionRecord)


@dataclass(frozen=True, repr=False)
class ObjectExplanation:
    """What :meth:`Opened.explain` wrote: ``record``, and ``folder`` with ``index.html``, pictures and arrays."""

    record: PageRecord
    folder: Path

    def __repr__(self) -> str:
        n_votes, n = self.record.n_votes, len(self.record.votes)
        return f"<ObjectExplanation {self.record.name}: {n_votes} of {n} networks say lens; {self.page}>"

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.folder / "index.html"

    def _repr_html_(self) -> str:
        from scanner.report.self_contained import png_as_webp_uri

        votes = ", ".join(f"{vote.member} {vote.probability:.2f}" for vote in self.record.votes)
        pictures = "".join(
            '<figure style="display:inline-block;margin:4px;text-align:center">'
            f'<img src="{png_as_webp_uri(path.read_bytes())}" width="180" alt="{path.stem}">'
            f"<figcaption><small>{path.stem}</small></figcaption></figure>"
            for path in sorted(self.folder.glob("*.png"), key=lambda path: (path.stem[0].isupper(), path.stem))
        )
        said = f"{self.record.name}: {self.record.n_votes} of {len(self.record.votes)} networks say lens ({votes})"
        return f"<p>{html.escape(said)}</p>{pictures}<p>{html.escape(str(self.page))}</p>"


def _file_name(candidate: str) -> str:
    return candidate.strip().lstrip("#").replace("/", "-").replace(" ", "-")


#: What is said of each object, beside its similarity.
SHOWN = ("rank", "name", "ra", "dec", "p_calibrated", "is_candidate", "tile_id", "target_id")


def features(run: str | Path | Run, *, storage: StorageConfig | None = None, progress: bool | None = None) -> int:
    """Compute a short feature vector of each stored cutout of a run, as ``scanner features`` does; says of how many.

    What is there already is left, so that the same call goes on. Needs the extra ``train``.

    Raises
    ------
    UsageError
        No cutout is stored.
    ScannerError
        The run or its bundle cannot be used, or the folder is in use.
    """
    from scanner.ensemble import bundles

    with importing("features", "train"):
        from scanner.training.from_grades import write_run_features
    folder = _folder(run, storage)
    record = folder.record()
    bundle = bundles.load(record.config.scoring.bundle, storage or record.config.storage)
    if bundle.fingerprint != record.bundle_fingerprint:
        raise ContentError(f"{bundle.location}: no longer the bundle of {folder.location}; bring {record.bundle} back.")
    with sigterm_interrupts(), folder.store.held(), bar("features", shown=progress, unit="tiles") as move:
        return write_run_features(folder, bundle, move)


def similar(run: str | Path | Run, like: Which | Path, *, top: int = 20, storage: StorageConfig | None = None) -> pa.Table:
    """Objects of a run that are most like one, by what a network sees in them, as ``scanner query --like`` does.

    Parameters
    ----------
    run
        A run of which :func:`features` were computed.
    like
        An object of the run (see :meth:`Run.find <scanner.interface.opened.Opened.find>`), or the path of a cutout as FITS, as
        ``scanner replay --out`` writes one: extensions VIS (200 × 200 pixels of 0.1″) and Y, J, H (66 × 66 of 0.3″).
    top
        So many objects.

    Returns
    -------
    pyarrow.Table
        ``similarity`` (1: the same; 0: nothing in common beyond what all have) and the columns :data:`SHOWN`, best first.

    Raises
    ------
    InputMissingError
        There are no features, the object has none, or the file is not there.
    ContentError
        The file is no such cutout.
    """
    from scanner.grading.similar import objects_like, read_features

    folder = _folder(run, storage)
    opened = run if isinstance(run, Run) else Run(str(run), storage)
    table = read_features(folder)
    if str(like).endswith((".fits", ".fits.gz")):
        vector = _vector_of(Path(str(like)), folder)
    else:
        (found,) = opened.find(like).select(["tile_id", "target_id"]).to_pylist()
        row = table.row_of(found["tile_id"], found["target_id"])
        if row is None:
            raise InputMissingError(f"{folder.location}: the cutout of {like} is not stored, so it has no features.")
        vector = table.values[row].astype(np.float32)
    return objects_like(table, vector, top, opened.catalogue.source().relation, opened.catalogue.query, SHOWN)


def _folder(run: str | Path | Run, storage: StorageConfig | None) -> RunFolder:
    from scanner.survey.folder.ledger import RunFolder

    return RunFolder(open_store(run.location if isinstance(run, Run) else str(run), storage or StorageConfig()))


def _vector_of(path: Path, folder: RunFolder) -> Float32:
    """The vector of a cutout in a FITS file."""
    from scanner.cutouts.framed import read_cutout
    from scanner.grading.similar import read_basis

    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error):
        raise InputMissingError(f"{path}: there is no such file that can be read.") from None
    basis = read_basis(folder, folder.record().bundle_fingerprint)
    if basis is None:
        raise InputMissingError(f"{folder.location}: has no features; 'scanner features' makes them.")
    return basis.vector_of(read_cutout(content, str(path)))
