"""FITS images written strip by strip, so that no mosaic is ever held in memory.

In: a header and strips of rows, bottom first. Out: a FITS file with one image in its primary HDU, complete only when all rows
were written: it grows under a temporary name and is renamed at the end. No dates, so equal pixels give equal bytes.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

_BLOCK = 2880
_BITPIX = {np.dtype(np.float32): -32, np.dtype(np.int32): 32}


class StripWriter:
    """Context manager that writes an (ny, nx) image of ``dtype`` (float32 or int32) to ``path``.

    ``cards``: header cards beyond the structural ones. Raises OSError where the file cannot be written and ValueError where
    the rows do not add up to ``shape``.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: Any, cards: fits.Header) -> None:
        self._path, self._shape, self._dtype = path, shape, np.dtype(dtype)
        self._rows = 0
        header = fits.Header()
        header["SIMPLE"] = (True, "conforms to FITS standard")
        header["BITPIX"] = _BITPIX[self._dtype]
        header["NAXIS"] = 2
        header["NAXIS1"], header["NAXIS2"] = shape[1], shape[0]
        header.extend(cards, unique=True)
        self._part = path.with_name(path.name + ".part")
        self._file = self._part.open("wb")
        self._file.write(header.tostring().encode("ascii"))

    def write(self, strip: NDArray[Any]) -> None:
        """Append rows (n, nx)."""
        if strip.ndim != 2 or strip.shape[1] != self._shape[1]:
            raise ValueError(f"{self._path}: strip of shape {strip.shape} in an image of shape {self._shape}")
        self._rows += len(strip)
        self._file.write(np.ascontiguousarray(strip, dtype=self._dtype.newbyteorder(">")).data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        complete = self._rows == self._shape[0]
        if kind is None and complete:
            self._file.write(b"\0" * (-self._file.tell() % _BLOCK))
        self._file.close()
        if kind is None and complete:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
        if kind is None and not complete:
            raise ValueError(f"{self._path}: {self._rows} of {self._shape[0]} rows written")
