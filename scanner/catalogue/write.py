"""The catalogue of all objects as a folder of Parquet files in the HATS layout.

In: a table with ``ra`` and ``dec``. Out: a folder that LSDB, DuckDB and plain Parquet readers open::

    hats.properties                            what the catalogue is, and which columns are its position
    partition_info.csv                         the HEALPix pixels that hold rows
    dataset/_common_metadata, _metadata        schema (with units, descriptions, UCDs); statistics of all files
    dataset/Norder=k/Dir=d/Npix=n.parquet      rows of pixel n of order k, sorted by _healpix_29

A pixel is split in four until it holds no more than ``rows_per_partition`` rows, so files are about equal whatever the density.
There is no date in it: the same rows give the same bytes, whatever their order. Refused: a folder that holds something else.

Layout: HATS, https://hats.readthedocs.io, as read by hats 0.11.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanner import __version__
from scanner.catalogue import columns
from scanner.catalogue.rank import text_order
from scanner.errors import OutputError
from scanner.records import Int64
from scanner.sphere import HEALPIX_ORDER, healpix_29

#: Deepest partition: pixels of 3.4', which no survey fills with more rows than a file can hold.
MAX_PARTITION_ORDER = 10
ROWS_PER_PARTITION = 500_000
ROW_GROUP_ROWS = 65_536
_DIRECTORY_PIXELS = 10_000


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
        directory = self.pixel // _DIRECTORY_PIXELS * _DIRECTORY_PIXELS
        return f"Norder={self.order}/Dir={directory}/Npix={self.pixel}.parquet"


def write_hats(table: pa.Table, folder: Path, name: str, rows_per_partition: int = ROWS_PER_PARTITION) -> tuple[Partition, ...]:
    """Write a table as a HATS catalogue; one that is there is replaced when the new one is complete.

    Parameters
    ----------
    table
        N rows with finite ``ra`` and ``dec`` in degrees.
    folder
        The catalogue's folder.
    name
        The catalogue's name, for its properties.
    rows_per_partition
        Most rows of one file.

    Returns
    -------
    tuple of Partition
        What was written, by order and pixel.

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
        partitions = _write(table, partial, name, rows_per_partition)
        _remove(folder)
        partial.replace(folder)
    finally:
        _remove(partial)
    return partitions


def partition(index: Int64, rows_per_partition: int) -> tuple[Partition, ...]:
    """Divide the sky so that no partition holds too many rows.

    Parameters
    ----------
    index
        (N,) int64, HEALPix indices of order 29, ascending.
    rows_per_partition
        Most rows of one partition, unless it is of :data:`MAX_PARTITION_ORDER`.
    """
    return tuple(sorted(part for pixel in range(12) for part in _divide(index, 0, pixel, rows_per_partition)))


def _divide(index: Int64, order: int, pixel: int, rows_per_partition: int) -> Iterator[Partition]:
    shift = 2 * (HEALPIX_ORDER - order)
    start, stop = np.searchsorted(index, [pixel << shift, (pixel + 1) << shift]).tolist()
    if start == stop:
        return
    if stop - start <= rows_per_partition or order == MAX_PARTITION_ORDER:
        yield Partition(order, pixel, start, stop)
        return
    for child in range(4 * pixel, 4 * pixel + 4):
        yield from _divide(index, order + 1, child, rows_per_partition)


def _write(table: pa.Table, folder: Path, name: str, rows_per_partition: int) -> tuple[Partition, ...]:
    index = healpix_29(table["ra"].to_numpy(), table["dec"].to_numpy())
    by_place = np.lexsort((text_order(table["tile_id"]), table["target_id"].to_numpy(), index))
    rows = columns.with_column(table, columns.HEALPIX_COLUMN, index, position=0).take(pa.array(by_place))
    partitions = partition(index[by_place], rows_per_partition)
    dataset = folder / "dataset"
    dataset.mkdir(parents=True)
    collected: list[pq.FileMetaData] = []
    for part in partitions:
        path = dataset / part.path
        path.parent.mkdir(parents=True, exist_ok=True)
        own: list[pq.FileMetaData] = []
        slice_ = rows.slice(part.start, part.stop - part.start)
        pq.write_table(slice_, path, compression="zstd", row_group_size=ROW_GROUP_ROWS, metadata_collector=own)
        own[0].set_file_path(part.path)
        collected += own
    pq.write_metadata(rows.schema, dataset / "_common_metadata")
    pq.write_metadata(rows.schema, dataset / "_metadata", metadata_collector=collected)
    lines = ["Norder,Npix", *(f"{part.order},{part.pixel}" for part in partitions)]
    (folder / "partition_info.csv").write_text("\n".join(lines) + "\n", encoding="ascii")
    properties = {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": len(rows),
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": columns.HEALPIX_COLUMN.name,
        "hats_col_healpix_order": HEALPIX_ORDER,
        "hats_order": max((part.order for part in partitions), default=0),
        "hats_max_rows": rows_per_partition,
        "hats_npix_suffix": ".parquet",
        "hats_builder": f"scanner {__version__}",
        "moc_sky_fraction": f"{sum(4.0**-part.order for part in partitions) / 12:.6g}",
    }
    text = "#HATS catalog\n" + "".join(f"{key}={value}\n" for key, value in properties.items())
    (folder / "hats.properties").write_text(text, encoding="utf-8")
    return partitions


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
