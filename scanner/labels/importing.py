"""From a table of labels, and mosaics or a folder of cutouts, to a labelled set with the provenance of every row."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray
from pydantic import Field

from scanner import __version__
from scanner.atomic_file import file_sha256
from scanner.catalogue.columns import Column, column
from scanner.config import CutoutsConfig, StorageConfig
from scanner.cutouts.extract import cut
from scanner.errors import ContentError, InputMissingError, OutputError, TileError, UsageError
from scanner.labelled_set import FIELD_COLUMN, TRUTH_COLUMNS, LabelledSetWriter, writing_labelled_set
from scanner.labels.table import LabelRow, LeftOut, Purpose, Reason, preset_named, read_labels
from scanner.records import (
    BANDS,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    Band,
    CutoutBatch,
    FailedTile,
    Flag,
    Float64,
    SealedRecord,
    Targets,
    Tile,
)
from scanner.sky import tile_list
from scanner.sky.alignment import SCALE_TOLERANCE, pixels_outside
from scanner.sky.local_files import ScratchFolder, fetch_tile, regular_file, temporary_folder
from scanner.sky.mosaic import AbsentBand, Mosaic
from scanner.sky.targets import pixel_positions
from scanner.sky.tile_images import TileImages, open_tile
from scanner.sphere import cell_numbers

#: Table of the rows that are not in the set, in its folder.
LEFT_OUT = "left-out.ecsv"
PROVENANCE_COLUMNS = (
    column("ra"),
    column("dec"),
    FIELD_COLUMN,
    Column("source_row", "int64", "", "Row of the table of labels, from 0", "meta.record"),
    Column("source_id", "string", "", "Id in the table of labels", "meta.id"),
    Column("source_file", "string", "", "VIS mosaic or cutout file that the pixels are of", "meta.id;meta.file"),
    Column("source_label", "string", "", "Label as the table has it", "meta.code.class"),
    Column("theta_e_arcsec", "float64", "arcsec", "Einstein radius, where the table states it", "phys.angSize"),
    Column("weight", "float64", "", "Weight that the table gives to the label; 1 where it gives none", "stat.weight"),
)
TRUTH_SCHEMA = pa.schema([one.field() for one in (*TRUTH_COLUMNS, *PROVENANCE_COLUMNS)])
#: Of the VIS pixels of the central 10″: an object is masked where more than this share of those that an image has is bad …
CENTRAL_PIXELS, MOST_BAD = 100, 0.25
#: … and outside where more than this share is beyond a mosaic, or beyond a file, which may be a small one.
MOST_OUTSIDE_TILE, MOST_OUTSIDE_FILE = 0.25, 0.75
#: Objects of the real sky without a tile are of one field where they lie in one HEALPix cell of this order: 27′, as a tile.
FIELD_ORDER = 7
BATCH = 64
#: A cutout is a small file.
LARGEST_CUTOUT_BYTES = 1 << 28
FITS_SUFFIXES, ARRAY_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fits.fz"), (".npy",)
_PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".webp")
_BAND_WORDS: dict[Band, re.Pattern[str]] = {band: re.compile(rf"(?<![A-Z0-9]){band}(?![A-Z0-9])") for band in BANDS}
_NO_IMAGE = re.compile(r"PSF|FLAG|MASK|MODEL|SEGM|BKG|BACKGROUND|WEIGHT|ERR|VAR")
_TILE_KEYS = ("TILEIDX", "TILE_INDEX", "TILEID", "TILE_ID", "TILE")
#: Cards of a primary header that hold for the extensions too: the tile, and the WCS where they have none of their own.
_TILE_CARD = re.compile("|".join(_TILE_KEYS))
_SHARED_CARD = re.compile(
    rf"{_TILE_CARD.pattern}|(CTYPE|CRVAL|CRPIX|CDELT|CUNIT)\d|(CD|PC)\d_\d|RADESYS|EQUINOX|LONPOLE|LATPOLE"
)


Report = Callable[[int, int], None]


class ImportedSetRecord(SealedRecord):
    """``dataset.json`` of labels that others gave.

    ``source``, ``source_sha256``: the table of labels; ``columns``: those that were read, by role. ``pixels``: the tile list or
    the folder of cutouts. ``lens``, ``not_lens``: values as they were asked for; empty: those of the preset, or the usual ones.
    ``n_left_out``: rows that are not in the set, by reason; :data:`LEFT_OUT` says of each why. ``failed_tiles``: tiles of the
    list that could not be used.
    """

    format_version: Literal[1] = 1
    scanner_version: str = __version__
    origin: Literal["labels"] = "labels"
    purpose: Purpose
    source: str
    source_sha256: str
    columns: dict[str, str]
    pixels: str
    label_preset: str | None
    lens: tuple[str, ...]
    not_lens: tuple[str, ...]
    n_objects: int = 0
    n_lenses: int = 0
    n_left_out: dict[str, int] = Field(default_factory=dict)
    failed_tiles: tuple[FailedTile, ...] = ()
    sha256: dict[str, str] = Field(default_factory=dict)


class _Import:
    """An import on its way: the set that is written, and what is left out."""

    def __init__(self, writer: LabelledSetWriter, rows: Sequence[LabelRow], left_out: list[LeftOut], report: Report) -> None:
        self.writer, self.rows, self.left_out = writer, rows, left_out
        self.n_lenses = 0
        self._report, self._done = report, 0

    def done(self, n: int = 1) -> None:
        """Count rows that are settled."""
        self._done += n
        self._report(self._done, len(self.rows))

    def leave_out(self, row: LabelRow, reason: Reason, detail: str) -> None:
        """Settle a row that cannot be used."""
        self.left_out.append(LeftOut(row, reason, detail))
        self.done()

    def write(
        self, batch: CutoutBatch, central: _Central, rows: Sequence[LabelRow], fields: Sequence[str], files: Sequence[str]
    ) -> None:
        """Settle rows whose cutouts are here, in the batch's order; those that are masked or outside are left out."""
        good = np.flatnonzero(central.is_good)
        for i in np.flatnonzero(~central.is_good).tolist():
            reason: Reason = "outside" if central.is_outside[i] else "masked"
            share = (central.outside if central.is_outside[i] else central.masked)[i]
            width = CENTRAL_PIXELS * VIS_PIXEL_SCALE_ARCSEC
            self.leave_out(rows[i], reason, f"{share:.0%} of the central {width:.0f} arcsec of VIS is {reason} in {files[i]}")
        if len(good):
            kept = batch.take(good)
            truth: list[dict[str, Any]] = [
                {
                    "is_lens": rows[i].is_lens,
                    "visible": rows[i].is_lens,
                    "class_name": f"grade {rows[i].grade}" if rows[i].grade else "lens" if rows[i].is_lens else "non-lens",
                    "arc_snr": np.nan,
                    "ra": float(kept.targets.ra[number]),
                    "dec": float(kept.targets.dec[number]),
                    "field": fields[i],
                    "source_row": rows[i].number,
                    "source_id": rows[i].name,
                    "source_file": files[i],
                    "source_label": rows[i].label,
                    "theta_e_arcsec": rows[i].theta_e_arcsec,
                    "weight": rows[i].weight,
                }
                for number, i in enumerate(good.tolist())
            ]
            self.n_lenses += sum(bool(row["is_lens"]) for row in truth)
            self.writer.append(kept, truth)
            self.done(len(good))


def import_labels(
    table: Path,
    out: Path,
    *,
    tiles: str | None = None,
    cutouts: Path | None = None,
    preset: str | None = None,
    columns: Mapping[str, str] | None = None,
    lens: Sequence[str] = (),
    not_lens: Sequence[str] = (),
    purpose: Purpose | None = None,
    scale_arcsec: float | None = None,
    storage: StorageConfig = StorageConfig(),
    report: Report = lambda done, total: None,
) -> ImportedSetRecord:
    """Make a labelled set of a table of labels.

    Cutouts are cut as a scan cuts them: VIS pixels are copied, NISP of 0.1″ is summed three by three, NISP of 0.3″ is sliced
    where its grid fits; what an image does not cover is NaN. A file of cutouts is a small tile: its WCS says where the object
    is; without one it is in the middle.

    Parameters
    ----------
    table, preset, columns, lens, not_lens
        See :func:`scanner.labels.table.read_labels`.
    out
        Folder of the set, which must not be there.
    tiles
        A tile list (:func:`scanner.sky.tile_list.read`); an object that lies in several tiles is cut from the first that has
        all of its pixels, or else from the one that has most.
    cutouts
        In the place of ``tiles``, a folder of files: FITS with one image (VIS), one extension a band, or a cube of VIS, Y, J
        and H; or ``.npy`` of (n, n) or (4, n, n). A row names its file; else it is the one whose name is the row's id.
    purpose
        ``evaluation``: nothing may be trained on the set. None: the preset's, or ``training``.
    scale_arcsec
        Width of a pixel in files without a WCS.
    storage
        How object stores are reached.
    report
        Called with (rows settled, rows in all).

    Raises
    ------
    UsageError
        Neither or both of tiles and cutouts; settings that make no sense.
    InputMissingError, ContentError
        The table or the list cannot be used; pixels are not 0.1″ wide in VIS; no row can be used.
    OutputError
        ``out`` is there already, or cannot be written.
    """
    if (tiles is None) == (cutouts is None):
        raise UsageError("give either --tiles LIST, mosaics to cut from, or --cutouts FOLDER.")
    if scale_arcsec is not None and not (cutouts is not None and scale_arcsec > 0):
        raise UsageError("--scale is the width in arcsec, above 0, of the pixels of --cutouts.")
    if out.exists():
        raise OutputError(f"{out}: is there already; choose another --out or remove it.")
    known = preset_named(preset)
    labels = read_labels(table, preset=preset, columns=columns, lens=lens, not_lens=not_lens)
    record = ImportedSetRecord(
        purpose=purpose or (known.purpose if known else "training"),
        source=str(table),
        source_sha256=file_sha256(table),
        columns=labels.columns,
        pixels=str(tiles if tiles is not None else cutouts),
        label_preset=preset,
        lens=tuple(lens),
        not_lens=tuple(not_lens),
    )
    with writing_labelled_set(out, TRUTH_SCHEMA, "labels") as writer:
        work = _Import(writer, labels.rows, labels.left_out, report)
        failed: tuple[FailedTile, ...] = ()
        if tiles is not None:
            failed = _from_tiles(work, tiles, storage)
        else:
            assert cutouts is not None
            _from_files(work, cutouts, scale_arcsec)
        counts = Counter(one.reason for one in work.left_out)
        if not len(writer):
            said = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common())
            raise ContentError(f"{table}: no row could be used ({said}); the first: {work.left_out[0].detail}.")
        (writer.path / LEFT_OUT).write_bytes(_left_out_table(work.left_out))
        update = {
            "n_objects": len(writer),
            "n_lenses": work.n_lenses,
            "n_left_out": dict(counts.most_common()),
            "failed_tiles": failed,
        }
        return writer.finish(record.model_copy(update=update))


def _left_out_table(left_out: Sequence[LeftOut]) -> bytes:
    """Rows that are not in the set as ECSV, in the order of the table of labels."""
    rows = sorted(left_out, key=lambda one: one.row.number)
    values = {
        "source_row": np.array([one.row.number for one in rows], dtype=np.int64),
        "source_id": [one.row.name for one in rows],
        "ra": np.array([one.row.ra for one in rows], dtype=np.float64),
        "dec": np.array([one.row.dec for one in rows], dtype=np.float64),
        "source_file": [one.row.file for one in rows],
        "source_label": [one.row.label for one in rows],
        "reason": [one.reason for one in rows],
        "detail": [one.detail for one in rows],
    }
    table = Table(
        {name: np.asarray(found, dtype=None if isinstance(found, np.ndarray) else str) for name, found in values.items()}
    )
    table["ra"].unit = table["dec"].unit = "deg"
    stream = io.StringIO()
    table.write(stream, format="ascii.ecsv")
    return stream.getvalue().encode()


@dataclass(frozen=True)
class _Central:
    """The central 10″ of VIS of N objects: shares (N,) beyond the image, and masked of what is on it."""

    outside: Float64
    masked: Float64
    most_outside: float

    @property
    def is_outside(self) -> NDArray[np.bool_]:
        return self.outside > self.most_outside

    @property
    def is_good(self) -> NDArray[np.bool_]:
        return ~self.is_outside & (self.masked <= MOST_BAD)

    def take(self, index: NDArray[Any]) -> _Central:
        return _Central(self.outside[index], self.masked[index], self.most_outside)


def _central(batch: CutoutBatch, shape: tuple[int, int], most_outside: float) -> _Central:
    """Look at the centres of cutouts of an image of ``shape``."""
    first = (VIS_CUTOUT_PIXELS - CENTRAL_PIXELS) // 2
    centre = batch.vis[:, first : first + CENTRAL_PIXELS, first : first + CENTRAL_PIXELS]
    bad = np.count_nonzero(~np.isfinite(centre), axis=(1, 2))
    outside = pixels_outside(shape, batch.x0 + first, batch.y0 + first, CENTRAL_PIXELS)
    n = CENTRAL_PIXELS**2
    return _Central(outside / n, (bad - outside) / np.maximum(n - outside, 1), most_outside)


def _targets(rows: Sequence[LabelRow], x: Float64, y: Float64, ra: Float64, dec: Float64) -> Targets:
    ids = np.array([row.number for row in rows], dtype=np.int64)
    return Targets(ids, ra, dec, x, y, np.full(len(rows), np.nan, dtype=np.float32))


# Mosaics


def _from_tiles(work: _Import, location: str, storage: StorageConfig) -> tuple[FailedTile, ...]:
    """Cut the rows from the tiles of a list; returns the tiles that could not be used."""
    listed = tile_list.read(location, storage)
    waiting: dict[int, LabelRow] = {}
    for row in work.rows:
        if row.is_placed:
            waiting[row.number] = row
        else:
            work.leave_out(row, "no position", "has no right ascension and declination")
    incomplete: dict[int, _Incomplete] = {}
    failed = list(listed.failed)
    for tile in listed.tiles.values():
        if not waiting:
            break
        try:
            _from_tile(work, tile, waiting, incomplete, storage)
        except TileError as error:
            failed.append(FailedTile(tile_id=tile.tile_id, reason=str(error)))
    for number, best in sorted(incomplete.items()):
        work.write(best.batch, best.central, [waiting.pop(number)], [best.tile_id], [best.path])
    also = f" that could be opened ({len(failed)} could not)" if failed else ""
    for row in waiting.values():
        work.leave_out(row, "outside", f"lies in no tile of {location}{also}")
    return tuple(failed)


@dataclass(frozen=True)
class _Incomplete:
    """The best cutout so far of an object at the edge of tiles, or masked there; ``bad``: the sum of its bands' shares."""

    bad: float
    batch: CutoutBatch
    central: _Central
    tile_id: str
    path: str


def _from_tile(
    work: _Import, tile: Tile, waiting: dict[int, LabelRow], incomplete: dict[int, _Incomplete], storage: StorageConfig
) -> None:
    """Cut those rows that lie in a tile: what is complete is written, what is not waits for a tile that has more of it."""
    path = tile.bands["VIS"].image.path
    with temporary_folder(None) as scratch, open_tile(fetch_tile(tile, scratch, storage), CutoutsConfig(), scratch) as images:
        rows = list(waiting.values())
        ra, dec = (np.array([getattr(row, name) for row in rows]) for name in ("ra", "dec"))
        x, y, _ = pixel_positions(images.vis, ra, dec)
        ny, nx = images.vis.shape
        inside = (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
        here = [row for row, is_inside in zip(rows, inside, strict=True) if is_inside]
        targets = _targets(here, x[inside], y[inside], ra[inside], dec[inside])
        for batch in cut(images, targets, BATCH):
            central = _central(batch, images.vis.shape, MOST_OUTSIDE_TILE)
            is_complete = central.is_good & ((batch.flags & np.uint32(Flag.OUTSIDE_MOSAIC)) == 0)
            bad = batch.bad_fraction.sum(axis=1)
            for i in np.flatnonzero(~is_complete).tolist():
                number, one = int(batch.targets.target_id[i]), np.array([i])
                if number not in incomplete or bad[i] < incomplete[number].bad:
                    incomplete[number] = _Incomplete(float(bad[i]), batch.take(one), central.take(one), tile.tile_id, path)
            complete = np.flatnonzero(is_complete)
            if len(complete):
                numbers = batch.targets.target_id[complete].tolist()
                for number in numbers:
                    incomplete.pop(number, None)
                of_batch = [waiting.pop(number) for number in numbers]
                fields, paths = [tile.tile_id] * len(numbers), [path] * len(numbers)
                work.write(batch.take(complete), central.take(complete), of_batch, fields, paths)


# Files of single objects


def _from_files(work: _Import, folder: Path, scale_arcsec: float | None) -> None:
    """Cut the rows from files, one an object; files of several scales are refused as a whole."""
    if not folder.is_dir():
        raise InputMissingError(f"{folder}: the folder of cutouts is not there; check its path.")
    files = _Files(folder)
    for row in work.rows:
        found = files.of(row)
        if isinstance(found, str):
            work.leave_out(row, "missing file", found)
            continue
        name = found.relative_to(folder).as_posix()
        try:
            with _opened_file(found, row, scale_arcsec) as (images, tile_name):
                batch, shape = _cut_file(images, row), images.vis.shape
        except TileError as error:
            work.leave_out(row, "unreadable", str(error).rstrip("."))
            continue
        if batch is None:
            work.leave_out(row, "outside", f"its position is not on {name}")
        else:
            central = _central(batch, shape, MOST_OUTSIDE_FILE)
            work.write(batch, central, [row], [row.field or tile_name or _sky_field(batch.targets) or name], [name])


class _Files:
    """The files of a folder, and of the folders in it, by the names that rows may give them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self._by_name[path.name].append(path)
                suffix = _suffix(path.name, (*FITS_SUFFIXES, *ARRAY_SUFFIXES))
                if suffix:
                    self._by_stem[path.name[: -len(suffix)]].append(path)

    def of(self, row: LabelRow) -> Path | str:
        """The file of a row; a text: why there is none."""
        if row.file:
            exact = self._folder / row.file
            if exact.is_file() and exact.resolve().is_relative_to(self._folder.resolve()):
                return exact
            return self._only(self._by_name.get(Path(row.file).name, []), row.file)
        if row.name:
            return self._only(self._by_stem.get(row.name, []), f"{row.name}.fits")
        return "names neither a file nor an id"

    def _only(self, found: Sequence[Path], name: str) -> Path | str:
        if len(found) == 1:
            return found[0]
        return f"{name} is {'several times' if found else 'not'} in {self._folder}"


def _suffix(name: str, suffixes: Sequence[str]) -> str:
    return next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")


class _Pixels:
    """Pixels in memory, as the mosaics want images."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values
        self.shape: tuple[int, int] = (values.shape[0], values.shape[1])

    def window(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """See :class:`scanner.sky.fits_image.FitsImage`."""
        return self._values[y0:y1, x0:x1]

    def close(self) -> None:
        """There is no file to let go of."""


#: Band → (pixels, header, noise where it is there).
_Planes = dict[Band, tuple[NDArray[Any], fits.Header, NDArray[Any] | None]]


@contextmanager
def _opened_file(path: Path, row: LabelRow, scale_arcsec: float | None) -> Iterator[tuple[TileImages, str]]:
    """Open a file as a tile; yields it and the tile that its header says it was cut from, "" where it does not.

    Raises
    ------
    TileError
        It cannot be read as a cutout.
    ContentError
        Its pixels have the wrong scale, or none that is known.
    """
    if _suffix(path.name, _PICTURES):
        raise TileError(f"{path}: is a picture, whose grey values are no fluxes; give FITS or .npy.")
    regular_file(path, str(path))
    if path.stat().st_size > LARGEST_CUTOUT_BYTES:
        raise TileError(f"{path}: has {path.stat().st_size:,} bytes, too many for a cutout; cut from it with --tiles.")
    planes = _read_array(path) if _suffix(path.name, ARRAY_SUFFIXES) else _read_fits(path)
    if "VIS" not in planes or not np.isfinite(planes["VIS"][0]).any():
        raise TileError(f"{path}: has no VIS image; name its extension VIS.")
    vis = _mosaic("VIS", planes["VIS"], row, path, scale_arcsec)
    mosaics: dict[Band, Mosaic] = {"VIS": vis}
    for band in BANDS[1:]:
        there = band in planes and bool(np.isfinite(planes[band][0]).any())
        mosaics[band] = _mosaic(band, planes[band], row, path, scale_arcsec) if there else AbsentBand(band, vis)
    header = planes["VIS"][1]
    tile_name = next((str(header[key]).strip() for key in _TILE_KEYS if key in header), "")
    with TileImages(mosaics, ScratchFolder(None)) as images:
        yield images, tile_name


def _mosaic(
    band: Band,
    plane: tuple[NDArray[Any], fits.Header, NDArray[Any] | None],
    row: LabelRow,
    path: Path,
    scale_arcsec: float | None,
) -> Mosaic:
    pixels, header, rms = plane
    if "CTYPE1" not in header:
        if scale_arcsec is None:
            raise ContentError(f"{path}: has no WCS; state the width of its pixels with --scale ARCSEC.")
        header = header.copy()
        header.update(_plain_wcs(pixels.shape, scale_arcsec, row).to_header())
    mosaic = Mosaic(f"{path}[{band}]", band, _Pixels(pixels), header, rms=None if rms is None else _Pixels(rms))
    scale = mosaic.pixel_scale_arcsec
    if scale_arcsec is not None and band == "VIS" and abs(scale / scale_arcsec - 1) > SCALE_TOLERANCE:
        raise ContentError(
            f'{path}: its WCS says that the {band} pixels are {scale:.4g}" wide, and --scale says {scale_arcsec:g}"; leave out '
            "--scale, or import files of one scale at a time."
        )
    if band == "VIS" and abs(scale / VIS_PIXEL_SCALE_ARCSEC - 1) > SCALE_TOLERANCE:
        raise ContentError(
            f'{path}: the VIS pixels are {scale:.4g}" wide; they must be {VIS_PIXEL_SCALE_ARCSEC:g}", so resample the file, or '
            "give single images to scanner evaluate --known."
        )
    return mosaic


def _plain_wcs(shape: tuple[int, ...], scale_arcsec: float, row: LabelRow) -> WCS:
    """A tangent plane about the middle, north up, where the row's object is."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [row.ra, row.dec] if row.is_placed else [0.0, 0.0]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cdelt = [-scale_arcsec / 3600, scale_arcsec / 3600]
    return wcs


def _read_array(path: Path) -> _Planes:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TileError(f"{path}: is no array of numpy ({' '.join(str(error).split())}).") from None
    return {band: (plane, fits.Header(), None) for band, plane in _split(values, path).items()}


def _split(values: NDArray[Any], path: Path) -> dict[Band, NDArray[Any]]:
    """One plane a band, of one image or a cube of VIS, Y, J, H."""
    if values.dtype.kind not in "fiu" or values.ndim not in (2, 3) or (values.ndim == 3 and len(values) not in (1, len(BANDS))):
        raise TileError(f"{path}: holds {values.dtype} of the shape {values.shape}; give (n, n), or (4, n, n) of VIS, Y, J, H.")
    planes = values[None] if values.ndim == 2 else values
    return {band: np.asarray(plane, dtype=np.float32) for band, plane in zip(BANDS, planes, strict=False)}


def _read_fits(path: Path) -> _Planes:
    """Images of a file by band: of extensions by the words of their names, else one image, or a cube."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, memmap=False) as hdus:
                images = [
                    (hdu.name.upper(), np.asarray(hdu.data), hdu.header.copy())
                    for hdu in hdus
                    if getattr(hdu, "is_image", False) and len(hdu.shape) in (2, 3) and min(hdu.shape) > 0
                ]
                primary = hdus[0].header.copy()
    except Exception as error:  # a mangled file makes astropy raise nearly anything
        raise TileError(f"{path}: not a readable FITS file ({' '.join(str(error).split())[:200]}).") from None
    for _, _, header in images:
        shared = _TILE_CARD if "CTYPE1" in header else _SHARED_CARD
        header.update({card: primary[card] for card in primary if card not in header and shared.fullmatch(card)})
    named = {(band, name) for name, _, _ in images for band, word in _BAND_WORDS.items() if word.search(name)}
    science = [(name, values, header) for name, values, header in images if not _NO_IMAGE.search(name)]
    noise = {name: values for name, values, _ in science if re.search(r"RMS|NOISE", name)}
    science = [one for one in science if one[0] not in noise]
    if len(science) == 1:
        name, values, header = science[0]
        other: Band = next((band for band in BANDS if (band, name) in named), "VIS")
        planes = _split(values, path)
        return {band if len(planes) > 1 else other: (plane, header, None) for band, plane in planes.items()}
    found: _Planes = {}
    for band in BANDS:
        of_band = [one for one in science if (band, one[0]) in named]
        if len(of_band) > 1:
            raise TileError(f"{path}: extensions {of_band[0][0]} and {of_band[1][0]} are both of {band}; keep one.")
        for name, values, header in of_band:
            rms = next((values for other, values in noise.items() if (band, other) in named), None)
            if values.ndim != 2 or (rms is not None and rms.shape != values.shape):
                raise TileError(f"{path}: extension {name} is no two-dimensional image, or its RMS is of another shape.")
            found[band] = (values, header, rms)
    return found


def _cut_file(images: TileImages, row: LabelRow) -> CutoutBatch | None:
    """Cut the object of a file: at the row's position if it has one, else in the middle; None: it is not on the image."""
    height, width = images.vis.shape
    ra, dec = np.array([row.ra]), np.array([row.dec])
    if row.is_placed:
        x, y, _ = pixel_positions(images.vis, ra, dec)
        if not (-0.5 <= x[0] < width - 0.5 and -0.5 <= y[0] < height - 0.5):
            return None
    else:
        x, y = np.array([(width - 1) / 2]), np.array([(height - 1) / 2])
        if images.vis.wcs.wcs.crval.any():
            ra, dec = (np.asarray(value, dtype=np.float64) for value in images.vis.wcs.all_pix2world(x, y, 0))
    return next(cut(images, _targets([row], x, y, ra, dec), 1))


def _sky_field(targets: Targets) -> str:
    """A field of the sky for an object that is of no tile."""
    if not np.isfinite(targets.ra[0]):
        return ""
    return f"healpix-{FIELD_ORDER}-{int(cell_numbers(targets.ra, targets.dec, FIELD_ORDER)[0])}"
