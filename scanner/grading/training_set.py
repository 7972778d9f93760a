"""A labelled dataset of graded candidates, as ``scanner train all --data`` and ``scanner evaluate --data`` read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from scanner import __version__
from scanner.catalogue.columns import Column, column
from scanner.config import DUPLICATE_RADIUS_ARCSEC
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.grading.crowd import crowd, known_answers
from scanner.grading.grade import Place
from scanner.grading.labels import LABEL_COLUMNS, label_rows
from scanner.grading.store import GradeStore
from scanner.labelled_set import TRUTH_COLUMNS, LabelledSetWriter, writing_labelled_set
from scanner.labels.table import LabelRow
from scanner.query.catalogue import SEPARATION_COLUMN, CandidateId, Catalogue, Search, search
from scanner.query.region import Cone
from scanner.records import SealedRecord, Tile
from scanner.sky import tile_list
from scanner.survey.folder.ledger import RunFolder, RunRecord
from scanner.survey.objects import candidate_cutouts
from scanner.survey.published import Published

TRUTH_SCHEMA = pa.schema(
    [
        *(one.field() for one in TRUTH_COLUMNS),
        column("magnitude_vis").field(),
        *(one.field() for one in LABEL_COLUMNS),
        Column("weight", "float32", "", "How much the object counts in training", "stat.weight").field(),
    ]
)


class GradedSetRecord(SealedRecord):
    """``dataset.json`` of graded candidates.

    ``sources``: runs and surveys that the cutouts are of. ``least_graders``: fewer left an object out. ``n_unclear`` were left
    out, as were ``n_missing`` that no source has any more.
    """

    format_version: Literal[1] = 1
    scanner_version: str
    origin: Literal["grades"] = "grades"
    sources: tuple[str, ...]
    least_graders: int
    n_objects: int
    n_lenses: int
    n_unclear: int
    n_missing: int
    sha256: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class GradedRow:
    """A graded object's row: a table of one row of the catalogue's columns, and what it was published in."""

    object: int
    published: Published
    row: pa.Table


def graded_rows(places: Mapping[int, Sequence[Place]], published: Iterable[Published]) -> list[GradedRow]:
    """Find the rows of today's catalogues that stand for graded objects; what no catalogue has is left out.

    A row is the object's if it was graded under its ``candidate_id``; of several, the last graded one. Where no catalogue has
    such a row any more, it is the nearest one within the duplicate radius of the last graded one.

    Parameters
    ----------
    places
        The rows that were graded, by object, the last graded first.
    published
        Where to look; the first that has the object counts.

    Returns
    -------
    list of GradedRow
        By object.
    """
    found: dict[int, GradedRow] = {}
    for one in published:
        catalogue = one.open_catalogue()
        for number, of_object in places.items():
            row = None if number in found else _row(of_object, catalogue)
            if row is not None:
                found[number] = GradedRow(number, one, row)
    return [found[number] for number in sorted(found)]


def _row(places: Sequence[Place], catalogue: Catalogue) -> pa.Table | None:
    near = [_near(place, catalogue) for place in places]
    for place, rows in zip(places, near, strict=True):
        ids = [str(CandidateId.of(row)) for row in rows.select(["run", "tile_id", "target_id"]).to_pylist()]
        if place.candidate_id in ids:
            return rows.slice(ids.index(place.candidate_id), 1)
    return near[0].slice(0, 1) if len(near[0]) else None


def _near(place: Place, catalogue: Catalogue) -> pa.Table:
    """What lies about a place, the nearest first."""
    cone = Cone(place.ra, place.dec, DUPLICATE_RADIUS_ARCSEC / 3600.0)
    return search(catalogue, Search(region=cone, order=SEPARATION_COLUMN.name, columns=tuple(catalogue.schema.names)))


def finder_probabilities(rows: Iterable[GradedRow]) -> dict[int, float]:
    """Probability of each object before any vote: by networks and lens model together where one was fitted, else by networks.

    Objects without either are left out.
    """
    found: dict[int, float] = {}
    for one in rows:
        for name in ("p_calibrated", "p_lens_modelled"):
            value = one.row[name][0].as_py() if name in one.row.column_names else None
            if value is not None and np.isfinite(value):
                found[one.object] = float(value)
    return found


def label_weights(
    store: GradeStore, rows: Sequence[GradedRow], answers: Sequence[LabelRow] | None, least_graders: int
) -> dict[int, dict[str, Any]]:
    """Labels of graded objects, each with its weight in training.

    Parameters
    ----------
    store
        The grades.
    rows
        Where the objects are found, with the networks' probability.
    answers
        Objects whose answer is known: a label's weight is its probability, from the networks and from votes weighted by skill
        (:func:`~scanner.grading.crowd.crowd`). None: every label counts 1.
    least_graders
        See :func:`~scanner.grading.labels.label_rows`, which this is with ``weight``.
    """
    places, standing = store.places(), store.standing()
    labels = label_rows(standing, places, least_graders)
    weight = dict.fromkeys(labels, 1.0)
    if answers is not None:
        _, table = crowd(standing, places, finder_probabilities(rows), known_answers(places, answers))
        is_lens = dict(zip(table["candidate_id"].to_pylist(), table["p_posterior"].to_pylist(), strict=True))
        for number, label in labels.items():
            probability = is_lens[label["candidate_id"]]
            weight[number] = probability if label["label"] == "lens" else 1.0 - probability
    return {number: {**label, "weight": weight[number]} for number, label in labels.items()}


def write_training_set(
    labels: Mapping[int, Mapping[str, Any]], rows: Sequence[GradedRow], least_graders: int, out: Path
) -> GradedSetRecord:
    """Write a dataset, without the objects whose label is unclear.

    Parameters
    ----------
    labels
        The labels of graded objects, by object, as of :func:`~scanner.grading.labels.label_rows`; ``weight``, where there is
        one, is how much the object counts in training.
    rows
        The catalogue rows of those that are found, each object once.
    least_graders
        What the labels were made with.
    out
        The folder, which must not exist.

    Raises
    ------
    OutputError
        The folder is there already.
    UsageError
        No object has a clear label.
    InputMissingError
        Cutouts were not kept, and their tiles cannot be opened any more.
    """
    n_clear = sum(label["label"] != "unclear" for label in labels.values())
    clear = sorted((row for row in rows if labels[row.object]["label"] != "unclear"), key=_tile)
    if not clear:
        raise UsageError("None of these folders has an object with a clear label; grade more, or name other folders.")
    record = GradedSetRecord(
        scanner_version=__version__,
        sources=tuple(sorted({row.published.location for row in rows})),
        least_graders=least_graders,
        n_objects=len(clear),
        n_lenses=sum(labels[row.object]["label"] == "lens" for row in clear),
        n_unclear=len(labels) - n_clear,
        n_missing=n_clear - len(clear),
    )
    with writing_labelled_set(out, TRUTH_SCHEMA, "grades") as writer:
        _append_cutouts(labels, clear, writer)
        return writer.finish(record)


def _append_cutouts(labels: Mapping[int, Mapping[str, Any]], rows: Sequence[GradedRow], writer: LabelledSetWriter) -> None:
    """Write the cutouts of some rows, those of a tile together."""
    read = cache(_record_and_tiles)
    for (location, run, tile_id), group in groupby(rows, key=_tile):
        of_tile = list(group)
        folder = of_tile[0].published.run_folders.get(run)
        if folder is None:
            raise InputMissingError(f"{location}: its run {run} is not known any more; name the run's own folder.")
        record, tiles = read(folder)
        batch = candidate_cutouts(pa.concat_tables([row.row for row in of_tile]), folder, tiles, record.config)
        if batch is None or len(batch) != len(of_tile):
            raise ContentError(f"{folder.location}: tile {tile_id} has lost cutouts of its objects; scan it again.")
        magnitudes = batch.targets.magnitude.tolist()
        truth = [_truth(labels[row.object], magnitude) for row, magnitude in zip(of_tile, magnitudes, strict=True)]
        writer.append(batch, truth)


def _tile(row: GradedRow) -> tuple[str, str, str]:
    """Where an object was scanned: what was opened, the run, the tile."""
    (names,) = row.row.select(["run", "tile_id"]).to_pylist()
    return row.published.location, names["run"], names["tile_id"]


def _record_and_tiles(folder: RunFolder) -> tuple[RunRecord, Mapping[str, Tile]]:
    record = folder.record()
    return record, tile_list.read(record.tile_list, record.config.storage).tiles


def _truth(label: Mapping[str, Any], magnitude: float) -> dict[str, Any]:
    """The columns of simulated truth that a label gives: a lens is visible, since people saw it; its arcs were not measured."""
    is_lens = label["label"] == "lens"
    return {
        "weight": 1.0,
        **label,
        "is_lens": is_lens,
        "visible": is_lens,
        "class_name": f"grade {label['grade']}",
        "arc_snr": np.nan,
        "magnitude_vis": magnitude,
    }
