"""Tables of objects as a notebook shows them: quantities with units, and a thumbnail beside each of the first rows."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.table import QTable
from astropy.units import Quantity

from scanner.catalogue.columns import all_columns
from scanner.catalogue.export import to_astropy

#: Rows and columns that a notebook shows.
SHOWN_ROWS = 10
SHOWN_COLUMNS = (
    "rank", "name", "ra", "dec", "separation", "magnitude_vis", "p_calibrated", "grid_value", "is_candidate", "tile_id",
    "known_name",
)  # fmt: skip
#: Style of a thumbnail: a notebook's own would shrink it to the width of its column.
THUMBNAIL = "width:96px;min-width:96px;height:96px;margin:0"
CELL = "white-space:nowrap"

#: An object by the run that scored it, its tile and its id there.
Place = tuple[str, str, int]
#: From places to pictures as ``data:`` URIs, None where there is none.
Thumbnails = Callable[[Sequence[Place]], Sequence[str | None]]


class ObjectTable(QTable):  # type: ignore[misc]
    """Objects with units (:class:`astropy.table.QTable`); shown in a notebook with thumbnails where cutouts were kept."""

    _thumbnails: Thumbnails | None = None

    @classmethod
    def of(cls, rows: pa.Table, thumbnails: Thumbnails | None = None) -> ObjectTable:
        """A table of the columns of an Arrow table, with their units, descriptions and UCDs (``info.meta["ucd"]``)."""
        return cls.described(to_astropy(rows), thumbnails)

    @classmethod
    def described(cls, rows: Any, thumbnails: Thumbnails | None = None) -> ObjectTable:
        """A table of an astropy table, whose columns get the descriptions and UCDs of the catalogue where they have none."""
        for column in all_columns():
            if column.name in rows.colnames:
                info = rows[column.name].info
                info.description = info.description or column.description
                info.meta = {"ucd": column.ucd} | dict(info.meta or {})
        table = cls(rows)
        table._thumbnails = thumbnails
        return table

    def __getitem__(self, item: Any) -> Any:
        part = super().__getitem__(item)
        if isinstance(part, ObjectTable):
            part._thumbnails = self._thumbnails
        return part

    def places(self) -> list[Place] | None:
        """Run, tile and id of each row; None where the table does not say."""
        if not {"run", "tile_id", "target_id"} <= set(self.colnames):
            return None
        return [(str(row["run"]), str(row["tile_id"]), int(row["target_id"])) for row in self]

    def _repr_html_(self) -> str:
        """The first rows, their main columns, and thumbnails of the cutouts that were kept."""
        shown = super().__getitem__(slice(SHOWN_ROWS))
        names = self.colnames
        if len(names) > len(SHOWN_COLUMNS):
            names = [name for name in SHOWN_COLUMNS if name in names] or names[: len(SHOWN_COLUMNS)]
        places = shown.places()
        pictures = [None] * len(shown) if places is None or self._thumbnails is None else list(self._thumbnails(places))
        has_pictures = any(pictures)
        head = ["<th></th>"] if has_pictures else []
        for name in names:
            unit = str(getattr(shown[name], "unit", None) or "")
            head.append(f"<th>{html.escape(name)}<br><small>{html.escape(unit)}</small></th>")
        body = []
        for row, uri in zip(shown, pictures, strict=True):
            cells = [f"<td>{_image(uri)}</td>"] if has_pictures else []
            cells += [f'<td style="{CELL}">{html.escape(_text(row[name], name))}</td>' for name in names]
            body.append(f"<tr>{''.join(cells)}</tr>")
        rest = f"{len(shown)} of {len(self):,} rows, {len(names)} of {len(self.colnames)} columns"
        return f"<table><thead><tr>{''.join(head)}</tr></thead><tbody>{''.join(body)}</tbody></table><p>{rest}</p>"


def _image(uri: str | None) -> str:
    return "" if uri is None else f'<img src="{uri}" style="{THUMBNAIL}" alt="cutout">'


def _text(value: Any, name: str) -> str:
    number = value.value if isinstance(value, Quantity) else value
    if isinstance(number, np.ndarray):
        number = number.item()
    if isinstance(number, float | np.floating):
        return "" if np.isnan(number) else f"{number:.5f}" if name in ("ra", "dec") else f"{number:.4g}"
    return str(number)
