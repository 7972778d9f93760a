"""Recoveries in Python: lenses painted into a run's tiles, what the run would have made of them; completeness, forecasts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from scanner.config import StorageConfig
from scanner.errors import ContentError, TileError, UsageError
from scanner.interface.model import worked_on
from scanner.interface.opened import Run
from scanner.interface.progress import bar
from scanner.processes import sigterm_interrupts
from scanner.storage import Store, absolute, open_store

if TYPE_CHECKING:
    from scanner.grading.grade import Grade
    from scanner.recovery.completeness import AxisName, Completeness
    from scanner.recovery.purity import Assumptions, Forecast, GradedLenses, ScannedRun
    from scanner.recovery.selection import SelectionFunction
    from scanner.recovery.stage import RecoveryReport


def recover(
    run: str | Path | Run,
    *,
    out: str | Path,
    n: int = 20_000,
    seed: int = 0,
    ground: Literal["galaxies", "sky", "both"] = "both",
    population: str | Path | None = None,
    models: int = 500,
    grades: str | Path | None = None,
    known: str | Path | None = None,
    salt: Sequence[str | Path] = (),
    density_deg2: float | None = None,
    density_error: float | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    storage: StorageConfig | None = None,
    progress: bool | None = None,
) -> RecoveryReport:
    """Paint lenses into the tiles of a finished run and scan them as it did, as ``scanner recovery`` does.

    ``lenses.parquet`` in the folder has one row a lens: what it is, its fate, score and rank. What is scanned already is not
    done again. From a hundred lenses on, completeness, purity, map and page are made of them, see
    :func:`scanner.selection_function`.

    Parameters
    ----------
    run
        A run folder, or what :func:`scanner.scan` returned.
    out
        Folder of the recovery.
    n, seed
        Lenses in all, and which: the same numbers paint the same lenses.
    ground
        Paint onto real galaxies, whole lenses into the sky, or both.
    population
        Table that lenses are drawn from (``theta_e_arcsec`` and more); by default the preset ``survey`` of the simulator.
    models
        Where the run has lens models: so many of the painted lenses that rank as high as its modelled objects are modelled too.
    grades, known, salt, density_deg2, density_error
        What purity and completeness by grade take into account, see :func:`scanner.selection_function`; what is given makes its
        files anew.
    workers, scheduler
        Worker processes, or the address of a standing Dask scheduler; by default as the run had them.
    storage
        How object stores are reached; by default as the run reached them.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Returns
    -------
    RecoveryReport
        ``record``, ``n_before``, ``n_done``, ``failed``.

    Raises
    ------
    ScannerError
        The run is not finished or damaged, the folder holds another recovery, or the table cannot be used.

    Examples
    --------
    >>> import scanner
    >>> report = scanner.recover("scan", out="recovery", n=4, seed=1, workers=1)
    >>> report.record.n_lenses, sum(report.record.fates.values())
    (4, 4)
    """
    from scanner.recovery import stage
    from scanner.recovery.paint import RecoveryRequest, read_population
    from scanner.recovery.selection import SELECTION
    from scanner.survey.folder.ledger import RunFolder

    location = run.location if isinstance(run, Run) else str(run)
    folder = RunFolder(open_store(location, storage or StorageConfig()))
    config = worked_on(folder.record().config, workers, scheduler, storage)
    table = None if population is None else read_population(Path(population))
    sha256 = None if table is None else hashlib.sha256(table).hexdigest()
    request = RecoveryRequest(n_lenses=n, seed=seed, ground=ground, population_sha256=sha256, n_models=models)
    # Workers work in folders of their own.
    folder = RunFolder(open_store(absolute(location), config.storage))
    store = open_store(absolute(str(out)), config.storage)
    with sigterm_interrupts(), bar("recovering", shown=progress, unit="lenses") as move:
        report = stage.recover(
            folder, config, store, request, table, move, lambda done, total: move(done, total, "looking closer at some")
        )
    is_asked = bool(salt) or any(value is not None for value in (grades, known, density_deg2, density_error))
    if enough_for_completeness(store) and (report.n_done or is_asked or not store.exists(SELECTION)):
        selection_function(
            run,
            store.root,
            grades=grades,
            known=known,
            salt=salt,
            density_deg2=density_deg2,
            density_error=density_error,
            storage=config.storage,
        )
    return report


def enough_for_completeness(recovery: Store) -> bool:
    """Whether so many of the painted lenses came out as lenses that completeness can be fitted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from scanner.recovery.completeness import LEAST_LENSES
    from scanner.recovery.lenses import LENSES

    came_out = pq.read_table(pa.BufferReader(recovery.read(LENSES)), columns=["is_lens"])["is_lens"]
    return int(np.count_nonzero(came_out.to_numpy())) >= LEAST_LENSES


#: Purities that a forecast is made for.
PURITIES = (0.9, 0.5, 0.2, 0.05)


def completeness(
    *,
    recovery: str | Path,
    theta_e: ArrayLike | None = None,
    arc_snr: ArrayLike | None = None,
    source_magnitude: ArrayLike | None = None,
    deflector_magnitude: ArrayLike | None = None,
    source_colour: ArrayLike | None = None,
    sky_sigma: ArrayLike | None = None,
    psf_fwhm: ArrayLike | None = None,
    top: int | None = None,
    threshold: float | None = None,
    grade: Grade | None = None,
    storage: StorageConfig | None = None,
) -> Completeness:
    """The chance that a run finds a lens, as a smooth function of what the lens is and where it lies.

    What is not given is averaged over: the mean is that over the 200 painted lenses which are nearest in what is given.

    Parameters
    ----------
    recovery
        Folder of ``scanner recovery``.
    theta_e
        Einstein radius in arcsec; this and the following are numbers or arrays that broadcast against one another.
    arc_snr
        Signal-to-noise ratio of the lensed light in VIS.
    source_magnitude, deflector_magnitude
        VIS magnitudes (AB), of the source without lensing.
    source_colour
        VIS − H of the source (AB mag).
    sky_sigma
        Noise of the place in VIS (adu), as the map and ``lenses.parquet`` have it.
    psf_fwhm
        Seeing in VIS (arcsec).
    top, threshold
        Found is what is among the best ``top`` objects of the run by rank, or has a calibrated probability of ``threshold`` or
        more. Neither: what the run makes a candidate.
    grade
        Of these, only what people would give this grade ("A", "B", "C") or a better one, as they graded other painted lenses.
    storage
        How object stores are reached.

    Returns
    -------
    Completeness
        ``value``, ``low``, ``high`` (95%) and ``is_outside`` (beyond what was painted), in the shape of the parameters.

    Raises
    ------
    UsageError
        No parameter is given, their shapes do not go together, both ``top`` and ``threshold`` are, or there is no such grade.
    InputMissingError, ContentError
        There is no finished recovery, it is damaged, or has no completeness by grade.
    """
    from scanner.recovery.completeness import Cut, completed, given
    from scanner.recovery.purity import STATED, recognised
    from scanner.recovery.selection import read

    if top is not None and threshold is not None:
        raise UsageError("Found by top or by threshold? Give one of them.")
    if grade is not None and grade not in STATED:
        raise UsageError(f"A grade of {grade}? Give one of {', '.join(STATED)}.")
    named: dict[AxisName, ArrayLike | None] = {
        "theta_e": theta_e,
        "arc_snr": arc_snr,
        "source_magnitude": source_magnitude,
        "deflector_magnitude": deflector_magnitude,
        "source_colour": source_colour,
        "sky_sigma": sky_sigma,
        "psf_fwhm": psf_fwhm,
    }
    parameters: dict[AxisName, Any] = {
        name: np.asarray(value, dtype=np.float64) for name, value in named.items() if value is not None
    }
    values = given(parameters)
    shape = np.broadcast_shapes(*(value.shape for value in parameters.values()))
    cut = Cut(kind="candidates")
    if top is not None:
        cut = Cut(kind="top", value=top)
    if threshold is not None:
        cut = Cut(kind="threshold", value=threshold)
    selection, lenses = read(open_store(str(recovery), storage or StorageConfig()))
    found = completed(selection.model, cut, values, lenses)
    if grade is not None:
        if selection.recognition is None:
            raise ContentError(
                f"{recovery}: completeness by grade is not known ({selection.not_graded}); have painted lenses graded in a "
                "campaign, and give 'scanner recovery' --grades, --known and --salt."
            )
        found = recognised(selection.recognition, grade, cut, values, lenses, found)
    return replace(
        found,
        value=found.value.reshape(shape),
        low=found.low.reshape(shape),
        high=found.high.reshape(shape),
        is_outside=found.is_outside.reshape(shape),
    )


def forecast(
    recovery: str | Path,
    area_deg2: float,
    purities: Sequence[float] = PURITIES,
    *,
    density_deg2: float | None = None,
    density_error: float | None = None,
    seconds_per_object: float | None = None,
    storage: StorageConfig | None = None,
) -> tuple[Forecast, ...]:
    """Expected lenses, objects to look at and hours of it in a survey of another area that is like the run.

    Parameters
    ----------
    recovery
        Folder of ``scanner recovery``.
    area_deg2
        Of the survey.
    purities
        Shares of lenses that the list shall have, a forecast for each.
    density_deg2, density_error, seconds_per_object
        See :class:`~scanner.recovery.purity.Assumptions`; by default as the recovery has them.
    storage
        How object stores are reached.

    Raises
    ------
    UsageError
        A number that makes no sense.
    InputMissingError, ContentError
        There is no finished recovery, or it is damaged.
    """
    from scanner.recovery.completeness import Cut
    from scanner.recovery.purity import forecast as forecast_of
    from scanner.recovery.purity import list_lengths, yields
    from scanner.recovery.selection import read

    if not (np.isfinite(area_deg2) and area_deg2 > 0):
        raise UsageError(f"An area of {area_deg2} square degrees? Give a number above 0.")
    for purity in purities:
        if not 0 < purity <= 1:
            raise UsageError(f"A purity of {purity}? Give shares of lenses, above 0 and up to 1.")
    selection, lenses = read(open_store(str(recovery), storage or StorageConfig()))
    run, verdicts = selection.run, dict(selection.verdicts)
    assumed = _assumptions(selection.assumptions, density_deg2, density_error, seconds_per_object)
    lists = selection.lists
    if assumed != selection.assumptions:
        lists = yields(lenses, run, [Cut(kind="top", value=n) for n in list_lengths(run.n_objects)], assumed, verdicts)
    return tuple(forecast_of(lists, lenses, run, assumed, verdicts, area_deg2, purity) for purity in purities)


def selection_function(
    run: str | Path | Run,
    recovery: str | Path,
    *,
    grades: str | Path | None = None,
    known: str | Path | None = None,
    salt: Sequence[str | Path] = (),
    least_graders: int = 1,
    density_deg2: float | None = None,
    density_error: float | None = None,
    seconds_per_object: float | None = None,
    storage: StorageConfig | None = None,
) -> SelectionFunction:
    """Make the tables, the map, the page and the record of a recovery, from the lenses that were painted.

    ``scanner recovery`` does so when all are scanned; again after grading, with the grades.

    Parameters
    ----------
    run
        The run folder whose tiles were painted, or what :func:`scanner.scan` returned.
    recovery
        Folder with ``lenses.parquet``; the files are written there.
    grades, least_graders
        File that ``scanner serve`` keeps grades in; objects that fewer have graded count as not graded.
    known, salt
        Painted lenses that campaigns mixed in: their truth, and the runs of the painted mosaics. How they were graded gives the
        completeness by grade.
    density_deg2, density_error, seconds_per_object
        See :class:`~scanner.recovery.purity.Assumptions`.
    storage
        How object stores are reached; by default as the run reached them.

    Raises
    ------
    InputMissingError, ContentError
        The run is not finished; there are no painted lenses, or too few.
    UsageError
        Of ``grades``, ``known`` and ``salt`` one goes without another.
    OutputError
        The folder cannot be written.
    """
    from scanner.recovery import products
    from scanner.recovery.purity import Assumptions

    opened = run if isinstance(run, Run) else Run(str(run), storage)
    assumed = _assumptions(Assumptions(), density_deg2, density_error, seconds_per_object)
    verdicts = {} if grades is None else _verdicts(opened, Path(grades), least_graders)
    graded: GradedLenses | str = products.NOT_GRADED
    if known is not None and salt and grades is not None:
        graded = _graded_lenses(Path(grades), Path(known), salt, storage or StorageConfig()) or products.NOT_GRADED
    elif known is not None or salt:
        raise UsageError("Grades of painted lenses take three things; give --grades, --known and --salt together.")
    store = open_store(str(recovery), storage or StorageConfig())
    return products.write(store, scanned_run(opened), assumed, verdicts, graded)


def scanned_run(run: Run) -> ScannedRun:
    """What a selection function needs of a run's catalogue.

    Raises
    ------
    ContentError
        The run has no objects, or no sky.
    """
    from scanner.recovery.purity import ScannedRun, list_lengths

    record = run.published.runs[0].record()
    counts = run.query(
        sql="SELECT count(p_calibrated) AS scored, count(*) FILTER (WHERE is_candidate) AS candidates FROM objects",
        arrow=True,
    ).to_pylist()[0]
    if not counts["scored"] or not run.published.sky_area_deg2:
        raise ContentError(f"{run.location}: has no scored objects; a selection function needs some.")
    lengths = ", ".join(str(n) for n in {1, *list_lengths(counts["scored"])})
    steps = run.query(
        sql=f"SELECT rank, p_calibrated FROM objects WHERE rank IN ({lengths}) AND p_calibrated IS NOT NULL ORDER BY rank",
        arrow=True,
    )
    return ScannedRun(
        run=record.run_id,
        title=run.published.title,
        bundle=record.bundle,
        sky_area_deg2=run.published.sky_area_deg2,
        n_objects=counts["scored"],
        n_candidates=counts["candidates"],
        threshold=record.decision.threshold,
        steps=tuple(zip(steps["rank"].to_pylist(), steps["p_calibrated"].to_pylist(), strict=True)),
    )


def _verdicts(run: Run, file: Path, least_graders: int) -> Mapping[int, bool]:
    """By rank in a run, whether graders say that an object is a lens; what they are of two minds about is left out."""
    from scanner.grading.labels import label_rows
    from scanner.grading.store import GradeStore
    from scanner.query.catalogue import CANDIDATE_ID_SQL

    store = GradeStore.existing(file)
    said: dict[str, bool] = {}
    for row in label_rows(store.standing(), store.places(), least_graders).values():
        if row["label"] != "unclear":
            for name in (row["candidate_id"], *row["other_ids"].split()):
                said[name] = row["label"] == "lens"
    if not said:
        return {}
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in said)
    sql = f"SELECT rank, {CANDIDATE_ID_SQL} AS id FROM objects WHERE {CANDIDATE_ID_SQL} IN ({names})"
    rows = run.query(sql=sql, arrow=True)
    return {rank: said[name] for rank, name in zip(rows["rank"].to_pylist(), rows["id"].to_pylist(), strict=True)}


def _graded_lenses(file: Path, known: Path, salt: Sequence[str | Path], storage: StorageConfig) -> GradedLenses | None:
    """Painted lenses that people graded: as they were painted, as the run of their mosaics scored them, and their grade."""
    from scanner.grading.campaign import Campaigns
    from scanner.grading.crowd import KNOWN_ARCSEC
    from scanner.grading.grade import GRADES, Grade
    from scanner.grading.labels import median_grade
    from scanner.grading.store import GradeStore
    from scanner.grading.training_set import graded_rows
    from scanner.records import ImageRef
    from scanner.recovery.purity import GradedLenses
    from scanner.sky.source_catalogue import read_columns
    from scanner.sphere import nearest
    from scanner.survey.published import open_published

    wanted = ("ra", "dec", "is_lens", "arc_snr", "theta_e_arcsec")
    try:
        columns = read_columns(ImageRef(str(known)), lambda names: [name for name in wanted if name in names])
    except TileError as error:
        raise ContentError(str(error)) from None
    for name in wanted:
        if name not in columns:
            raise ContentError(f"{known}: has no column {name}; give the truth.parquet of 'scanner simulate inject --mosaics'.")
    is_lens = np.asarray(columns["is_lens"].values, dtype=bool)
    ra, dec, _, snr, radius = (np.asarray(columns[name].values, dtype=np.float64)[is_lens] for name in wanted)
    store = GradeStore.existing(file)
    salted, said = Campaigns(store).salted_ids(), dict[int, list[Grade]]()
    for entry in store.standing(salted=True):
        if entry.grade is not None:
            said.setdefault(entry.object, []).append(entry.grade)
    places = {number: found for number, found in store.places().items() if number in said and found[0].candidate_id in salted}
    rows = graded_rows(places, [open_published(str(folder), storage=storage) for folder in salt])
    if not rows:
        return None
    at = np.array([(one.row["ra"][0].as_py(), one.row["dec"][0].as_py()) for one in rows], dtype=np.float64).T
    distance_arcsec, index = nearest(at[0], at[1], ra, dec)
    near = np.flatnonzero(distance_arcsec <= KNOWN_ARCSEC)
    return GradedLenses(
        probability=np.array([float(rows[k].row["p_calibrated"][0].as_py()) for k in near], dtype=np.float64),
        arc_snr=snr[index[near]],
        theta_e=radius[index[near]],
        grade=np.array([GRADES.index(median_grade(said[rows[k].object])) for k in near], dtype=np.int64),
    )


def _assumptions(
    base: Assumptions, density_deg2: float | None, density_error: float | None, seconds_per_object: float | None
) -> Assumptions:
    from pydantic import ValidationError

    given = {"density_deg2": density_deg2, "density_error": density_error, "seconds_per_object": seconds_per_object}
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        return type(base).model_validate(base.model_dump() | changes)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{first['loc'][0]} of {first['input']}: {first['msg']}.") from None
