"""``docs/catalogue-columns.md``, written from the registry of columns.

In: nothing. Out: the page as Markdown. ``python -m scanner.catalogue.columns_page docs/catalogue-columns.md`` writes it; a test
holds the two together. Nothing is refused.
"""

from __future__ import annotations

import sys
from pathlib import Path

from scanner.catalogue import columns
from scanner.catalogue.tiles import TILE_COLUMNS
from scanner.records import Flag

_INTRODUCTION = """\
# Columns of the tables

Written by `python -m scanner.catalogue.columns_page docs/catalogue-columns.md` from the registry in
[`scanner/catalogue/columns.py`](../scanner/catalogue/columns.py); do not edit.

| table | columns |
|---|---|
| `tiles/<id>/scores.parquet` | all but `rank`, `name`, `_healpix_29`, `run`, `bundle` and `known_…`; every target of the tile |
| `catalogue/` (HATS Parquet) | all; every object once |
| `candidates.fits`, `.ecsv`, `.vot` | all but `_healpix_29`; the candidates, best first |
| `tiles.parquet` | [its own](#tilesparquet); every tile of the list |

A run and a survey of many runs have the same tables ([the survey's catalogue](survey-catalogue.md)).

Every file carries units, descriptions and UCDs: Parquet in the metadata of its fields (`unit`, `description`, `ucd`), FITS in
`TUNITn`, `TCOMMn`, `TUCDn`, ECSV and VOTable in their own ways. What is not known is NaN; there are no nulls.
"""


def markdown() -> str:
    """The page."""
    lines = [_INTRODUCTION, "| column | type | unit | meaning | UCD |", "|---|---|---|---|---|"]
    for column in columns.all_columns():
        meaning = column.description.partition(", a sum of")[0] + (", see below" if column.name == "flags" else "")
        lines.append(f"| `{column.name}` | {column.dtype} | {column.unit} | {meaning} | `{column.ucd}` |")
    lines += ["", "## tiles.parquet", "", "| column | type | unit | meaning | UCD |", "|---|---|---|---|---|"]
    lines += [f"| `{one.name}` | {one.dtype} | {one.unit} | {one.description} | `{one.ucd}` |" for one in TILE_COLUMNS]
    lines += ["", "## Bits of `flags`", "", "| value | name |", "|---|---|"]
    lines += [f"| {flag.value} | `{flag.name}` |" for flag in Flag]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
