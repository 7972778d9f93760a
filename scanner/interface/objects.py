"""Objects of a catalogue in Python: asked for, as tables with units and thumbnails, and as cutouts with a place on the sky."""

from __future__ import annotations

import atexit
import html
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
import pyarrow as pa
from astropy.table import QTable
from astropy.units import Quantity

from scanner.catalogue.columns import all_columns, flag_words
from scanner.catalogue.export import to_astropy
from scanner.config import RunConfig, StorageConfig
from scanner.errors import InputMissingError, UsageError
from scanner.query import region as regions
from scanner.query.catalogue import SEPARATION_COLUMN, Catalogue, Search, search
from scanner.query.database import time_limit
from scanner.query.region import parse_cone, parse_polygon, parse_radius, read_moc
from scanner.query.sql import SqlLimits, run_sql
from scanner.records import BANDS, NISP_BANDS, Band, CutoutBatch, Float32
from scanner.report import colour

# Cutouts are read, cut and drawn by what is imported where it is used: a question needs none of it.
if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.table import Row
    from astropy.wcs import WCS
    from matplotlib.figure import Figure
    from mocpy import MOC

    from scanner.cutouts.framed import BandImage, FramedCutout
    from scanner.survey.folder.ledger import RunFolder

    #: An object: its rank, its name, ``#rank`` or its place as text, where it is, or a row of a table.
    Which: TypeAlias = int | str | SkyCoord | Row
    Cone: TypeAlias = str | tuple[Any, Any] | tuple[Any, Any, Any]

#: Distance within which an object is the one at a position, in arcseconds.
NEAR_ARCSEC = 2.0
#: Rows and columns that a notebook shows.
SHOWN_ROWS = 10
SHOWN_COLUMNS = (
    "rank", "name", "is_candidate", "p_calibrated", "grid_value", "ra", "dec", "separation", "magnitude_vis", "flags",
    "known_name", "tile_id",
)  # fmt: skip
#: Style of a thumbnail: a notebook's own would shrink it to the width of its column.
THUMBNAIL = "width:96px;min-width:96px;height:96px;margin:0"
CELL = "white-space:nowrap"

#: An object by the run that scored it, its tile and its id there.
Place = tuple[str, str, int]
#: From places to pictures as ``data:`` URIs, None where there is none.
Thumbnails = Callable[[Sequence[Place]], Sequence[str | None]]
#: Pictures beside one another in a figure, and the width of each in inches.
COLUMNS, INCHES = 4, 2.4


class Question(TypedDict, total=False):
    """What :meth:`Opened.query` can be asked.

    ``cone``: ``"150.1 2.2 10arcsec"``, or a position (degrees or :class:`~astropy.coordinates.SkyCoord`) and a radius
    (degrees, :class:`~astropy.units.Quantity` or text). ``polygon``: ``"150 2, 151 2, 151 3"``, pairs of degrees, or a
    SkyCoord of the vertices. ``moc``: a file, or a :class:`mocpy.MOC`. ``name``: a designation, the beginning of one, or the
    name of a known lens. ``candidates``: candidates only. ``min_score``: least ``p_calibrated``. ``top``: most rows.
    ``columns``: which; all by default. ``order``: the column to sort by; with ``-`` before it from high to low. ``sql``: a
    SELECT over the tables ``objects`` and ``candidates``, instead of all but the region. ``max_rows``: refuse larger answers.
    ``seconds``: give up after so long.
    """

    cone: Cone
    polygon: str | Iterable[tuple[float, float]] | SkyCoord
    moc: str | Path | MOC
    name: str
    candidates: bool
    min_score: float
    top: int
    columns: Iterable[str]
    order: str
    sql: str
    max_rows: int
    seconds: float


def answer(catalogue: Catalogue, slug: str, question: Mapping[str, Any], storage: StorageConfig) -> pa.Table:
    """Answer a :class:`Question`.

    Parameters
    ----------
    catalogue, slug
        What is asked, and its name in SQL.
    question
        A :class:`Question`.
    storage
        How the object store of a MOC is reached.

    Raises
    ------
    UsageError
        The question makes no sense, or its answer is too large.
    """
    for name in question.keys() - Question.__annotations__.keys():
        raise UsageError(f"There is no question {name}; there are {', '.join(Question.__annotations__)}.")
    seconds, most = question.get("seconds", 300.0), question.get("max_rows", 1_000_000)
    region = region_of(question.get("cone"), question.get("polygon"), question.get("moc"), storage)
    if question.get("sql") is not None:
        others = question.keys() - {"sql", "cone", "polygon", "moc", "seconds", "max_rows"}
        if others:
            raise UsageError(f"sql says all but the region itself; leave out {', '.join(sorted(others))}.")
        return run_sql({slug: catalogue}, question["sql"], SqlLimits(most, seconds, catalogue.limits), region)
    columns, top = question.get("columns"), question.get("top")
    if columns is None:
        columns = (*catalogue.schema.names, *((SEPARATION_COLUMN.name,) if isinstance(region, regions.Cone) else ()))
    asked = Search(
        region=region,
        min_score=question.get("min_score"),
        top=most + 1 if top is None else min(top, most + 1),
        name=question.get("name"),
        candidates_only=question.get("candidates", False),
        columns=tuple(columns),
        order=question.get("order", "rank"),
    )
    with time_limit(seconds):
        rows = search(catalogue, asked)
    if len(rows) > most:
        raise UsageError(f"More than {most:,} objects were found; ask for less, give top, or raise max_rows.")
    return rows


def find(catalogue: Catalogue, location: str, which: Which) -> pa.Table:
    """The row of one object.

    Parameters
    ----------
    catalogue, location
        Where it is looked for, and how messages call that.
    which
        Rank, name, ``run/tile/target_id``, position, or a row of a table.

    Raises
    ------
    InputMissingError
        There is no such object.
    UsageError
        There are several.
    """
    rank, text = _rank_of(which), str(which)
    other: Any = which
    if rank is not None:
        rows = run_sql({"main": catalogue}, f"SELECT * FROM objects WHERE rank = {rank}")
    elif isinstance(which, str):
        rows = search(catalogue, Search(candidate_id=which) if "/" in which else Search(name=which))
    elif hasattr(which, "icrs"):
        text = f"within {NEAR_ARCSEC:g} arcsec of {other.to_string('hmsdms')}"
        near = regions.Cone(*_cone(which, NEAR_ARCSEC / 3600))
        rows = search(catalogue, Search(region=near, order=SEPARATION_COLUMN.name, top=1))
    else:
        text = "/".join(str(other[name]) for name in ("run", "tile_id", "target_id"))
        rows = search(catalogue, Search(candidate_id=text))
    if not len(rows):
        raise InputMissingError(f"{location}: has no object {text}.")
    if len(rows) > 1:
        ranks = ", ".join(f"#{number}" for number in rows["rank"].to_pylist()[:10])
        raise UsageError(f"{location}: {len(rows)} objects are called {text}; give the rank of one: {ranks}.")
    return rows


def region_of(
    cone: Cone | None, polygon: str | Iterable[tuple[float, float]] | SkyCoord | None, moc: str | Path | MOC | None,
    storage: StorageConfig,
) -> regions.Region | None:  # fmt: skip
    """The part of the sky that is asked for; see :class:`Question`.

    Raises
    ------
    UsageError
        More than one is given, or one that makes no sense.
    """
    if sum(one is not None for one in (cone, polygon, moc)) > 1:
        raise UsageError("Give one of cone, polygon and moc.")
    if cone is not None:
        return parse_cone(cone) if isinstance(cone, str) else regions.Cone(*_cone(*cone))
    if polygon is not None:
        if isinstance(polygon, str):
            return parse_polygon(polygon)
        corners = np.stack([polygon.icrs.ra.deg, polygon.icrs.dec.deg], axis=1) if hasattr(polygon, "icrs") else list(polygon)
        return regions.Polygon(corners)
    if moc is None or isinstance(moc, str | Path):
        return None if moc is None else read_moc(str(moc), storage)
    return regions.MocRegion(moc)


def _cone(*parts: Any) -> tuple[float, float, float]:
    """Right ascension, declination and radius in degrees."""
    *position, radius = parts
    if len(position) == 1:
        position = [position[0].icrs.ra, position[0].icrs.dec]
    if len(position) != 2:
        raise UsageError("A cone is a position and a radius: (ra, dec, radius) in degrees, or (SkyCoord, radius).")
    ra, dec = (_degrees(value) for value in position)
    return ra, dec, parse_radius(radius) if isinstance(radius, str) else _degrees(radius)


def _degrees(value: Any) -> float:
    return float(value.to_value("deg") if hasattr(value, "to_value") else value)


def _rank_of(which: Which) -> int | None:
    if isinstance(which, int | np.integer):
        return int(which)
    text = which.strip().removeprefix("#") if isinstance(which, str) else ""
    return int(text) if text.isdecimal() else None


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

    def send(self, to: str = "all", name: str = "scanner") -> tuple[str, ...]:
        """Have TOPCAT, Aladin or another program of this machine load the table (SAMP).

        Parameters
        ----------
        to
            The program's name or its beginning: ``"topcat"``; ``"all"``: every program that takes tables.
        name
            What it calls the table.

        Returns
        -------
        tuple of str
            The names of the programs that were asked.

        Raises
        ------
        UnavailableError
            No such program runs.
        """
        from scanner.query.formats import send_table

        # The program reads the file when it comes to it: it stays until Python ends.
        folder = tempfile.mkdtemp(prefix="scanner-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / "table.vot"
        self.write(path, format="votable")
        return send_table(path, "votable", name, to)

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
    if name == "flags" and isinstance(number, int | np.integer):
        return ", ".join(flag_words(int(number)))
    if isinstance(number, float | np.floating):
        return "" if np.isnan(number) else f"{number:.5f}" if name in ("ra", "dec") else f"{number:.4g}"
    return str(number)


@dataclass(frozen=True, repr=False)
class Cutout:
    """Four images around one object: ``cutout["VIS"].pixels``, ``.wcs``, ``.unit``, ``.zero_point``.

    Attributes
    ----------
    name : str
        Of the object.
    images : Mapping
        Band → :class:`~scanner.cutouts.framed.BandImage`, VIS, Y, J, H; pixels float32, NaN where there are none.
    batch : CutoutBatch
        The same as the networks get it, with sky level and noise.

    Examples
    --------
    >>> import scanner
    >>> cutout = scanner.open("scan").cutout(1)
    >>> cutout["VIS"].pixels.shape, cutout.nisp.shape
    ((200, 200), (3, 66, 66))
    >>> cutout.wcs.pixel_to_world(99.5, 99.5).icrs.name
    'icrs'
    """

    name: str
    images: Mapping[Band, BandImage]
    batch: CutoutBatch

    @classmethod
    def of(cls, name: str, framed: FramedCutout) -> Cutout:
        """A cutout with the object's name."""
        return cls(name, {image.band: image for image in framed.images}, framed.cutout)

    def __getitem__(self, band: Band) -> BandImage:
        return self.images[band]

    def __repr__(self) -> str:
        sides = ", ".join(f"{band} {image.pixels.shape[0]} x {image.pixels.shape[1]}" for band, image in self.images.items())
        return f"<Cutout {self.name}: {sides} pixels>"

    @property
    def vis(self) -> Float32:
        """Pixels of VIS, (200, 200), 0.1″ each."""
        return self.images["VIS"].pixels

    @property
    def nisp(self) -> Float32:
        """Pixels of Y, J and H, (3, 66, 66), 0.3″ each."""
        return np.stack([self.images[band].pixels for band in NISP_BANDS])

    @property
    def wcs(self) -> WCS:
        """Where the pixels of VIS lie on the sky."""
        return self.images["VIS"].wcs

    @property
    def picture(self) -> colour.UInt8:
        """VIS coloured by NISP, (200, 200, 3) uint8, row 0 at the bottom."""
        return picture(self.batch)

    def write(self, path: str | Path) -> None:
        """Write a FITS file with one extension a band, each with its WCS."""
        from scanner.atomic_file import write_atomically
        from scanner.cutouts.framed import fits_bytes

        write_atomically(Path(path), fits_bytes([self.images[band] for band in BANDS], {"OBJECT": self.name}))

    def _repr_png_(self) -> bytes:
        from scanner.report.self_contained import png

        return png(colour.side_by_side(self.batch, 1))


def picture(batch: CutoutBatch) -> colour.UInt8:
    """VIS coloured by NISP of a batch of one."""
    return colour.colour_image(batch.vis[0], batch.nisp[0], batch.sky[0], batch.sigma[0])


def kept_cutouts(folder: RunFolder, tile_id: str, target_ids: Sequence[int]) -> dict[int, FramedCutout]:
    """The cutouts of a tile's objects that its scan kept, by the objects' ids."""
    from scanner.cutouts.framed import of_store
    from scanner.sky.local_files import temporary_folder

    commit = folder.commit_of(tile_id)
    if commit is None:
        return {}
    with temporary_folder(None) as scratch:
        store = folder.cutouts(commit, scratch)
        if store is None:
            return {}
        rows = {int(target_id): row for row, target_id in enumerate(store.target_id)}
        places = {target_id: rows[target_id] for target_id in target_ids if target_id in rows}
        return {one: of_store(store.read(np.array([row])), store.attributes) for one, row in places.items()}


def cut_again(folder: RunFolder, row: pa.Table, storage: StorageConfig | None) -> FramedCutout:
    """Cut an object again from its tile's mosaics; ``row``: of the catalogue, ``storage``: None, as the run did.

    Raises
    ------
    InputMissingError
        The tile, or the list that names it, is no longer there.
    """
    from scanner.sky import tile_list
    from scanner.survey.objects import framed_again

    record = folder.record()
    config: RunConfig = record.config if storage is None else record.config.model_copy(update={"storage": storage})
    return framed_again(row, tile_list.read(record.tile_list, config.storage).tile(row["tile_id"][0].as_py()), config)


def figure(cutouts: Sequence[Cutout], titles: Sequence[str]) -> Figure:
    """Pictures of cutouts beside one another: a :class:`matplotlib.figure.Figure` that a notebook shows by itself."""
    from matplotlib.figure import Figure

    class ObjectFigure(Figure):
        """A figure that a notebook shows whatever its backend is."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png")
            return stream.getvalue()

    n_rows = max(1, -(-len(cutouts) // COLUMNS))
    shown = ObjectFigure(figsize=(COLUMNS * INCHES, n_rows * (INCHES + 0.35)), layout="constrained", dpi=100)
    for number, (cutout, title) in enumerate(zip(cutouts, titles, strict=True), start=1):
        axes = shown.add_subplot(n_rows, COLUMNS, number)
        axes.imshow(cutout.picture, origin="lower", interpolation="nearest")
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
    return shown
