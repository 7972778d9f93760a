"""One candidate in words: what a card of the contact sheet says beside its pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from scanner.catalogue.columns import MEMBER_COLUMNS, further_column, further_of
from scanner.records import BANDS, MEMBER_BANDS, MEMBER_PIXELS, MEMBERS, Flag, MemberName

DASH = "–"

#: A word for the card and a sentence for the hand that hovers, in the order of the bits.
FLAG_WORDS: dict[Flag, tuple[str, str]] = {
    Flag.OUTSIDE_MOSAIC: ("at the edge", "Part of the cutout lies outside a mosaic; it was filled with noise before scoring."),
    Flag.MASKED_PIXELS: ("masked pixels", "More than 1% of a band is masked; it was filled with noise before scoring."),
    Flag.TOO_MANY_BAD_PIXELS: ("not scored", "More of the cutout is missing than the run allows, so it has no scores."),
    Flag.SATURATED: ("bright neighbour", "A very bright source dominates the cutout; the scores may be about it."),
    Flag.EMPTY_CELL: (
        "empty cell",
        "No training object lies in its cell of the grid: the value is the mean of those around.",
    ),
    Flag.UNDEFINED_NEIGHBOURS: ("lonely cell", "The cells around are empty too: the value is that of the nearest filled cell."),
    Flag.OUTSIDE_EMBEDDING: ("off the map", "It lies beyond the box of the training embedding and was moved to its rim."),
    Flag.FAR_FROM_TRAINING: (
        "unlike training",
        "Its seven scores are unlike those of any training object: trust no number.",
    ),
    Flag.BANDS_MISSING: (
        "bands missing",
        "A NISP band is not there: the members that do without it scored this object, and the grid has no place for it.",
    ),
    Flag.SCREENED: (
        "screened out",
        "The quick members found it so far from a lens that the others and the grid were not asked.",
    ),
}


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
    """Everything a card says. ``sort_keys``: (name, value) of what the page can sort and filter by."""

    rank: int
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


def card(row: Mapping[str, Any]) -> Card:
    """Put one row of the candidate table into words.

    Parameters
    ----------
    row
        Column name to value, as of ``pyarrow.Table.to_pylist``.
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
        flags=tuple(words for flag, words in FLAG_WORDS.items() if flag in flags),
        links=links(ra, dec),
        sort_keys=tuple((name, _number(value, ".9g", missing="")) for name, value in keys.items()),
    )


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
