"""``docs/truth-columns.md``, written from the columns of the two tables of a dataset.

In: nothing. Out: the page as Markdown. ``python -m scanner.simulation.datasets.truth_page docs/truth-columns.md`` writes it; a
test holds the two together. Nothing is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from scanner.simulation.datasets import component_table, truth
from scanner.simulation.population.columns import Column
from scanner.simulation.population.labels import MIN_ARC_PIXELS, MIN_MAGNIFICATION, VISIBLE_PIXELS, VISIBLE_SNR
from scanner.simulation.population.system_truth import SECOND

_INTRODUCTION = f"""\
# Truth columns of a dataset

Written by `python -m scanner.simulation.datasets.truth_page docs/truth-columns.md` from the code; do not edit.

A dataset of `scanner simulate dataset` has two tables. `truth.parquet` has one row a cutout, in the order of the cutout store;
`components.parquet` has every piece of light and every artefact that went into each cutout, joined to it by `target_id`. Both
carry units and descriptions in the metadata of their fields (`unit`, `description`). What does not apply is NaN, zero or False;
there are no nulls. Fluxes are in the units of the images (`adu`; zero points VIS 24.6, Y 29.8, J 30.0, H 29.9).

A **lens** by the definition has `n_source_im` > 0, `mag_eff` > {MIN_MAGNIFICATION} and `n_pix_source` > {MIN_ARC_PIXELS}; it is
**visible** if moreover `arc_snr` > {VISIBLE_SNR:g} and `n_pix_source` > {VISIBLE_PIXELS}. `class_name` says what was drawn,
`is_lens` whether it came out as one: labels of training are `is_lens`.

## `truth.parquet`
"""
_SECOND = f"""
These columns describe the object's only system of a source and a deflector, or in compound lenses the one of the nearer source;
all of them come once more with the suffix `{SECOND}` for the farther source of compound lenses.
"""


def markdown() -> str:
    """The page."""
    second = {column.name.removesuffix(SECOND) for column in truth.COLUMNS if column.name.endswith(SECOND)}
    own = [column for column in truth.COLUMNS if not column.name.endswith(SECOND)]
    general = [column for column in own if column.name not in second]
    of_systems = [column for column in own if column.name in second]
    parts = [_INTRODUCTION, _table(general), _SECOND, _table(of_systems), "## `components.parquet`\n"]
    return "\n".join([*parts, _table(component_table.COLUMNS)])


def _table(columns: Sequence[Column]) -> str:
    rows = [f"| `{column.name}` | {column.dtype} | {column.unit} | {column.description} |" for column in columns]
    return "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
