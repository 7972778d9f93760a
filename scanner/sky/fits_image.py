"""One two-dimensional image of a FITS file, read by windows: memory-mapped if plain, block by block if compressed."""

from __future__ import annotations

import math
import mmap
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from astropy.io import fits
from numpy.typing import DTypeLike, NDArray

from scanner.errors import TileError
from scanner.records import Float64, ImageRef
from scanner.sky.local_files import ScratchFolder, local_path, refuse_endless, regular_file, uncompressed

#: Most bytes of one mapped file that stay in memory.
RESIDENT_BYTES = 64 << 20
#: Rows that a tiled (RICE …) image decompresses at a time, and how many such blocks are kept.
_BLOCK_ROWS = 128
_BLOCKS = 3
_FITS_BLOCK = 2880
#: Most pixels of an image, and of one of the tiles that it is compressed in: far more than a tile of a survey has.
LARGEST_PIXELS, LARGEST_COMPRESSED_TILE = 10**10, 4 * 10**8
_DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


class FitsImage(Protocol):
    """What the mosaics need of an image."""

    shape: tuple[int, int]

    def window(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """Physical values of a window that lies inside the image; perhaps a view, of any dtype and byte order."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class MappedImage:
    """Raw pixels somewhere in a file, memory-mapped.

    Parameters
    ----------
    file
        Open for reading; may be closed afterwards.
    offset
        Byte of the first pixel.
    shape
        (rows, columns).
    dtype
        Of the pixels in the file.
    scale, zero
        ``value = zero + scale * pixel`` (BSCALE, BZERO).
    blank
        Integer that stands for no value (BLANK).
    """

    def __init__(
        self,
        file: IO[bytes],
        offset: int,
        shape: tuple[int, int],
        dtype: DTypeLike,
        *,
        scale: float = 1.0,
        zero: float = 0.0,
        blank: int | None = None,
    ) -> None:
        self.shape = shape
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._pixels = np.frombuffer(self._map, np.dtype(dtype), shape[0] * shape[1], offset).reshape(shape)
        self._row_bytes = self._pixels.strides[0]
        self._offset = offset
        self._scale, self._zero = scale, zero
        self._blank = blank if self._pixels.dtype.kind in "iu" else None
        self._touched: tuple[int, int] | None = None

    @np.errstate(over="ignore", invalid="ignore")  # whatever a file holds: what is no number in the end is a bad pixel
    def window(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """See :class:`FitsImage`."""
        self._touch(y0, y1)
        raw = self._pixels[y0:y1, x0:x1]
        if self._blank is not None:
            values = raw * self._scale + self._zero
            values[raw == self._blank] = np.nan
            return np.asarray(values)
        if (self._scale, self._zero) == (1.0, 0.0):
            return raw
        if raw.dtype.kind in "iu" and self._scale == 1.0 and self._zero.is_integer():
            return raw.astype(np.int64) + int(self._zero)
        return raw * self._scale + self._zero

    def _touch(self, y0: int, y1: int) -> None:
        """Keep count of the rows in memory, and drop them all when there are too many: the kernel still caches the file."""
        low, high = (y0, y1) if self._touched is None else (min(self._touched[0], y0), max(self._touched[1], y1))
        if (high - low) * self._row_bytes > RESIDENT_BYTES:
            start = (self._offset + low * self._row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, start, self._offset + high * self._row_bytes - start)
            low, high = y0, y1
        self._touched = (low, high)

    def close(self) -> None:
        """See :class:`FitsImage`. The map goes with the last window that looks into it."""
        del self._pixels


class TiledImage:
    """A tile-compressed image; rows are decompressed in blocks, the latest of which are kept."""

    def __init__(self, hdus: fits.HDUList, hdu: fits.CompImageHDU, name: str) -> None:
        self.shape = (int(hdu.shape[0]), int(hdu.shape[1]))
        self._hdus, self._hdu, self._name = hdus, hdu, name
        self._blocks: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def window(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """See :class:`FitsImage`."""
        pieces = []
        for block in range(y0 // _BLOCK_ROWS, (max(y1, y0 + 1) - 1) // _BLOCK_ROWS + 1):
            first = block * _BLOCK_ROWS
            with self._lock:
                rows = self._block(block)
            pieces.append(rows[max(y0 - first, 0) : y1 - first, x0:x1])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _block(self, block: int) -> NDArray[Any]:
        if block in self._blocks:
            self._blocks.move_to_end(block)
            return self._blocks[block]
        first = block * _BLOCK_ROWS
        try:
            rows = np.asarray(self._hdu.section[first : min(first + _BLOCK_ROWS, self.shape[0])])
        except Exception as error:  # the decompressors raise whatever a damaged stream makes them stumble over
            raise TileError(f"{self._name}: the compressed image is damaged near row {first} ({error}).") from None
        self._blocks[block] = rows
        if len(self._blocks) > _BLOCKS:
            self._blocks.popitem(last=False)
        return rows

    def close(self) -> None:
        """See :class:`FitsImage`."""
        self._blocks.clear()
        self._hdus.close()


def open_image(ref: ImageRef, scratch: ScratchFolder) -> tuple[FitsImage, fits.Header]:
    """Open one image of a FITS file.

    Plain images are never read whole, and the pages that were touched are given back, so that a file of any size costs tens of
    megabytes.

    Parameters
    ----------
    ref
        ``extension=None`` means the first HDU with a two-dimensional image.
    scratch
        Where a gzip file is decompressed to.

    Raises
    ------
    TileError
        No FITS file, no such extension, no image in it, or a truncated file.
    OutputError
        The scratch folder is full.
    """
    path, name = local_path(ref.path), ref.name
    plain = uncompressed(regular_file(path, name), scratch)
    # Opened here: astropy leaves what it opened itself open where it stumbles over a header. Not mapped: of a tiled image, a
    # map would keep every compressed byte that was ever read in memory.
    refuse_endless(plain, name)
    file = plain.open("rb")
    try:
        with _reading(name):
            hdus = fits.open(file, memmap=False, lazy_load_hdus=True)
            hdu = _choose(hdus, ref, name)
            _refuse_size(hdu, name)
            header = hdu.header.copy()
            if isinstance(hdu, fits.CompImageHDU):
                _check_size(plain, hdu.fileinfo()["datLoc"] + hdu.fileinfo()["datSpan"] - _FITS_BLOCK + 1, name)
                return TiledImage(hdus, hdu, name), header
            image = _map(plain, hdu, header, name)
    except BaseException:
        file.close()
        raise
    hdus.close()
    return image, header


def read_image(ref: ImageRef) -> tuple[Float64, fits.Header]:
    """Read one small image whole: (ny, nx) float64, NaN where it is not finite, and its header.

    Raises
    ------
    TileError
        See :func:`open_image`.
    """
    with closing(ScratchFolder(None)) as scratch:
        image, header = open_image(ref, scratch)
        try:
            pixels = np.array(image.window(0, image.shape[0], 0, image.shape[1]), dtype=np.float64)
        finally:
            image.close()
    pixels[~np.isfinite(pixels)] = np.nan
    return pixels, header


@contextmanager
def _reading(name: str) -> Iterator[None]:
    with warnings.catch_warnings():
        # What astropy warns of here (truncation, odd cards) is either checked below or does not matter.
        warnings.simplefilter("ignore")
        try:
            yield
        except TileError:
            raise
        except OSError as error:
            # astropy's first sentence says what is wrong; what follows is meant for programmers.
            reason = error.strerror or str(error).splitlines()[0].partition(", this file does not")[0].rstrip(".")
            raise TileError(f"{name}: not a readable FITS file ({reason}).") from None
        except Exception as error:  # a mangled header makes astropy raise nearly anything
            raise TileError(f"{name}: not a readable FITS file ({type(error).__name__}: {error}).") from None


def _choose(hdus: fits.HDUList, ref: ImageRef, name: str) -> Any:
    if ref.extension is None:
        for hdu in hdus:
            if _is_image(hdu):
                return hdu
        raise TileError(f"{name}: holds no two-dimensional image.")
    try:
        hdu = hdus[ref.extension]
    except (KeyError, IndexError):
        there = ", ".join(f"{number}={hdu.name or 'unnamed'}" for number, hdu in enumerate(hdus))
        raise TileError(f"{name}: has no extension {ref.extension!r}; there are {there}.") from None
    if not _is_image(hdu):
        raise TileError(f"{name}: extension {ref.extension!r} holds no two-dimensional image.")
    return hdu


def _refuse_size(hdu: Any, name: str) -> None:
    """Refuse what a few bytes declare and no machine could read: a sparse file, a compressed image of one value."""
    if math.prod(hdu.shape) > LARGEST_PIXELS:
        raise TileError(f"{name}: has {hdu.shape[1]:,} × {hdu.shape[0]:,} pixels; that is no mosaic.")
    if isinstance(hdu, fits.CompImageHDU) and math.prod(hdu.tile_shape) > LARGEST_COMPRESSED_TILE:
        raise TileError(f"{name}: is compressed in tiles of {math.prod(hdu.tile_shape):,} pixels; decompress it.")


def _is_image(hdu: Any) -> bool:
    return bool(getattr(hdu, "is_image", False)) and len(hdu.shape) == 2 and min(hdu.shape) > 0


def _map(plain: Path, hdu: Any, header: fits.Header, name: str) -> MappedImage:
    start = hdu.fileinfo()["datLoc"]
    _check_size(plain, start + hdu.size, name)
    blank = header.get("BLANK")
    with plain.open("rb") as file:
        return MappedImage(
            file,
            start,
            (int(hdu.shape[0]), int(hdu.shape[1])),
            _DTYPES[int(header["BITPIX"])],
            scale=float(header.get("BSCALE", 1.0)),
            zero=float(header.get("BZERO", 0.0)),
            blank=None if blank is None else int(blank),
        )


def _check_size(plain: Path, needed: int, name: str) -> None:
    """A map beyond the end of its file ends in a bus error, which no Python can catch."""
    size = plain.stat().st_size
    if size < needed:
        raise TileError(f"{name}: the file is truncated ({size} bytes, its header asks for {needed}); fetch it again.")
