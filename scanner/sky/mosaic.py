"""The mosaic of one band: its pixels by windows with the bad ones NaN, its WCS, zero point and unit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from astropy.coordinates import ICRS, BarycentricMeanEcliptic, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales, wcs_to_celestial_frame
from numpy.typing import NDArray

from scanner.errors import TileError, printable
from scanner.records import Band, BandFiles, Float32, Float64, ImageRef
from scanner.sky.fits_image import FitsImage, open_image
from scanner.sky.local_files import ScratchFolder
from scanner.sphere import unit_vectors

#: RMS at or above this marks a pixel without data (Euclid MER writes 1e16).
BAD_RMS = 1e15
MOST_WCS_AXES = 9
#: A tenth of a VIS pixel.
LARGEST_FRAME_ERROR_ARCSEC = 0.01
#: What the longitude of a celestial WCS is called: equatorial, galactic, ecliptic.
LONGITUDES = ("RA", "GLON", "ELON")
#: AB zero points of units of flux, keywords of zero points, and units of counts that are not divided by time.
_FLUX_UNITS = {"JY": 8.9, "MJY": 16.4, "UJY": 23.9, "NJY": 31.4}
_ZERO_KEYS = ("MAGZERO", "MAGZPT", "MAGZP", "ABMAGZP", "ZEROPNT", "ZEROPOIN", "AB_ZP", "ZP_AB")
_COUNTS = ("ELECTRONS", "COUNTS", "ELECTRON", "COUNT", "E-", "DN", "ADU")
#: Rows of a sample that tells whether a mosaic holds anything.
_SAMPLE_ROWS = 32
_STRIP_ROWS = 256


class Mosaic:
    """One band of one tile; a context manager. Made by :func:`open_mosaic`.

    Attributes
    ----------
    name
        The file and extension, for messages.
    band
        Which band it is.
    shape
        (ny, nx).
    wcs
        Celestial WCS in degrees: ICRS, whatever the frame and the equinox of the header, if ``in_icrs``, else as in the header.
    in_icrs
        Whether a turned projection is the same map in ICRS to 0.01"; otherwise the pixels have to be resampled.
    zero_point
        AB magnitude of one unit, see :func:`ab_zero_point`; NaN where the header tells none.
    unit
        BUNIT; "" where the header has none.
    pixel_scales_arcsec
        Along x and y.
    """

    def __init__(
        self,
        name: str,
        band: Band,
        image: FitsImage,
        header: fits.Header,
        *,
        rms: FitsImage | None = None,
        flag: FitsImage | None = None,
        flag_mask: int = 1,
        scratch: ScratchFolder | None = None,
    ) -> None:
        self.name = name
        self.band: Band = band
        self.shape = image.shape
        self.wcs = wcs_of_any_frame(header, self.shape, name)
        self.in_icrs = isinstance(celestial_frame(self.wcs), ICRS)
        with np.errstate(all="ignore"):
            if not np.isfinite(_corners(self.wcs, self.shape)).all():
                raise TileError(f"{name}: its WCS gives no position on the sky for its corners; check the header.")
            scales = proj_plane_pixel_scales(self.wcs) * 3600
        self.pixel_scales_arcsec = (float(scales[0]), float(scales[1]))
        self.zero_point = ab_zero_point(header, self.pixel_scale_arcsec)
        self.unit = printable(str(header.get("BUNIT", ""))).strip()
        self._image, self._rms, self._flag, self._flag_mask = image, rms, flag, flag_mask
        self._scratch = scratch

    @property
    def pixel_scale_arcsec(self) -> float:
        """Side of a square of a pixel's area."""
        return math.sqrt(self.pixel_scales_arcsec[0] * self.pixel_scales_arcsec[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        for image in (self._image, self._rms, self._flag):
            if image is not None:
                image.close()
        if self._scratch is not None:
            self._scratch.close()

    def read(self, y0: int, y1: int, x0: int, x1: int) -> Float32:
        """Copy a window, which may reach outside the image.

        Parameters
        ----------
        y0, y1, x0, x1
            Rows ``y0 … y1 - 1``, columns ``x0 … x1 - 1``.

        Returns
        -------
        Float32
            (y1 - y0, x1 - x0), native byte order. NaN outside the image, where a pixel is not finite, where the RMS is not
            between 0 and 1e15, and where FLAG has one of the bits of the mask.

        Raises
        ------
        TileError
            A compressed image is damaged there.
        """
        out = np.empty((y1 - y0, x1 - x0), dtype=np.float32)
        self.read_into(out, y0, x0)
        return out

    def read_into(self, out: Float32, y0: int, x0: int) -> None:
        """Fill a contiguous array with the window whose first pixel is (x0, y0); otherwise as :meth:`read`."""
        height, width = out.shape
        rows, columns = self.shape
        top, bottom = max(y0, 0), min(y0 + height, rows)
        left, right = max(x0, 0), min(x0 + width, columns)
        inside = out
        if (bottom - top, right - left) != out.shape:
            out.fill(np.nan)
            if bottom <= top or right <= left:
                return
            inside = out[top - y0 : bottom - y0, left - x0 : right - x0]
        self._copy(inside, top, bottom, left, right)

    def view(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.float32] | None:
        """A window where it lies in the file, in the file's byte order; None where it has to be copied by :meth:`read`.

        There is a view if the pixels are plain float32, the window is inside the image and there are no companions. Pixels
        that are not finite are in it as they are.
        """
        inside = y0 >= 0 and x0 >= 0 and y1 <= self.shape[0] and x1 <= self.shape[1]
        if not inside or self._rms is not None or self._flag is not None:
            return None
        pixels = self._image.window(y0, y1, x0, x1)
        return pixels if pixels.dtype.kind == "f" and pixels.dtype.itemsize == np.dtype(np.float32).itemsize else None

    @np.errstate(over="ignore", invalid="ignore")  # whatever a file holds: what is no number in the end is a bad pixel
    def _copy(self, out: Float32, top: int, bottom: int, left: int, right: int) -> None:
        pixels = self._image.window(top, bottom, left, right)
        out[...] = pixels
        if self._rms is not None:
            rms = self._rms.window(top, bottom, left, right).astype(np.float32)
            if not (rms.min() > 0 and rms.max() < BAD_RMS):
                np.copyto(out, np.nan, where=~((rms > 0) & (rms < BAD_RMS)))
        if self._flag is not None:
            flags = self._flag.window(top, bottom, left, right)
            flags = flags if flags.dtype.kind in "iu" else flags.astype(np.int64)
            # Bits that the file has no room for are set in no pixel. With the mask in the file's byte order, as if it were the
            # machine's, no pixel has to be turned round.
            mask = np.array(self._flag_mask, dtype=np.uint64).astype(flags.dtype)
            native = flags.dtype.newbyteorder("=")
            hit = flags.view(native) & mask.view(native)
            if hit.any():
                np.copyto(out, np.nan, where=hit != 0)
        # A sum is finite only if every pixel is; it costs a quarter of looking at each, and einsum does not warn of overflow.
        if not math.isfinite(np.einsum("ij->", out)):
            np.copyto(out, np.nan, where=~np.isfinite(out))

    def good_fraction(self) -> float:
        """Share of good pixels, from 32 rows spread over the mosaic.

        Raises
        ------
        TileError
            The whole mosaic holds not one good pixel.
        """
        rows, columns = self.shape
        sample = np.unique(np.linspace(0, rows - 1, min(rows, _SAMPLE_ROWS)).round().astype(int))
        good = [int(np.isfinite(self.read(row, row + 1, 0, columns)).sum()) for row in sample.tolist()]
        if not sum(good) and not any(bool(np.isfinite(strip).any()) for strip in self._strips()):
            raise TileError(f"{self.name}: the {self.band} mosaic holds not one good pixel (all NaN or masked).")
        return sum(good) / (len(good) * columns)

    def repainted(self, paint: Callable[[FitsImage], FitsImage]) -> Mosaic:
        """The same mosaic with other pixels, which ``paint`` makes of its own; to be used while this one is open."""
        twin = copy(self)
        twin._image = paint(self._image)
        return twin

    @property
    def has_rms(self) -> bool:
        """Whether there is an RMS map."""
        return self._rms is not None

    def read_rms(self, y0: int, y1: int, x0: int, x1: int) -> Float32:
        """Copy a window of the RMS map that lies inside the image; NaN where it is no number between 0 and 1e15."""
        assert self._rms is not None
        rms = self._rms.window(y0, y1, x0, x1).astype(np.float32)
        rms[~((rms > 0) & (rms < BAD_RMS))] = np.nan
        return rms

    def median_rms(self) -> float:
        """Median of the good pixels of the RMS map, from 32 rows spread over it; NaN where there is none."""
        if self._rms is None:
            return math.nan
        rows, columns = self.shape
        sample = np.unique(np.linspace(0, rows - 1, min(rows, _SAMPLE_ROWS)).round().astype(int))
        rms = np.concatenate([self._rms.window(row, row + 1, 0, columns) for row in sample.tolist()]).astype(np.float64)
        rms = rms[(rms > 0) & (rms < BAD_RMS)]
        return float(np.median(rms)) if rms.size else math.nan

    def _strips(self) -> Iterator[NDArray[np.float32]]:
        rows, columns = self.shape
        for first in range(0, rows, _STRIP_ROWS):
            yield self.read(first, min(first + _STRIP_ROWS, rows), 0, columns)


class AbsentBand(Mosaic):
    """A NISP band that its tile does not have: the pixels of VIS, none of them good."""

    def __init__(self, band: Band, vis: Mosaic) -> None:
        self.name, self.band = f"no {band} mosaic", band
        self.shape, self.wcs, self.in_icrs, self.pixel_scales_arcsec = vis.shape, vis.wcs, True, vis.pixel_scales_arcsec
        self.zero_point, self.unit = math.nan, ""

    def close(self) -> None:
        """Do nothing: there are no files."""

    def read_into(self, out: Float32, y0: int, x0: int) -> None:
        """Fill a window with NaN."""
        out.fill(np.nan)

    def view(self, y0: int, y1: int, x0: int, x1: int) -> None:
        """There are no pixels to look at."""

    def repainted(self, paint: Callable[[FitsImage], FitsImage]) -> Mosaic:
        """Nothing can be painted here."""
        return self

    def good_fraction(self) -> float:
        """Not one."""
        return 0.0

    def median_rms(self) -> float:
        """There is none."""
        return math.nan


class _NoiseOfWeight:
    """A map of the inverse variance as one of the RMS: infinite where the weight is not positive."""

    def __init__(self, weight: FitsImage) -> None:
        self._weight, self.shape, self.close = weight, weight.shape, weight.close

    @np.errstate(divide="ignore", invalid="ignore")
    def window(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.float64]:
        """See :class:`~scanner.sky.fits_image.FitsImage`."""
        weight = self._weight.window(y0, y1, x0, x1).astype(np.float64)
        return np.where(weight > 0, weight**-0.5, np.inf)


def open_mosaic(
    files: BandFiles,
    *,
    band: Band,
    flag_mask: int = 1,
    weight: ImageRef | None = None,
    scratch: Path | ScratchFolder | None = None,
) -> Mosaic:
    """Open the mosaic of one band. Only headers are read, unless a file is gzip-compressed.

    Parameters
    ----------
    files
        The image and its companions.
    band
        Which band it is.
    flag_mask
        Bits of FLAG that make a pixel bad.
    weight
        Map of the inverse variance, of use where there is no RMS map.
    scratch
        Folder for decompressed files, which the caller removes; None: a temporary one.

    Raises
    ------
    TileError
        A file cannot be read as an image, has no celestial WCS, or a companion has another shape.
    OutputError
        The scratch folder is full.
    """
    own = None if isinstance(scratch, ScratchFolder) else ScratchFolder(scratch)
    folder = scratch if isinstance(scratch, ScratchFolder) else own
    assert folder is not None
    images: list[FitsImage] = []
    try:
        image, header = open_image(files.image, folder)
        images.append(image)
        rms, flag, variance = (_companion(ref, folder, image, files.image, images) for ref in (files.rms, files.flag, weight))
        if rms is None and variance is not None:
            rms = _NoiseOfWeight(variance)
        return Mosaic(
            str(files.image),
            band,
            image,
            header,
            rms=rms,
            flag=flag,
            flag_mask=flag_mask,
            scratch=own,
        )
    except BaseException:
        for opened in images:
            opened.close()
        if own is not None:
            own.close()
        raise


def _companion(
    ref: ImageRef | None, folder: ScratchFolder, image: FitsImage, name: ImageRef, images: list[FitsImage]
) -> FitsImage | None:
    if ref is None:
        return None
    companion, _ = open_image(ref, folder)
    images.append(companion)
    if companion.shape != image.shape:
        raise TileError(f"{ref}: has {companion.shape} pixels, but its image {name} has {image.shape}.")
    return companion


def celestial_wcs(header: fits.Header, shape: tuple[int, int], name: str) -> WCS:
    """Read the celestial WCS of an image, in ICRS; ``name`` is the file, for messages.

    Raises
    ------
    TileError
        There is no celestial WCS, or one that cannot be understood, or turned into ICRS to 0.01" all over the image.
    """
    wcs = wcs_of_any_frame(header, shape, name)
    frame = celestial_frame(wcs)
    if not isinstance(frame, ICRS):
        equinox = getattr(frame, "equinox", None)
        of = f" of equinox {equinox.value}" if equinox is not None else ""
        raise TileError(f"{name}: its positions are {frame.name.upper()}{of}, not ICRS; resample it with 'scanner prepare'.")
    return wcs


@np.errstate(all="ignore")  # whatever a header holds: what is no number in the end is refused
def wcs_of_any_frame(header: fits.Header, shape: tuple[int, int], name: str) -> WCS:
    """Read the celestial WCS of an image; ``name`` is the file, for messages.

    It is in ICRS where that is but a turn of the header's projection, right to 0.01" all over the image: of equatorial,
    galactic and ecliptic coordinates of any equinox in a zenithal projection. Otherwise it is the header's own.

    Raises
    ------
    TileError
        There is no celestial WCS, or one that cannot be understood.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for key in header["WCSAXES*"]:
                # Given more, wcslib ends the process.
                if not (isinstance(header[key], int) and 0 <= header[key] <= MOST_WCS_AXES):
                    raise ValueError(f"{key} is {header[key]!r}")
            wcs = WCS(header).celestial
            usable = wcs.naxis == 2 and wcs.wcs.lngtyp in LONGITUDES and bool((proj_plane_pixel_scales(wcs) > 0).all())
            if usable:
                celestial_frame(wcs)
        except Exception as error:  # wcslib has its own exceptions for every way in which a header can be wrong
            # Its first line names a line of wcslib's own code.
            reason = str(error).strip().splitlines()[-1].rstrip(".") if str(error).strip() else type(error).__name__
            raise TileError(f"{name}: its WCS cannot be understood ({reason}).") from None
    if not usable:
        raise TileError(f"{name}: has no celestial WCS (CTYPE RA/DEC, GLON/GLAT or ELON/ELAT, CRVAL, CRPIX, CD).")
    return _in_icrs(wcs, shape)


def celestial_frame(wcs: WCS) -> Any:
    """The frame of a celestial WCS, of astropy's; ecliptic coordinates, which astropy does not map, are of the barycentre.

    Raises
    ------
    ValueError
        The frame is none that is known.
    """
    if wcs.wcs.lngtyp == "ELON":
        equinox = wcs.wcs.equinox if np.isfinite(wcs.wcs.equinox) else 2000.0
        return BarycentricMeanEcliptic(equinox=Time(equinox, format="jyear"))
    return wcs_to_celestial_frame(wcs)


def _in_icrs(wcs: WCS, shape: tuple[int, int]) -> WCS:
    """The same map from pixels to the sky in ICRS, if there is one: frames differ by a rotation, FK4 nearly so.

    A rotation moves the reference point of a zenithal projection, which is its native pole, and turns the direction of north
    there, LONPOLE (Calabretta & Greisen 2002, section 2.4). Where that is not right all over the image, the WCS stays.
    """
    frame = celestial_frame(wcs)
    if isinstance(frame, ICRS):
        return wcs
    turned, wrong = wcs.deepcopy(), math.inf
    x, y = (axis.ravel() for axis in np.meshgrid(*[np.linspace(0, size - 1, 3) for size in shape[::-1]]))
    # astropy and wcslib have their own exceptions for values that are no positions.
    with suppress(Exception):
        reference = SkyCoord(*wcs.wcs.crval, unit="deg", frame=frame)
        turned.wcs.crval = [reference.icrs.ra.deg, reference.icrs.dec.deg]
        north = SkyCoord(0.0, 90.0, unit="deg", frame="icrs").transform_to(frame)
        turned.wcs.lonpole = wcs.wcs.lonpole - reference.position_angle(north).deg
        # GLON-TAN, ELON-TAN-SIP: the projection and what follows begin with the fifth letter.
        turned.wcs.ctype = [f"{axis}{ctype[4:]}" for axis, ctype in zip(("RA--", "DEC-"), wcs.wcs.ctype, strict=True)]
        turned.wcs.radesys, turned.wcs.equinox = "ICRS", 2000.0
        turned.wcs.set()
        here = SkyCoord(*wcs.all_pix2world(x, y, 0), unit="deg", frame=frame).icrs
        wrong = here.separation(SkyCoord(*turned.all_pix2world(x, y, 0), unit="deg")).arcsec.max()
    return turned if wrong < LARGEST_FRAME_ERROR_ARCSEC else wcs


def ab_zero_point(header: fits.Header, pixel_scale_arcsec: float) -> float:
    """AB magnitude of one unit of an image; NaN where its header tells none.

    Known are the usual names of a zero point, units of flux (``BUNIT`` nJy and the like), JWST's and Roman's MJy/sr, and HST's
    ``PHOTFLAM`` and ``PHOTPLAM`` with ZP = -2.5 log₁₀ PHOTFLAM - 5 log₁₀ PHOTPLAM - 2.408 of counts per second (of counts,
    with ``EXPTIME``).
    """
    found = next((value for key in _ZERO_KEYS if math.isfinite(value := _number(header.get(key)))), math.nan)
    if math.isfinite(found):
        return found
    unit = str(header.get("BUNIT", "")).strip().upper().replace(" ", "")
    if unit in _FLUX_UNITS:
        return _FLUX_UNITS[unit]
    if unit in ("MJY/SR", "MJYSR-1", "MJY.SR-1"):
        # Here M is mega: the surface brightness times a pixel's solid angle, in Jy.
        area = _number(header.get("PIXAR_SR", math.radians(pixel_scale_arcsec / 3600.0) ** 2))
        return 8.9 - 2.5 * math.log10(1e6 * area) if area > 0 else math.nan
    flam, pivot, exposure = (_number(header.get(key)) for key in ("PHOTFLAM", "PHOTPLAM", "EXPTIME"))
    if not (flam > 0 and pivot > 0):
        return math.nan
    zero_point = -2.5 * math.log10(flam) - 5.0 * math.log10(pivot) - 2.408
    if unit not in _COUNTS:
        return zero_point
    return zero_point + 2.5 * math.log10(exposure) if exposure > 0 else math.nan


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def area_deg2(wcs: WCS, shape: tuple[int, int]) -> float:
    """Area of a mosaic on the sky: the spherical quadrilateral of its outer corners, as two triangles.

    The solid angle of a triangle is that of Van Oosterom & Strackee (1983).

    Returns
    -------
    float
        Square degrees.
    """
    corners = unit_vectors(*_corners(wcs, shape))
    area = 0.0
    for i, j in ((1, 2), (2, 3)):
        a, b, c = corners[0], corners[i], corners[j]
        area += 2 * math.atan2(abs(float(np.dot(a, np.cross(b, c)))), float(1 + a @ b + b @ c + c @ a))
    return area * (180 / math.pi) ** 2


def outline(wcs: WCS, shape: tuple[int, int]) -> str:
    """A mosaic's outer corners as an ``s_region`` of the IVOA's ObsCore: ``POLYGON ICRS ra dec ra dec …``.

    Degrees to 1e-8 (0.04 mas), so that the last bits of a projection leave the text as it is.
    """
    corners = zip(*_corners(wcs, shape), strict=True)
    # A right ascension that rounds to 360 is 0.
    return "POLYGON ICRS " + " ".join(f"{round(ra, 8) % 360.0:.8f} {dec:.8f}" for ra, dec in corners)


def _corners(wcs: WCS, shape: tuple[int, int]) -> tuple[Float64, Float64]:
    """Right ascension and declination of the outer corners, in order along the edge, each (4,)."""
    ny, nx = shape
    longitude, latitude = wcs.all_pix2world([-0.5, nx - 0.5, nx - 0.5, -0.5], [-0.5, -0.5, ny - 0.5, ny - 0.5], 0)
    return longitude, latitude
