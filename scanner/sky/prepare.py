"""Makes tiles on the grid that is scanned of any survey's images: any pixels, projection, frame, number of exposures."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from pydantic import Field

from scanner import __version__
from scanner.atomic_file import write_atomically
from scanner.errors import OutputError, TileError, UsageError
from scanner.processes import run_all
from scanner.records import (
    BANDS,
    MICROJANSKY_ZERO_POINT,
    Band,
    BandFiles,
    Float32,
    ImageRef,
    Record,
    ResamplingMethod,
)
from scanner.sky.alignment import STEP, map_pixels, refuse_scale
from scanner.sky.fits_image import read_image
from scanner.sky.local_files import ScratchFolder
from scanner.sky.mosaic import Mosaic, open_mosaic
from scanner.sky.regrid import (
    ImageFile,
    ImageToResample,
    blocks,
    centred,
    extent,
    gaussian,
    lattice_positions,
    matching_kernel,
    middle_of,
    plane_at,
    resampled,
    window_around,
)
from scanner.sphere import unit_vectors

#: Called with what is done, of how much, and the name of what is being done.
Report = Callable[[float, float, str], None]
RECORD_FILE, LIST_FILE = "prepared.json", "tile-list.txt"
#: VIS pixels along a tile, and those that neighbours share, so that every cutout lies in one of them.
TILE_PIXELS, OVERLAP_PIXELS = 9600, 240
#: Numbers of tiles count hundreds of pixels, so that those of any size have their own.
TILE_UNIT = 100
#: Farthest that a tile may lie from the point where its plane touches the sky: there the scale is 0.4 % off.
FARTHEST_DEG = 5.0
#: Pixels along a side of the grid where levels are compared.
_LEVEL_PIXELS = 256
#: The noise that a weight map tells may be another one than the image's by this factor: resampling hides some of it.
MOST_OFF = 4.0
#: A kernel that raises any frequency by more than this sharpens, and noise with it.
MOST_GAIN = 1.25


class Source(Record):
    """An image that tiles are made of: its files, the input that it stands for and, if that is to be changed, its PSF.

    ``weight``: a map of the inverse variance, in place of an RMS map. ``zero_point``: AB, of images whose header gives none;
    none: unknown. ``fwhm_arcsec``: of its PSF, where ``files`` names no image of it.
    """

    band: Band
    files: BandFiles
    weight: ImageRef | None = None
    zero_point: float | None = None
    fwhm_arcsec: float | None = None


class PrepareRequest(Record):
    """What is to be made.

    ``match_background``: subtract a level of each image, so that they agree where they overlap. ``fwhm_arcsec``: of the PSF
    that a band is to get; bands that are missing keep their own. ``name``: what ids of tiles begin with.
    """

    sources: tuple[Source, ...]
    name: str = Field(pattern=r"^[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,99}$")
    method: ResamplingMethod = "spline"
    tile_pixels: int = Field(TILE_PIXELS, ge=2 * OVERLAP_PIXELS, multiple_of=STEP)
    match_background: bool = False
    fwhm_arcsec: dict[Band, float] = Field(default_factory=dict)


class PreparedBand(Record):
    """One band of a prepared tile: files below the tile's folder, what they were made of, and the share that is good."""

    image: str
    rms: str | None
    flag: str
    sources: tuple[str, ...]
    zero_point: float | None
    good_fraction: float


class PreparedTile(Record):
    """``prepared.json``: a finished tile; ``fingerprint``: of the request and of the sizes and times of its files."""

    tile_id: str
    fingerprint: str
    bands: dict[Band, PreparedBand]

    @property
    def line(self) -> str:
        """The tile in a tile list beside its folder."""
        words = [f"id={self.tile_id}"]
        for band, made in self.bands.items():
            words.append(f"{band}={self.tile_id}/{made.image}")
            if made.rms is not None:
                words.append(f"{band}_RMS={self.tile_id}/{made.rms}")
            words.append(f"{band}_FLAG={self.tile_id}/{made.flag}")
        return " ".join(words)


def prepare(request: PrepareRequest, out: Path, report: Report = lambda done, total, what: None, workers: int = 1) -> Path:
    """Make tiles of images, and a list of them.

    The tiles are parts of one tangent plane of 0.1" pixels, north up, that covers the images of VIS; NISP bands have 0.3"
    pixels whose edges are edges of VIS pixels. Where images of a band overlap, a pixel is their mean, weighted by 1/RMS² where
    all of them have an RMS or weight map. A tile is there whole or not at all, and what an earlier call made stays.

    Parameters
    ----------
    request
        What to make. Images of VIS are needed; other bands need not cover all of it.
    out
        Folder for the tiles; made if need be.
    report
        Called with the tiles that are done, of how many, and the id of the one in hand.
    workers
        Processes that make tiles; each opens the images for itself. The files are the same.

    Returns
    -------
    Path
        The tile list.

    Raises
    ------
    TileError
        An image cannot be read or understood; the message names it.
    UsageError
        There is no image of VIS, or the images lie too far apart.
    OutputError
        The folder cannot be written, or holds tiles of another request.
    """
    if not any(source.band == "VIS" for source in request.sources):
        raise UsageError("No image of VIS is given; name one, as VIS=FILE, or by its filter's name.")
    with _opened(request, out) as opened:
        for source, mosaic in zip(request.sources, opened, strict=True):
            refuse_scale(mosaic)
            if source.weight is not None:
                _refuse_wrong_weight(source.weight, mosaic)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError.of(out, error) from None
        inputs = _inputs(request, opened)
        parts = _parts(request, opened)
        if workers == 1 or len(parts) == 1:
            _make(request, inputs, parts, out, report)
        else:
            known = {band: [(one.gain, one.level, one.kernel) for one in images] for band, images in inputs.items()}
    if workers > 1 and len(parts) > 1:
        # Some to each worker, so that images are opened, and unpacked, seldom; not too many, so that all end at one time.
        n = -(-len(parts) // (4 * workers))
        calls = [(request, known, first, first + n, out) for first in range(0, len(parts), n)]
        for done in run_all(_make_some, calls, workers):
            report(min(n * done, len(parts)), len(parts), "")
    made = [tile for part in parts if (tile := _found(out / part.tile_id)) is not None]
    if not made:
        raise TileError("None of the images of VIS has a good pixel; check their flags and RMS maps.")
    lines = [f"# made by scanner prepare {__version__}", *(tile.line for tile in made)]
    write_atomically(out / LIST_FILE, ("\n".join(lines) + "\n").encode())
    return out / LIST_FILE


@dataclass(frozen=True)
class _Part:
    """A tile of the common plane, with its WCS and ``shape``."""

    tile_id: str
    wcs: WCS
    shape: tuple[int, int]


#: Gain, level and kernel of an image, see :class:`~scanner.sky.regrid.ImageToResample`.
_Known = tuple[float, float, Float32 | None]


@contextmanager
def _opened(request: PrepareRequest, out: Path) -> Iterator[list[Mosaic]]:
    """The images of a request, in its order."""
    with ExitStack() as stack:
        scratch = ScratchFolder(None, out)
        stack.callback(scratch.close)
        yield [
            stack.enter_context(open_mosaic(one.files, band=one.band, weight=one.weight, scratch=scratch))
            for one in request.sources
        ]


def _refuse_wrong_weight(weight: ImageRef, mosaic: Mosaic) -> None:
    """Refuse a map that is no inverse variance: Hubble's pipelines, for one, weight by exposure time.

    The noise of an image is that of differences between pixels that are ten apart, which resampling has not correlated.

    Raises
    ------
    TileError
        No weight is positive, or the noise of the image is another one by more than a factor :data:`MOST_OFF`.
    """
    said = mosaic.median_rms()
    if not math.isfinite(said):
        raise TileError(f"{weight}: holds no positive weight; give a map of the inverse variance, or leave it out.")
    rows, columns = mosaic.shape
    strips = [mosaic.read(row, row + 1, 0, columns)[0] for row in np.unique(np.linspace(0, rows - 1, 64).astype(int)).tolist()]
    differences = np.concatenate([strip[10:] - strip[:-10] for strip in strips])
    differences = differences[np.isfinite(differences)]
    noise = 1.4826 * float(np.median(np.abs(differences))) / math.sqrt(2.0) if differences.size else 0.0
    if noise > 0 and not 1 / MOST_OFF < said / noise < MOST_OFF:
        raise TileError(
            f"{weight}: is no inverse variance, as its noise would be {said:.3g} where the image's is {noise:.3g}; give such a "
            "map or an RMS map, or name the images alone."
        )


def _parts(request: PrepareRequest, opened: Sequence[Mosaic]) -> list[_Part]:
    """The tiles of a request."""
    wcs, shape = _common_plane([mosaic for mosaic in opened if mosaic.band == "VIS"])
    return [
        _Part(f"{request.name}-{y0 // TILE_UNIT:04d}-{x0 // TILE_UNIT:04d}", _moved(wcs, x0, y0), size)
        for (y0, x0), size in _tiling(shape, request.tile_pixels)
    ]


def _make_some(request: PrepareRequest, known: Mapping[Band, Sequence[_Known]], first: int, stop: int, out: Path) -> None:
    """Make the tiles from ``first`` to ``stop`` in a process of its own."""
    with _opened(request, out) as opened:
        inputs = {
            band: [
                ImageToResample(mosaic, *one)
                for mosaic, one in zip((mosaic for mosaic in opened if mosaic.band == band), images, strict=True)
            ]
            for band, images in known.items()
        }
        # Not handed over: a WCS that travels as a header is rounded.
        _make(request, inputs, _parts(request, opened)[first:stop], out, lambda done, total, what: None)


def _make(
    request: PrepareRequest,
    inputs: Mapping[Band, Sequence[ImageToResample]],
    parts: Sequence[_Part],
    out: Path,
    report: Report,
) -> None:
    for number, part in enumerate(parts):
        _tile(request, inputs, part, out, partial(_said, report, number, len(parts), part.tile_id))


def _said(report: Report, number: int, n_tiles: int, tile_id: str, done: float) -> None:
    report(number + done, n_tiles, tile_id)


def _found(folder: Path) -> PreparedTile | None:
    """The tile that an earlier call, or this one, made; None: there is none."""
    marker = folder / RECORD_FILE
    if not marker.exists():
        return None
    return PreparedTile.from_bytes(marker.read_bytes(), marker, f"remove {folder} and give the command again")


def _inputs(request: PrepareRequest, opened: Sequence[Mosaic]) -> dict[Band, list[ImageToResample]]:
    """Opened images by band, with gains to µJy where all zero points of a band are known, levels and kernels."""
    found: dict[Band, list[ImageToResample]] = {}
    for band in BANDS:
        mine = [(source, mosaic) for source, mosaic in zip(request.sources, opened, strict=True) if source.band == band]
        zeros = [
            mosaic.zero_point
            if math.isfinite(mosaic.zero_point)
            else math.nan
            if source.zero_point is None
            else source.zero_point
            for source, mosaic in mine
        ]
        unknown = [mosaic.name for (_, mosaic), zero in zip(mine, zeros, strict=True) if not math.isfinite(zero)]
        if unknown and len(unknown) < len(mine):
            raise TileError(
                f"{unknown[0]}: its header tells no AB zero point, others of {band} do; give --zero-point {band} MAG."
            )
        gains = [1.0 if unknown else 10.0 ** (0.4 * (MICROJANSKY_ZERO_POINT - zero)) for zero in zeros]
        kernels = [_kernel(source, mosaic, request.fwhm_arcsec.get(band)) for source, mosaic in mine]
        inputs = [
            ImageToResample(mosaic, gain, kernel=kernel) for (_, mosaic), gain, kernel in zip(mine, gains, kernels, strict=True)
        ]
        if inputs:
            found[band] = _levelled(inputs) if request.match_background and len(inputs) > 1 else inputs
    return found


def _kernel(source: Source, mosaic: Mosaic, fwhm_arcsec: float | None) -> Float32 | None:
    """The kernel that gives an image a Gaussian PSF of this width; None where none is asked for."""
    if fwhm_arcsec is None:
        return None
    scale = mosaic.pixel_scale_arcsec
    if source.files.psf is not None:
        stamp, _ = read_image(source.files.psf)
        if not np.isfinite(stamp).all() or stamp.sum() <= 0:
            raise TileError(f"{source.files.psf}: is no point-spread function; give one star on the pixels of {mosaic.name}.")
        own = centred(stamp / stamp.sum())
    elif source.fwhm_arcsec is not None:
        own = gaussian(source.fwhm_arcsec / scale)
    else:
        raise TileError(f"{mosaic.name}: its PSF is not known; name an image of it or its width.")
    kernel, gain = matching_kernel(own, gaussian(fwhm_arcsec / scale))
    if gain > MOST_GAIN:
        raise TileError(
            f'{mosaic.name}: its PSF is wider than {fwhm_arcsec:g}", and sharpening raises the noise; ask for a wider one.'
        )
    return kernel.astype(np.float32)


def _levelled(inputs: list[ImageToResample]) -> list[ImageToResample]:
    """The same images with the levels that make them agree where they overlap; the mean level stays what it is."""
    wcs, shape = _common_plane([one.mosaic for one in inputs])
    step = max(1, -(-max(shape) // _LEVEL_PIXELS))
    coarse = (-(-shape[0] // step), -(-shape[1] // step))
    # Light of an arcsecond², which is the same however large a pixel is.
    values = [_sampled(one.mosaic, wcs, step, coarse) * (one.gain / one.mosaic.pixel_scale_arcsec**2) for one in inputs]
    rows, wanted = [np.full(len(inputs), 1.0)], [0.0]
    for i, j in combinations(range(len(inputs)), 2):
        difference = values[i] - values[j]
        n_common = int(np.isfinite(difference).sum())
        if n_common >= 10:
            row = np.zeros(len(inputs))
            row[i], row[j] = math.sqrt(n_common), -math.sqrt(n_common)
            rows.append(row)
            wanted.append(math.sqrt(n_common) * float(np.nanmedian(difference)))
    levels = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    return [
        replace(one, level=float(level) * one.mosaic.pixel_scale_arcsec**2 / one.gain)
        for one, level in zip(inputs, levels, strict=True)
    ]


def _sampled(mosaic: Mosaic, wcs: WCS, step: int, shape: tuple[int, int], patch: int = 32) -> Float32:
    """The nearest pixel of an image to every ``step``-th pixel of a grid, patch by patch; NaN outside and where bad."""
    found = np.full(shape, np.nan, dtype=np.float32)
    for top in range(0, shape[0], patch):
        for left in range(0, shape[1], patch):
            part = found[top : top + patch, left : left + patch]
            y, x = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in part.shape), indexing="ij")
            at_x, at_y = map_pixels(wcs, mosaic.wcs, step * (left + x), step * (top + y))
            near = np.isfinite(at_x) & np.isfinite(at_y)
            near &= (at_x > -0.5) & (at_x < mosaic.shape[1] - 0.5) & (at_y > -0.5) & (at_y < mosaic.shape[0] - 0.5)
            if near.any():
                column, row = np.rint(at_x[near]).astype(np.int64), np.rint(at_y[near]).astype(np.int64)
                x0, y0 = int(column.min()), int(row.min())
                part[near] = mosaic.read(y0, int(row.max()) + 1, x0, int(column.max()) + 1)[row - y0, column - x0]
    return found


def _common_plane(mosaics: Sequence[Mosaic]) -> tuple[WCS, tuple[int, int]]:
    """A tangent plane of 0.1" pixels, north up and east to the left, that covers images: WCS and shape.

    Raises
    ------
    UsageError
        They lie more than 5° from their middle.
    """
    directions = unit_vectors(*np.array([middle_of(mosaic) for mosaic in mosaics]).T)
    middle = directions.mean(axis=0) / np.linalg.norm(directions.mean(axis=0))
    wcs = plane_at(math.degrees(math.atan2(middle[1], middle[0])) % 360.0, math.degrees(math.asin(middle[2])))
    if np.degrees(np.arccos(np.clip(directions @ middle, -1, 1))).max() > FARTHEST_DEG:
        raise UsageError(f"The images lie more than {FARTHEST_DEG:g}° from their middle; prepare them in parts.")
    extents = [extent(mosaic, wcs) for mosaic in mosaics]
    low, high = np.min([one for one, _ in extents], axis=0), np.max([one for _, one in extents], axis=0)
    wcs.wcs.crpix = [1.0 - low[0], 1.0 - low[1]]
    wcs.wcs.set()
    return wcs, (int(high[1] - low[1]) + 1, int(high[0] - low[0]) + 1)


def _tiling(shape: tuple[int, int], tile_pixels: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """First pixels (y, x) and shapes of the tiles of a plane, multiples of three."""
    axes = []
    for length in shape:
        n = max(1, -(-(length - OVERLAP_PIXELS) // (tile_pixels - OVERLAP_PIXELS)))
        firsts = [number * (tile_pixels - OVERLAP_PIXELS) for number in range(n)]
        axes.append([(first, -(-min(tile_pixels, length - first) // STEP) * STEP) for first in firsts])
    for y0, height in axes[0]:
        for x0, width in axes[1]:
            yield (y0, x0), (height, width)


def _moved(wcs: WCS, x0: int, y0: int) -> WCS:
    moved = wcs.deepcopy()
    moved.wcs.crpix = wcs.wcs.crpix - np.array([x0, y0])
    moved.wcs.set()
    return moved


def _tile(
    request: PrepareRequest,
    inputs: Mapping[Band, Sequence[ImageToResample]],
    part: _Part,
    out: Path,
    report: Callable[[float], None],
) -> None:
    """Make a tile, or find it made; none is made where no pixel of VIS is good."""
    target, fingerprint = out / part.tile_id, _fingerprint(request, part.wcs, part.shape)
    if (found := _found(target)) is not None:
        if found.fingerprint != fingerprint:
            raise OutputError(f"{target}: was made of other images or settings; choose another --out or remove it.")
        return
    folder = out / f".{part.tile_id}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        made: dict[Band, PreparedBand] = {}
        for number, (band, images) in enumerate(inputs.items()):
            one = _band(request, band, images, part.wcs, part.shape, folder, partial(_of_band, report, number, len(inputs)))
            if one is None and band == "VIS":
                return
            if one is not None:
                made[band] = one
        tile = PreparedTile(tile_id=part.tile_id, fingerprint=fingerprint, bands=made)
        write_atomically(folder / RECORD_FILE, tile.to_bytes())
        folder.rename(target)
    except OSError as error:
        raise OutputError.of(out, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _of_band(report: Callable[[float], None], number: int, n_bands: int, done: float) -> None:
    report((number + done) / n_bands)


def _band(
    request: PrepareRequest,
    band: Band,
    images: Sequence[ImageToResample],
    wcs: WCS,
    shape: tuple[int, int],
    folder: Path,
    report: Callable[[float], None],
) -> PreparedBand | None:
    """Write the files of one band; None where none of its pixels is good."""
    step = 1 if band == "VIS" else STEP
    size = (shape[0] // step, shape[1] // step)
    stem = "VIS" if band == "VIS" else f"NIR-{band}"
    weighted = all(one.mosaic.has_rms for one in images)
    dtypes = {"image": ">f4", "flag": "u1"} | ({"rms": ">f4"} if weighted else {})
    names = {"image": f"{stem}.fits", "rms": f"{stem}-RMS.fits", "flag": f"{stem}-FLAG.fits"}
    outputs = {role: ImageFile(folder / names[role], size, np.dtype(dtype)) for role, dtype in dtypes.items()}
    used: set[str] = set()
    n_good = 0
    parts = list(blocks(size))
    for number, (top, left, part) in enumerate(parts):
        light, weight = np.zeros(part), np.zeros(part)
        for one in images:
            if window_around(one.mosaic, *lattice_positions(one.mosaic, wcs, step, top, left, part)) is None:
                continue
            found = resampled(one, wcs, step, top, left, part, request.method)
            good = np.isfinite(found.pixels)
            if weighted and found.rms is not None:
                good &= found.rms > 0
            if good.any():
                used.add(one.mosaic.name)
                own = found.rms[good].astype(np.float64) ** -2 if weighted and found.rms is not None else 1.0
                light[good] += own * found.pixels[good]
                weight[good] += own
        seen = weight > 0
        n_good += int(seen.sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            outputs["image"].put(top, left, (light / weight).astype(np.float32))
            if weighted:
                outputs["rms"].put(top, left, np.where(seen, weight**-0.5, np.nan).astype(np.float32))
        outputs["flag"].put(top, left, (~seen).astype(np.uint8))
        report((number + 1) / len(parts))
    header = _header(request, band, wcs, step, [one for one in images if one.mosaic.name in used])
    for output in outputs.values():
        output.finish(header)
    if not n_good:
        for output in outputs.values():
            output.path.unlink()
        return None
    return PreparedBand(
        image=names["image"],
        rms=names["rms"] if weighted else None,
        flag=names["flag"],
        sources=tuple(sorted(used)),
        zero_point=header.get("MAGZERO"),
        good_fraction=n_good / (size[0] * size[1]),
    )


def _header(request: PrepareRequest, band: Band, wcs: WCS, step: int, used: Sequence[ImageToResample]) -> fits.Header:
    own = wcs.deepcopy()
    own.wcs.crpix = (wcs.wcs.crpix - 0.5) / step + 0.5
    own.wcs.cdelt = wcs.wcs.cdelt * step
    header = own.to_header(relax=True)
    known = all(math.isfinite(one.mosaic.zero_point) or one.gain != 1.0 for one in used)
    if known:
        header["MAGZERO"] = (MICROJANSKY_ZERO_POINT, "AB magnitude of one unit")
    header["BUNIT"] = "uJy" if known else used[0].mosaic.unit if used else ""
    header["ORIGIN"] = (f"scanner {__version__}", "scanner prepare")
    header["INPUT"] = (band, "what this image stands for")
    header["RESAMPLE"] = (request.method, "how the images were resampled")
    header["NIMAGES"] = (len(used), "images that were resampled")
    if band in request.fwhm_arcsec:
        header["PSFFWHM"] = (request.fwhm_arcsec[band], "width of the PSF, arcsec")
    for one in used[:50]:
        zero = f", zero point {one.mosaic.zero_point:.4f}" if math.isfinite(one.mosaic.zero_point) else ""
        level = f", level {one.level:.6g} subtracted" if one.level else ""
        text = f"from {one.mosaic.name.rpartition('/')[2]}{zero}{level}"
        header["HISTORY"] = text.encode("ascii", "replace").decode()
    return header


def _fingerprint(request: PrepareRequest, wcs: WCS, shape: tuple[int, int]) -> str:
    digest = hashlib.sha256(request.model_dump_json().encode())
    digest.update(f"{wcs.to_header_string()} {shape}".encode())
    for source in request.sources:
        for reference in (source.files.image, source.files.rms, source.files.flag, source.files.psf, source.weight):
            # A file that was fetched lies in a folder of its version.
            if reference is not None and reference.origin is None:
                with suppress(OSError):
                    status = Path(reference.path).stat()
                    digest.update(f"{reference} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
