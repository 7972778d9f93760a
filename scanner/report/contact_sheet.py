"""The contact sheet of a run: one web page with its best objects by rank, and a line where the threshold lies."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from scanner.atomic_file import replacement
from scanner.catalogue.columns import FLAG_WORDS
from scanner.errors import OutputError
from scanner.records import MEMBERS, CutoutBatch, FailedTile, Record
from scanner.report import colour, self_contained
from scanner.report.card import Card, card
from scanner.report.self_contained import asset, template

#: Grade A and B lenses per square degree that Euclid's own search of Q1 found (497 in 63.1 deg2: Euclid Collaboration,
#: Walmsley et al. 2025): what a list of candidates from the same sky could hold at most, today.
KNOWN_LENSES_PER_DEG2 = 497 / 63.1


class RunSummary(Record):
    """One run in numbers.

    ``n_targets`` objects were listed in the ``n_tiles - n_failed`` tiles that worked, ``n_scored`` of them could be scored;
    ``n_objects`` are distinct. ``n_candidates`` of these, the last one at rank ``last_candidate_rank`` (0: none), reached the
    ``threshold`` on the score that ``decides_on`` names: the grid value, or the calibrated probability where the bundle has no
    grid. ``beta`` is that of the F-beta which chose the threshold; None where the bundle was made without labelled objects and
    none did. ``sky_prevalence``: share of lenses that probabilities are stated for, None where they are not calibrated.
    ``area_deg2``: sky with good VIS pixels in the tiles that worked, overlaps counted once.
    ``bundle_licence``: of its weights, None where it is not known.
    """

    title: str
    n_tiles: int
    n_failed: int
    n_targets: int
    n_scored: int
    n_objects: int
    n_candidates: int
    last_candidate_rank: int
    area_deg2: float
    bundle_name: str
    bundle_version: str
    threshold: float
    beta: float | None
    scanner_version: str
    command: str
    decides_on: Literal["grid", "calibrated"] = "grid"
    sky_prevalence: float | None = None
    bundle_licence: str | None = None
    failed_tiles: tuple[FailedTile, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """The pictures of one object as ``data:`` URIs; ``explanation`` is None where it was not explained."""

    vis: str
    colour: str
    nisp: str
    explanation: str | None


def write_contact_sheet(
    path: Path,
    listed: pa.Table,
    cutouts: CutoutBatch | None,
    summary: RunSummary,
    strips: Sequence[bytes | None] | None = None,
) -> None:
    """Write the contact sheet.

    It needs no network and no other file: pictures, style and script are inside, and a content security policy forbids the
    rest. It takes about 25 kB an object. The same input gives the same bytes.

    Parameters
    ----------
    path
        The HTML file to write or replace.
    listed
        The rows to show, ranked, with the columns of :mod:`scanner.catalogue.columns`, candidates or not.
    cutouts
        The cutout of each row, in the same order; None where there are no rows.
    summary
        The facts of the run.
    strips
        PNG of each row's explanation, None where there is none; no strips at all by default.

    Raises
    ------
    ValueError
        Rows and cutouts differ in number or in ``target_id``.
    OutputError
        The file cannot be written.
    """
    ids = np.asarray(listed["target_id"].to_numpy(), dtype=np.int64)
    of_cutouts = np.empty(0, dtype=np.int64) if cutouts is None else cutouts.targets.target_id
    if not np.array_equal(ids, of_cutouts):
        raise ValueError("the table and the cutouts are not the same objects in the same order")
    script = asset("contact_sheet.js")
    chunks = template("contact_sheet").generate(
        summary=summary,
        n_shown=len(listed),
        cards=_cards(listed, cutouts, [None] * len(listed) if strips is None else strips, summary),
        line_rank=next((rank for rank in listed["rank"].to_pylist() if rank > summary.last_candidate_rank), None),
        flag_words=tuple(FLAG_WORDS.values()),
        flags_shown=tuple(
            words for flag, words in FLAG_WORDS.items() if any(flag & flags for flags in listed["flags"].to_pylist())
        ),
        members=MEMBERS,
        expected_lenses=summary.area_deg2 * KNOWN_LENSES_PER_DEG2,
        known_lenses_per_deg2=KNOWN_LENSES_PER_DEG2,
        style=asset("contact_sheet.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    try:
        with replacement(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(chunks)
    except OSError as error:
        raise OutputError.of(path, error) from None


def _cards(
    listed: pa.Table, cutouts: CutoutBatch | None, strips: Sequence[bytes | None], summary: RunSummary
) -> Iterator[tuple[Card, Pictures]]:
    """One object at a time, so that a page of thousands is never held in memory."""
    if cutouts is None:
        return
    for index, (row, strip) in enumerate(zip(listed.to_pylist(), strips, strict=True)):
        vis, nisp, sky, sigma = cutouts.vis[index], cutouts.nisp[index], cutouts.sky[index], cutouts.sigma[index]
        yield (
            card(row, summary.n_objects, summary.sky_prevalence),
            Pictures(
                vis=self_contained.data_uri(colour.vis_image(vis, sky, sigma)),
                colour=self_contained.data_uri(colour.colour_image(vis, nisp, sky, sigma)),
                nisp=self_contained.data_uri(colour.nisp_image(nisp, sky, sigma), self_contained.NISP_QUALITIES),
                explanation=None if strip is None else self_contained.png_as_webp_uri(strip),
            ),
        )
