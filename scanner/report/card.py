"""One object in words: what a card of the contact sheet says beside its pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from scanner.catalogue.columns import FLAG_WORDS, MEMBER_COLUMNS, further_column, further_of
from scanner.records import BANDS, MEMBER_BANDS, MEMBER_PIXELS, MEMBERS, Flag, MemberName

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
