"""The contact sheet of a run: one web page with its best objects by rank, each with a card that says in words what it is."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import numpy as np
import pyarrow as pa

from scanner.atomic_file import replacement
from scanner.catalogue.columns import FLAG_WORDS, MEMBER_COLUMNS, further_column, further_of
from scanner.errors import OutputError
from scanner.records import BANDS, MEMBER_BANDS, MEMBER_PIXELS, MEMBERS, CutoutBatch, FailedTile, Flag, MemberName, Record
from scanner.report import colour, self_contained
from scanner.report.self_contained import asset, template

DASH = "–"


@dataclass(frozen=True)
class Bar:
    """A score between 0 and 1: ``text`` to read, ``percent`` to draw, ``title`` to hover; ``kind`` names its colour."""

    label: str
    title: str
    text: str
    percent: str
    kind: str


@dataclass(frozen=True)
class Card:
    """Everything a card says. ``sort_keys``: (name, value) of what the page can sort and filter by.

    ``standing``: among the objects of the run. ``likelihood``: beside an average object; empty where that is not known.
    """

    rank: int
    is_candidate: bool
    standing: str
    likelihood: str
    name: str
    target_id: str
    tile_id: str
    position_degrees: str
    right_ascension: str
    declination: str
    magnitude: str
    missing: str
    members: tuple[Bar, ...]
    grid: Bar
    cell: str
    calibrated: Bar
    flags: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]
    sort_keys: tuple[tuple[str, str], ...]


def card(row: Mapping[str, Any], n_objects: int, sky_prevalence: float | None) -> Card:
    """Put one row of the catalogue into words.

    Parameters
    ----------
    row
        Column name to value, as of ``pyarrow.Table.to_pylist``.
    n_objects
        Objects that are ranked.
    sky_prevalence
        Share of lenses that probabilities are stated for; None where they are not calibrated.
    """
    ra, dec = float(row["ra"]), float(row["dec"])
    flags = Flag(int(row["flags"]))
    members = tuple(
        _bar(member, member_title(member), row[MEMBER_COLUMNS[member].name], member_kind(member)) for member in MEMBERS
    ) + tuple(_bar(name, further_column(name).description, row[f"p_{name}"], "vis") for name in further_of(row))
    grid = _bar("grid", "Share of lenses in its cell of the t-SNE grid", row["grid_value"], "verdict")
    of_all = "All scores as one probability" if further_of(row) else "The seven scores as one probability"
    calibrated = _bar("calibrated", of_all, row["p_calibrated"], "verdict")
    right_ascension, declination = sexagesimal(ra, dec)
    keys = {
        "rank": row["rank"],
        "grid": row["grid_value"],
        "calibrated": row["p_calibrated"],
    }
    keys |= {member.lower(): row[MEMBER_COLUMNS[member].name] for member in MEMBERS}
    keys |= {"magnitude": row["magnitude_vis"], "ra": ra}
    return Card(
        rank=int(row["rank"]),
        is_candidate=bool(row["is_candidate"]),
        standing=standing(int(row["rank"]), n_objects),
        likelihood=likelihood(row["p_calibrated"], sky_prevalence),
        name=str(row["name"]),
        target_id=str(row["target_id"]),
        tile_id=str(row["tile_id"]),
        position_degrees=f"{ra:.6f} {dec:+.6f}",
        right_ascension=right_ascension,
        declination=declination,
        magnitude=_number(row["magnitude_vis"], ".2f"),
        missing=_missing(row),
        members=members,
        grid=grid,
        cell=_cell(int(row["cell_count"]), flags),
        calibrated=calibrated,
        flags=tuple(FLAG_WORDS[flag] for flag in FLAG_WORDS if flag in flags),
        links=links(ra, dec),
        sort_keys=tuple((name, _number(value, ".9g", missing="")) for name, value in keys.items()),
    )


def standing(rank: int, n_objects: int) -> str:
    """``higher than 99.8% of 4,102 objects``: rounded down, with as many digits as tell it from 100%."""
    share = 100 * (n_objects - rank) / n_objects
    digits = max(0, math.ceil(-math.log10(100 - share)))
    shown = math.floor(share * 10**digits) / 10**digits
    return f"higher than {shown:.{digits}f}% of {n_objects:,} object{'' if n_objects == 1 else 's'}"


def likelihood(probability: float | None, sky_prevalence: float | None) -> str:
    """``190 × as likely as an average object``: the probability over the share of lenses on the sky, to two figures."""
    if probability is None or not math.isfinite(probability) or sky_prevalence is None:
        return ""
    times = float(f"{probability / sky_prevalence:.2g}")
    return f"{f'{times:,.0f}' if times >= 10 else f'{times:g}'} × as likely as an average object"


def sexagesimal(ra: float, dec: float) -> tuple[str, str]:
    """Degrees as ``03h31m48.19s`` and ``−28°12′34.5″``, rounded; carries into minutes, degrees and through 24 h are right."""
    hundredths = round(ra / 15.0 * 360_000) % (24 * 360_000)
    tenths = round(abs(dec) * 36_000)
    hours, minutes = divmod(hundredths // 6_000, 60)
    degrees, arcminutes = divmod(tenths // 600, 60)
    sign = "−" if dec < 0 and tenths else "+"
    return (
        f"{hours:02d}h{minutes:02d}m{hundredths % 6_000 / 100:05.2f}s",
        f"{sign}{degrees:02d}°{arcminutes:02d}′{tenths % 600 / 10:04.1f}″",
    )


def links(ra: float, dec: float) -> tuple[tuple[str, str], ...]:
    """(name, address) of public sky viewers centred on a position in degrees."""
    target = quote(f"{ra:.6f} {dec:+.6f}")
    legacy = urlencode({"ra": f"{ra:.6f}", "dec": f"{dec:.6f}", "layer": "ls-dr10", "zoom": 16})
    return (
        ("ESASky", f"https://sky.esa.int/esasky/?target={target}&fov=0.02&sci=true"),
        ("Aladin", f"https://aladin.cds.unistra.fr/AladinLite/?target={target}&fov=0.02"),
        ("Legacy", f"https://www.legacysurvey.org/viewer?{legacy}"),
    )


def member_kind(member: MemberName) -> str:
    """Its colour on pages: ``vis`` for what sees VIS, where arcs are sharp, else ``nisp``."""
    return "vis" if "VIS" in MEMBER_BANDS[member] else "nisp"


def member_title(member: MemberName) -> str:
    """What a member sees, for the hand that hovers."""
    bands = [band for band in BANDS if band in MEMBER_BANDS[member]]
    return f"Sees {', '.join(bands)} at {MEMBER_PIXELS[member]} px"


def _bar(label: str, title: str, value: float | None, kind: str) -> Bar:
    if value is None or not math.isfinite(value):
        return Bar(label, title, DASH, "0", kind)
    text = "> 0.999" if value >= 0.9995 else f"{value:.1e}" if 0 < value < 0.0005 else f"{value:.3f}"
    return Bar(label, title, text, f"{100 * value:.1f}", kind)


def _cell(count: int, flags: Flag) -> str:
    if Flag.UNDEFINED_NEIGHBOURS in flags:
        return "nearest filled cell"
    if Flag.EMPTY_CELL in flags:
        return "mean of the cells around"
    return f"of {count:,} training object{'' if count == 1 else 's'}"


def _missing(row: Mapping[str, Any]) -> str:
    worst = [(band, row[f"bad_{band.lower()}"]) for band in BANDS if row[f"bad_{band.lower()}"] >= 0.0005]
    return ", ".join(f"{band} {100 * share:.1f}%" for band, share in worst)


def _number(value: float | None, spec: str, missing: str = DASH) -> str:
    return missing if value is None or not math.isfinite(value) else format(value, spec)


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
