"""The zarr store of a tile's cutouts: codecs of its pixels, its layout, two writers of the same bytes, and its reader."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from pydantic import Field, ValidationError
from zarr.codecs import BloscCodec, Crc32cCodec

from scanner.errors import ContentError, InputMissingError, OutputError
from scanner.records import (
    BANDS,
    IMAGE_SHAPES,
    Band,
    CodecName,
    CutoutBatch,
    Float32,
    Float64,
    Int64,
    Record,
    Targets,
)

SOFTENING_SIGMA = 16.0
STEPS_PER_ASINH = 128.0
CODE_OF_SKY = 128
NAN_CODE = np.int16(-32768)
_CLIP_SIGMA = np.float32(1e15)

_CODES = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.float64)
with np.errstate(over="ignore"):
    #: Pixel value in sigma above the sky, by code read as an unsigned integer.
    _SIGMA_OF_CODE = (SOFTENING_SIGMA * np.sinh(np.clip((_CODES - CODE_OF_SKY) / STEPS_PER_ASINH, -80, 80))).astype(np.float32)
_SIGMA_OF_CODE[int(NAN_CODE.view(np.uint16))] = np.nan


def encode(pixels: Float32, sky: Float32, sigma: Float32) -> NDArray[np.int16]:
    """Quantise images as ``compact`` does.

    ``compact``: linear steps of sigma/8 near the sky, steps of 1/128 of the value far above it: ``code = 128 + round(128
    asinh(u / 16))`` with ``u = (pixel - sky) / sigma``. The 128 keeps the high byte of nearly every code zero, which packs the
    noise 12 % tighter. Rounding moves a pixel by at most ``sqrt(1 + (u / 16)^2) / 16`` sigma (:func:`largest_error`), which
    adds 0.13 % to the variance of the noise. NaN is kept, as a reserved code; beyond 1e15 sigma the value is clipped.

    Parameters
    ----------
    pixels
        (..., height, width) float32; NaN where bad.
    sky, sigma
        (...) float32 in the units of the pixels; sigma is positive.

    Returns
    -------
    NDArray[np.int16]
        Codes in the shape of ``pixels``; :data:`NAN_CODE` where not finite.
    """
    u = pixels - sky[..., np.newaxis, np.newaxis]
    with np.errstate(over="ignore"):
        u /= sigma[..., np.newaxis, np.newaxis]
    np.clip(u, -_CLIP_SIGMA, _CLIP_SIGMA, out=u)
    u *= np.float32(1.0 / SOFTENING_SIGMA)
    np.arcsinh(u, out=u)
    u *= np.float32(STEPS_PER_ASINH)
    np.rint(u, out=u)
    u += np.float32(CODE_OF_SKY)
    np.nan_to_num(u, copy=False, nan=float(NAN_CODE))
    codes = u.astype(np.int16)
    infinite = np.isinf(pixels)
    if infinite.any():
        codes[infinite] = NAN_CODE
    return codes


def decode(codes: NDArray[np.int16], sky: Float32, sigma: Float32) -> Float32:
    """Undo :func:`encode` up to rounding.

    Parameters
    ----------
    codes
        (..., height, width) int16.
    sky, sigma
        (...) float32, those that the images were encoded with.

    Returns
    -------
    Float32
        Pixels, NaN where the code is :data:`NAN_CODE`.
    """
    pixels = _SIGMA_OF_CODE[codes.view(np.uint16)]
    pixels *= sigma[..., np.newaxis, np.newaxis]
    pixels += sky[..., np.newaxis, np.newaxis]
    return pixels


def largest_error(pixels: Float32, sky: Float32, sigma: Float32) -> Float64:
    """Bound of ``|decode(encode(pixel)) - pixel|`` in units of sigma, in the shape of ``pixels``.

    Half a step of the scale, with a few units of float32 rounding of the pixel and of its distance from the sky.
    """
    level = np.asarray(sky, dtype=np.float64)[..., np.newaxis, np.newaxis]
    noise = np.asarray(sigma, dtype=np.float64)[..., np.newaxis, np.newaxis]
    u = np.abs(pixels - level) / noise
    half_step = 0.5 / STEPS_PER_ASINH
    rounding = 4 * np.finfo(np.float32).eps * (np.abs(level) / noise + np.abs(pixels) / noise)
    return np.asarray(np.hypot(SOFTENING_SIGMA, u) * np.sinh(half_step) * (1 + 5e-3) + u * 1e-5 + rounding)


@dataclass(frozen=True)
class Codec:
    """How the pixels of cutouts are stored.

    ``dtype``, ``fill_value``: of the stored arrays. ``compressor``: blosc's ``cname``, ``clevel`` and ``shuffle``.
    ``bytes_per_object``: of all four bands. ``encode``, ``decode``: from pixels to what is stored and back, with the sky and
    sigma of each image. ``largest_error``: bound of what that changes in a pixel, in sigma; None: nothing is lost.
    """

    dtype: np.dtype[Any]
    fill_value: float
    compressor: tuple[Literal["lz4", "zstd"], int, Literal["shuffle", "bitshuffle"]]
    bytes_per_object: int
    encode: Callable[[NDArray[Any], Float32, Float32], NDArray[Any]]
    decode: Callable[[NDArray[Any], Float32, Float32], Float32]
    largest_error: Callable[[Float32, Float32, Float32], Float64] | None


def _as_it_is(pixels: NDArray[Any], sky: Float32, sigma: Float32) -> NDArray[Any]:
    return pixels


#: Measured on noisy galaxies (benchmarks/storing.py): byte-shuffled zstd packs the codes tightest; on float32 nothing gains
#: more than a few per cent over lz4, and none is as fast.
CODECS: dict[CodecName, Codec] = {
    "exact": Codec(np.dtype(np.float32), np.nan, ("lz4", 5, "bitshuffle"), 190_000, _as_it_is, _as_it_is, None),
    "compact": Codec(np.dtype(np.int16), int(NAN_CODE), ("zstd", 1, "shuffle"), 37_000, encode, decode, largest_error),
}


#: Objects per file and per separately compressed chunk: one object is read in 2 ms, and a shard is 8 to 45 MB.
SHARD_OBJECTS = 256
CHUNK_OBJECTS = 16
ROWS_PER_CHUNK = 65536
#: Type and shape of every per-object column, in the order of the layout; the first are those of the targets.
COLUMNS: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {
    "target_id": (np.int64, ()),
    "ra": (np.float64, ()),
    "dec": (np.float64, ()),
    "x": (np.float64, ()),
    "y": (np.float64, ()),
    "magnitude": (np.float32, ()),
    "x0": (np.int64, ()),
    "y0": (np.int64, ()),
    "offset": (np.float32, (2,)),
    "bad_fraction": (np.float32, (len(BANDS),)),
    "sky": (np.float32, (len(BANDS),)),
    "sigma": (np.float32, (len(BANDS),)),
    "flags": (np.uint32, ()),
}
_TARGET_COLUMNS = tuple(COLUMNS)[:6]


class StoreAttributes(Record):
    """Attributes of the zarr group. ``wcs``: FITS cards of the VIS mosaic; a cutout's own CRPIX is less by (x0, y0)."""

    format_version: Literal[1] = 1
    tile_id: str
    n_objects: int = Field(ge=0)
    codec: CodecName
    softening_sigma: float = SOFTENING_SIGMA
    steps_per_asinh: float = STEPS_PER_ASINH
    code_of_sky: int = CODE_OF_SKY
    nan_code: int = int(NAN_CODE)
    bands: tuple[Band, ...] = BANDS
    units: dict[Band, str]
    zero_points: dict[Band, float | None]
    wcs: str


def store_attributes(
    tile_id: str, wcs_header: str, zero_points: Mapping[Band, float], units: Mapping[Band, str], codec: CodecName
) -> StoreAttributes:
    """Attributes of an empty store; the arguments are those of :class:`CutoutWriter`."""
    return StoreAttributes(
        tile_id=tile_id,
        n_objects=0,
        codec=codec,
        units={band: units.get(band, "") for band in BANDS},
        zero_points={band: _finite_or_none(zero_points.get(band, np.nan)) for band in BANDS},
        wcs=wcs_header,
    )


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _stored(batch: CutoutBatch, codec: CodecName) -> dict[str, NDArray[Any]]:
    """``vis`` and ``nisp`` as they are stored, by name of the array."""
    encode = CODECS[codec].encode
    return {
        "vis": encode(batch.vis, batch.sky[:, 0], batch.sigma[:, 0]),
        "nisp": encode(batch.nisp, batch.sky[:, 1:], batch.sigma[:, 1:]),
    }


def column_values(batch: CutoutBatch) -> dict[str, NDArray[Any]]:
    """Copies of the per-object columns of a batch."""
    return {name: np.array(getattr(batch.targets if name in _TARGET_COLUMNS else batch, name)) for name in COLUMNS}


def _create_images(group: zarr.Group, n_objects: int, codec: CodecName) -> dict[str, zarr.Array[Any]]:
    how = CODECS[codec]
    name, level, shuffle = how.compressor
    blosc = BloscCodec(cname=name, clevel=level, shuffle=shuffle, typesize=how.dtype.itemsize)
    return {
        name: group.create_array(
            name,
            shape=(n_objects, *shape),
            chunks=(CHUNK_OBJECTS, *shape),
            shards=(SHARD_OBJECTS, *shape),
            dtype=how.dtype,
            fill_value=how.fill_value,
            compressors=(blosc, Crc32cCodec()),
            config={"write_empty_chunks": True},
        )
        for name, shape in IMAGE_SHAPES.items()
    }


def _create_columns(group: zarr.Group, values: dict[str, list[NDArray[Any]]]) -> None:
    """Write the per-object columns; ``values``: their parts, in order, by name."""
    for name, (dtype, shape) in COLUMNS.items():
        rows = np.concatenate([np.empty((0, *shape), dtype), *values[name]]).astype(dtype, copy=False)
        blosc = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=np.dtype(dtype).itemsize)
        array = group.create_array(
            name,
            shape=rows.shape,
            chunks=(ROWS_PER_CHUNK, *shape),
            dtype=dtype,
            compressors=(blosc, Crc32cCodec()),
            config={"write_empty_chunks": True},
        )
        array[...] = rows


def _partial(path: Path) -> Path:
    """Where a store is written until it is complete."""
    return path.with_name(path.name + ".partial")


class CutoutWriter:
    """Writes one store; a context manager. The store appears under its name when the block ends without an error.

    Parameters
    ----------
    path
        Folder to make; must not exist.
    tile_id
        Recorded in the attributes.
    wcs_header
        WCS cards of the VIS mosaic, one after another (``astropy.wcs.WCS.to_header_string``); "" where there is no sky.
    zero_points
        AB magnitude of one unit per band; NaN where unknown.
    units
        BUNIT per band; "" where unknown.
    codec
        ``"exact"`` or ``"compact"``.

    Raises
    ------
    OutputError
        The folder exists, or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tile_id: str,
        wcs_header: str,
        zero_points: Mapping[Band, float],
        units: Mapping[Band, str],
        codec: CodecName,
    ) -> None:
        self.path = Path(path)
        self._partial = _partial(self.path)
        self._attributes = store_attributes(tile_id, wcs_header, zero_points, units, codec)
        dtype = CODECS[codec].dtype
        self._buffers = {name: np.empty((SHARD_OBJECTS, *shape), dtype) for name, shape in IMAGE_SHAPES.items()}
        self._rows: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
        self._buffered = 0
        self._written = 0
        if self.path.exists():
            raise OutputError(f"{self.path}: a cutout store is already there; remove it or choose another folder.")
        try:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._group = zarr.create_group(self._partial, zarr_format=3)
            self._images = _create_images(self._group, 0, codec)
        except OSError as error:
            raise self._cannot_write(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            shutil.rmtree(self._partial, ignore_errors=True)

    def append(self, batch: CutoutBatch) -> None:
        """Add the objects of a batch, in their order.

        Raises
        ------
        OutputError
            The disk is full or the folder has gone.
        """
        for name, values in column_values(batch).items():
            self._rows[name].append(values)
        stored = _stored(batch, self._attributes.codec)
        start = 0
        while start < len(batch):
            stop = min(len(batch), start + SHARD_OBJECTS - self._buffered)
            target = slice(self._buffered, self._buffered + stop - start)
            for name, images in stored.items():
                self._buffers[name][target] = images[start:stop]
            self._buffered = target.stop
            start = stop
            if self._buffered == SHARD_OBJECTS:
                self._flush()

    def close(self) -> None:
        """Write what is buffered and give the store its name.

        Raises
        ------
        OutputError
            The disk is full or the folder has gone.
        """
        self._flush()
        try:
            _create_columns(self._group, self._rows)
            attributes = self._attributes.model_copy(update={"n_objects": self._written})
            self._group.attrs.put(attributes.model_dump(mode="json"))
            self._partial.rename(self.path)
        except OSError as error:
            raise self._cannot_write(error) from None

    def _flush(self) -> None:
        if not self._buffered:
            return
        stop = self._written + self._buffered
        try:
            for name, array in self._images.items():
                array.resize((stop, *IMAGE_SHAPES[name]))
                array[self._written : stop] = self._buffers[name][: self._buffered]
        except OSError as error:
            raise self._cannot_write(error) from None
        self._written, self._buffered = stop, 0

    def _cannot_write(self, error: OSError) -> OutputError:
        shutil.rmtree(self._partial, ignore_errors=True)
        return OutputError.of(self.path, error)


def begin_store(path: Path, attributes: StoreAttributes) -> None:
    """Make the arrays of a store of ``attributes.n_objects`` objects, without a pixel, unless they are there.

    Then several processes may write its shards (:func:`write_shards`), in any order, and one finishes it
    (:func:`finish_store`). What the disk refuses is raised as it is (OSError).
    """
    partial = _partial(path)
    if (partial / "zarr.json").exists():
        return
    # Renamed into place, so that a half-made folder is never taken for a store.
    making = path.with_name(path.name + ".new")
    shutil.rmtree(making, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)
    group = zarr.create_group(making, zarr_format=3)
    _create_images(group, attributes.n_objects, attributes.codec)
    group.attrs.put(attributes.model_dump(mode="json"))
    making.rename(partial)


def write_shards(path: Path, first: int, batch: CutoutBatch) -> None:
    """Write the images of a batch as rows ``first`` and following; a shard that is there is replaced.

    Raises
    ------
    ValueError
        The batch begins within a shard, or ends in one that is not the store's last.
    """
    group = zarr.open_group(_partial(path), mode="r+", zarr_format=3)
    attributes = StoreAttributes.model_validate(dict(group.attrs))
    stop = first + len(batch)
    if first % SHARD_OBJECTS or (stop % SHARD_OBJECTS and stop != attributes.n_objects):
        raise ValueError(f"rows {first} to {stop} are not whole shards of {SHARD_OBJECTS} objects")
    for name, images in _stored(batch, attributes.codec).items():
        _array(group, name)[first:stop] = images


def finish_store(path: Path, columns: dict[str, list[NDArray[Any]]]) -> None:
    """Write the per-object columns (their parts, in order, by name) and give the store its name."""
    partial = _partial(path)
    group = zarr.open_group(partial, mode="r+", zarr_format=3)
    for name in set(group.array_keys()) - set(IMAGE_SHAPES):
        del group[name]  # of an earlier attempt
    _create_columns(group, columns)
    partial.rename(path)


class CutoutStore:
    """Reads a finished store.

    One zarr v3 group holds ``vis`` (N, 200, 200) and ``nisp`` (N, 3, 66, 66; Y, J, H), and one row per object in ``target_id,
    ra, dec, x, y, magnitude, x0, y0, offset, bad_fraction, sky, sigma, flags``, all as :class:`~scanner.records.CutoutBatch`
    describes them. Images are sharded: one file of 256 objects, in chunks of 16, each with a checksum. The same cutouts give
    the same bytes, however they were divided into batches.

    Parameters
    ----------
    path
        Its folder.
    damaged
        Makes the error of a store that is damaged, of what is wrong with it: who opens a store knows what makes it whole.

    Raises
    ------
    InputMissingError
        There is nothing at ``path``.
    ContentError
        It is no cutout store, or arrays or shards of it are missing.
    """

    def __init__(self, path: str | Path, damaged: Callable[[str], ContentError] | None = None) -> None:
        self.path = Path(path)
        self._damaged = damaged
        if not self.path.exists():
            raise InputMissingError(f"{self.path}: no such cutout store.")
        try:
            group = zarr.open_group(self.path, mode="r", zarr_format=3)
            self.attributes = StoreAttributes.model_validate(dict(group.attrs))
            self._arrays = {name: _array(group, name) for name in (*IMAGE_SHAPES, *COLUMNS)}
        except (OSError, KeyError, ValueError, TypeError, ValidationError) as error:
            raise self._bad(f"not a cutout store ({type(error).__name__})") from None
        self._check_complete()

    def __len__(self) -> int:
        return self.attributes.n_objects

    @property
    def target_id(self) -> Int64:
        """Identifiers of all objects, (N,) int64."""
        return self._columns["target_id"]

    @property
    def ra(self) -> Float64:
        """Right ascension of all objects, (N,) float64 degrees."""
        return self._columns["ra"]

    @property
    def dec(self) -> Float64:
        """Declination of all objects, (N,) float64 degrees."""
        return self._columns["dec"]

    @property
    def bad_fraction(self) -> Float32:
        """Shares of bad pixels of all objects and bands, (N, 4) float32; 1 where a band is missing."""
        return self._columns["bad_fraction"]

    @property
    def targets(self) -> Targets:
        """All objects."""
        return Targets(**{name: self._columns[name] for name in _TARGET_COLUMNS})

    def read(self, index: int | slice | NDArray[Any]) -> CutoutBatch:
        """Read some objects; an integer gives a batch of one.

        Parameters
        ----------
        index
            Integer, slice, or integer or boolean array, as numpy would take it.

        Raises
        ------
        IndexError
            An index is out of range.
        ContentError
            A chunk is damaged.
        """
        rows = np.atleast_1d(np.arange(len(self))[index])
        contiguous = len(rows) > 0 and bool((np.diff(rows) == 1).all())
        images: dict[str, NDArray[Any]] = {}
        for name in IMAGE_SHAPES:
            try:
                array = self._arrays[name]
                images[name] = np.asarray(array[rows[0] : rows[-1] + 1] if contiguous else array.oindex[rows])
            except (OSError, ValueError, RuntimeError, TypeError) as error:
                raise self._bad(f"array {name!r} is damaged ({error})") from None
        columns = {name: values[rows] for name, values in self._columns.items()}
        decode, sky, sigma = CODECS[self.attributes.codec].decode, columns["sky"], columns["sigma"]
        images["vis"] = decode(images["vis"], sky[:, 0], sigma[:, 0])
        images["nisp"] = decode(images["nisp"], sky[:, 1:], sigma[:, 1:])
        targets = Targets(**{name: columns.pop(name) for name in _TARGET_COLUMNS})
        return CutoutBatch(targets=targets, **images, **columns)

    def batches(self, batch_size: int = SHARD_OBJECTS) -> Iterator[CutoutBatch]:
        """Go through the store in order, ``batch_size`` objects at a time."""
        for start in range(0, len(self), batch_size):
            yield self.read(slice(start, start + batch_size))

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        try:
            return {name: np.asarray(self._arrays[name][...]) for name in COLUMNS}
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise self._bad(f"a column is damaged ({error})") from None

    def _check_complete(self) -> None:
        pixels = CODECS[self.attributes.codec].dtype
        expected = {name: (pixels, shape) for name, shape in IMAGE_SHAPES.items()} | COLUMNS
        # zarr reads a missing file as fill values without a word.
        for name, array in self._arrays.items():
            if array.shape[0] != len(self):
                raise self._bad(f"array {name!r} has {array.shape[0]} rows instead of {len(self)}")
            dtype, shape = expected[name]
            if (array.dtype, array.shape[1:]) != (np.dtype(dtype), shape):
                raise self._bad(f"array {name!r} holds {array.dtype} of {array.shape[1:]}, not {np.dtype(dtype)} of {shape}")
            rows = SHARD_OBJECTS if name in IMAGE_SHAPES else ROWS_PER_CHUNK
            for shard in range(-(-len(self) // rows)):
                file = self.path.joinpath(name, "c", str(shard), *["0"] * (array.ndim - 1))
                if not file.is_file():
                    raise self._bad(f"the file {file.relative_to(self.path)} is missing")

    def _bad(self, reason: str) -> ContentError:
        if self._damaged is not None:
            return self._damaged(reason)
        return ContentError(f"{self.path}: {reason}; put a copy in its place, or make it again in another folder.")


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(name)
    return array
