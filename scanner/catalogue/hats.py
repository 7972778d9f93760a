"""A catalogue as a folder of Parquet files in the HATS layout, written partition by partition."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy_healpix import neighbours

from scanner import __version__
from scanner.catalogue import columns
from scanner.catalogue.rank import text_order
from scanner.errors import OutputError
from scanner.records import Int64
from scanner.sphere import HEALPIX_ORDER, healpix_29

#: Deepest partition: pixels of 3.4', which no survey fills with more rows than a file can hold.
MAX_PARTITION_ORDER = 10
ROWS_PER_PARTITION = 500_000
#: A search by position decodes whole row groups: smaller ones are faster, until the footers that list them are not.
ROW_GROUP_ROWS = 16_384
_DIRECTORY_PIXELS = 10_000
#: A margin cache holds what lies so near outside a partition, in arcseconds, and what else is in the pixels of this order that
#: touch it: no way through one of them is shorter than 16 arcseconds.
MARGIN_ARCSEC, MARGIN_ORDER = 10, 13
COLLECTION = "collection.properties"


def partition_path(order: int, pixel: int) -> str:
    """Path below ``dataset`` of the file of a HEALPix pixel, as HATS lays it down."""
    directory = pixel // _DIRECTORY_PIXELS * _DIRECTORY_PIXELS
    return f"Norder={order}/Dir={directory}/Npix={pixel}.parquet"


@dataclass(frozen=True, order=True)
class Partition:
    """Rows ``start`` to ``stop`` of the sorted table, which are those of pixel ``pixel`` of order ``order``."""

    order: int
    pixel: int
    start: int
    stop: int

    @property
    def path(self) -> str:
        """Path of its file below ``dataset``."""
        return partition_path(self.order, self.pixel)

    @property
    def range(self) -> tuple[int, int]:
        """The HEALPix indices of order 29 in it, from the first to before the last."""
        shift = 2 * (HEALPIX_ORDER - self.order)
        return self.pixel << shift, (self.pixel + 1) << shift

    def margin(self) -> Int64:
        """The pixels of :data:`MARGIN_ORDER` outside that touch it, (M,) int64, ascending."""
        depth = MARGIN_ORDER - self.order
        along, side = np.arange(2**depth, dtype=np.int64), np.int64(2**depth - 1)
        edges = [(along, 0 * along), (along, 0 * along + side), (0 * along, along), (0 * along + side, along)]
        x, y = (np.concatenate(parts) for parts in zip(*edges, strict=True))
        # Nested numbers: the bits of x and y by turns.
        inside = np.full(len(x), self.pixel << 2 * depth, dtype=np.int64)
        for bit in range(depth):
            inside |= (x >> bit & 1) << 2 * bit | (y >> bit & 1) << 2 * bit + 1
        # Some pixels have seven neighbours; the eighth is -1, of which numpy complains.
        with np.errstate(invalid="ignore"):
            near = np.unique(neighbours(inside, 2**MARGIN_ORDER, order="nested"))
        return np.asarray(near[(near >= 0) & (near >> 2 * depth != self.pixel)], dtype=np.int64)


class HatsWriter:
    """A HATS catalogue in the making; made by :func:`hats_writer`.

    LSDB, DuckDB and plain Parquet readers open it (https://hats.readthedocs.io, as read by hats 0.11)::

        hats.properties                            what the catalogue is, and which columns are its position
        partition_info.csv                         the HEALPix pixels that hold rows
        dataset/_common_metadata, _metadata        schema (with units, descriptions, UCDs); statistics of all files
        dataset/Norder=k/Dir=d/Npix=n.parquet      rows of pixel n of order k, sorted by _healpix_29

    A *margin cache* is a catalogue of the same pixels; the rows of each are those near outside it.

    A pixel is split in four until it holds no more than ``rows_per_partition`` rows, so files are about equal whatever the
    density. There is no date in it: the same rows give the same bytes, whatever their order.

    Parameters
    ----------
    folder
        Where it is written; made here.
    name
        The catalogue's name, for its properties.
    schema
        Of the rows.
    rows_per_partition
        Most rows of one file.
    margin_of
        Name of the folder beside it that it is the margin cache of: then the rows of a partition are those near outside it.
    """

    def __init__(
        self, folder: Path, name: str, schema: pa.Schema, rows_per_partition: int, margin_of: str | None = None
    ) -> None:
        self._folder, self._name, self._schema, self._rows_per_partition = folder, name, schema, rows_per_partition
        self._margin_of, self.n_rows = margin_of, 0
        self._dataset = folder / "dataset"
        self._dataset.mkdir(parents=True)
        self._written: dict[Partition, pq.FileMetaData] = {}

    def write(self, part: Partition, rows: pa.Table) -> None:
        """Write one partition: all its rows, by HEALPix index; of a margin cache, those of its margin."""
        path = self._dataset / part.path
        path.parent.mkdir(parents=True, exist_ok=True)
        collected: list[pq.FileMetaData] = []
        # In one piece: pages end where pieces do.
        whole = columns.as_schema(rows, self._schema)
        pq.write_table(
            whole,
            path,
            compression="zstd",
            row_group_size=ROW_GROUP_ROWS,
            write_page_checksum=True,
            metadata_collector=collected,
        )
        collected[0].set_file_path(part.path)
        self._written[part] = collected[0]
        self.n_rows += len(rows)

    def close(self) -> tuple[Partition, ...]:
        """Write what is said of the whole; returns the partitions by order and pixel."""
        partitions = tuple(sorted(self._written))
        pq.write_metadata(self._schema, self._dataset / "_common_metadata")
        collected = [self._written[part] for part in partitions]
        pq.write_metadata(self._schema, self._dataset / "_metadata", metadata_collector=collected)
        lines = ["Norder,Npix", *(f"{part.order},{part.pixel}" for part in partitions)]
        (self._folder / "partition_info.csv").write_text("\n".join(lines) + "\n", encoding="ascii")
        properties = {
            "obs_collection": self._name,
            "dataproduct_type": "object" if self._margin_of is None else "margin",
            "hats_nrows": self.n_rows,
            "hats_col_ra": "ra",
            "hats_col_dec": "dec",
            "hats_col_healpix": columns.HEALPIX_COLUMN.name,
            "hats_col_healpix_order": HEALPIX_ORDER,
            "hats_order": max((part.order for part in partitions), default=0),
            "hats_max_rows": self._rows_per_partition,
            "hats_npix_suffix": ".parquet",
            "hats_builder": f"scanner {__version__}",
            "moc_sky_fraction": f"{sum(4.0**-part.order for part in partitions) / 12:.6g}",
        }
        if self._margin_of is not None:
            properties |= {"hats_primary_table_url": self._margin_of, "hats_margin_threshold": MARGIN_ARCSEC}
        text = "#HATS catalog\n" + "".join(f"{key}={value}\n" for key, value in properties.items())
        (self._folder / "hats.properties").write_text(text, encoding="utf-8")
        return partitions


@contextmanager
def hats_writer(
    folder: Path, name: str, schema: pa.Schema, rows_per_partition: int = ROWS_PER_PARTITION, margin_of: str | None = None
) -> Iterator[HatsWriter]:
    """Write a HATS catalogue; one that is there is replaced when the new one is complete.

    Parameters
    ----------
    folder
        The catalogue's folder.
    name, schema, rows_per_partition, margin_of
        As :class:`HatsWriter` takes them.

    Raises
    ------
    OutputError
        The folder holds something that is not a HATS catalogue.
    OSError
        It cannot be written.
    """
    if folder.exists() and not (folder / "hats.properties").exists() and any(folder.iterdir()):
        raise OutputError(f"{folder}: holds files that are not a catalogue of scanner; move them away.")
    partial = folder.with_name(f".{folder.name}.partial")
    _remove(partial)
    try:
        writer = HatsWriter(partial, name, schema, rows_per_partition, margin_of)
        yield writer
        writer.close()
        _remove(folder)
        partial.replace(folder)
    finally:
        _remove(partial)


def write_collection(folder: Path, name: str, catalogue: str, margin: str | None) -> None:
    """Say in a folder which catalogue and which margin cache in it belong together; LSDB opens the folder as both."""
    properties = {"obs_collection": name, "hats_primary_table_url": catalogue}
    if margin is not None:
        properties |= {"all_margins": margin, "default_margin": margin}
    text = "#HATS Collection\n" + "".join(f"{key}={value}\n" for key, value in properties.items())
    (folder / COLLECTION).write_text(text, encoding="utf-8")


def write_hats(table: pa.Table, folder: Path, name: str, rows_per_partition: int = ROWS_PER_PARTITION) -> tuple[Partition, ...]:
    """Write a table that memory holds as a HATS catalogue.

    Parameters
    ----------
    table
        N rows with finite ``ra`` and ``dec`` in degrees, ``target_id``, ``tile_id`` and ``run``.
    folder, name, rows_per_partition
        See :func:`hats_writer`, which also says what is raised.

    Returns
    -------
    tuple of Partition
        What was written, by order and pixel.
    """
    index = healpix_29(table["ra"].to_numpy(), table["dec"].to_numpy())
    order = np.lexsort((text_order(table["run"]), text_order(table["tile_id"]), table["target_id"].to_numpy(), index))
    position = table.schema.get_field_index(columns.HEALPIX_COLUMN.name)
    rows = columns.with_column(table, columns.HEALPIX_COLUMN, index, max(position, 0)).take(pa.array(order))
    partitions = partition(index[order], rows_per_partition)
    with hats_writer(folder, name, rows.schema, rows_per_partition) as writer:
        for part in partitions:
            writer.write(part, rows.slice(part.start, part.stop - part.start))
    return partitions


def partition(index: Int64, rows_per_partition: int, counts: Int64 | None = None) -> tuple[Partition, ...]:
    """Divide the sky so that no partition holds too many rows.

    Parameters
    ----------
    index
        (N,) int64, HEALPix indices of order 29, ascending.
    rows_per_partition
        Most rows of one partition, unless it is of :data:`MAX_PARTITION_ORDER`.
    counts
        (N,) int64: rows of each index, where it stands for the pixel of that order which it begins; else one.
    """
    rows_before = np.concatenate([[0], np.cumsum(np.ones(len(index), dtype=np.int64) if counts is None else counts)])
    whole = (part for pixel in range(12) for part in _divide(index, rows_before, 0, pixel, rows_per_partition))
    return tuple(sorted(whole))


def _divide(index: Int64, rows_before: Int64, order: int, pixel: int, rows_per_partition: int) -> Iterator[Partition]:
    shift = 2 * (HEALPIX_ORDER - order)
    start, stop = rows_before[np.searchsorted(index, [pixel << shift, (pixel + 1) << shift])].tolist()
    if start == stop:
        return
    if stop - start <= rows_per_partition or order == MAX_PARTITION_ORDER:
        yield Partition(order, pixel, start, stop)
        return
    for child in range(4 * pixel, 4 * pixel + 4):
        yield from _divide(index, rows_before, order + 1, child, rows_per_partition)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
