"""Images of sharper telescopes, such as HST and JWST, as Euclid would have taken them: its PSF, pixels, units and noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from reproject import reproject_interp

from scanner.atomic_file import write_atomically
from scanner.errors import OutputError, TileError, UsageError
from scanner.records import BANDS, VIS_PIXEL_SCALE_ARCSEC, Band, BandFiles, FailedTile, Float32, Float64, Record, Tile
from scanner.simulation.telescope import noise
from scanner.simulation.telescope.psf import mean_psf
from scanner.sky.fits_image import read_image
from scanner.sky.mosaic import ab_zero_point, celestial_wcs
from scanner.sky.regrid import centred, gaussian, matching_kernel

RECORD_FILE, LIST_FILE = "euclidised.json", "tile-list.txt"
#: Half the side of a matching kernel: Euclid's wings are gone there.
_REACH_ARCSEC = 3.0
#: A kernel that raises any frequency by more than this sharpens: the image is no better than Euclid's.
_MOST_GAIN = 1.25
#: Share of a kernel's weight that may lie on bad pixels.
_MOST_BAD = 0.02


class EuclidisedBand(Record):
    """What became of one image.

    ``source``: the file; ``zero_point``: its AB zero point; ``scale_arcsec``: side of its pixels; ``psf``: its PSF, a file or
    the FWHM of a Gaussian. ``gain``: the most that any spatial frequency was raised. ``sigma_before``: noise in Euclid's units
    after matching, as :func:`scatter` measures it; ``sigma``: what Euclid's sky has, at the depth asked for. ``as_noisy``:
    nothing but photon noise was added, as the source is no deeper than that.
    """

    image: str
    source: str
    zero_point: float
    scale_arcsec: float
    psf: str
    gain: float
    sigma_before: float
    sigma: float
    as_noisy: bool


class EuclidisedTile(Record):
    """A tile of the new list, with the ``seed`` of its noise and its ``depth``, exposure time in units of Euclid's."""

    tile_id: str
    seed: int
    depth: float
    bands: dict[Band, EuclidisedBand]

    @property
    def line(self) -> str:
        """What the tile is in a tile list beside its folder."""
        return " ".join([f"id={self.tile_id}", *(f"{band}={self.tile_id}/{made.image}" for band, made in self.bands.items())])


class EuclidisedRecord(Record):
    """``euclidised.json``: the tiles of the new list, and those that could not be made."""

    tiles: tuple[EuclidisedTile, ...]
    failed: tuple[FailedTile, ...] = ()


@dataclass(frozen=True)
class Sharp:
    """An image to be degraded: ``pixels`` (ny, nx) in Euclid's units, NaN where bad; ``psf`` sums to one, on its own pixels."""

    pixels: Float32
    wcs: WCS
    scale_arcsec: float
    zero_point: float
    psf: Float64
    psf_name: str


def euclidise(
    tile: Tile,
    out: Path,
    *,
    seed: int = 1,
    depth: float = 1.0,
    fwhm_arcsec: Mapping[Band, float] | None = None,
    zero_points: Mapping[Band, float] | None = None,
) -> EuclidisedTile:
    """Write a tile of Euclid-like mosaics of a tile of images that are sharper and deeper.

    For each band: counts become Euclid's by the AB zero point; the image is convolved with the kernel whose transfer function
    is that of Euclid's mean PSF, its 0.1″ pixel included, over the image's own, then sampled at Euclid's pixels, which keeps
    the flux; VIS has 0.1″ pixels, NISP the sum of 3 × 3 of them, on one grid in the orientation of the VIS image. Noise is
    added until the sky has Euclid's (:mod:`scanner.simulation.telescope.noise`): what the image has already is taken off in
    quadrature; the photons of its light are noisy in full.

    Parameters
    ----------
    tile
        Bands are what they stand for, such as ``VIS=f814w.fits Y=f115w.fits H=f160w.fits``, with WCS. ``VIS_PSF=`` and so on
        name images of their PSFs on the same pixels.
    out
        Folder for the mosaics; made if need be.
    seed
        Of the noise; the same seed and tile give the same bytes.
    depth
        Exposure time in units of Euclid's.
    fwhm_arcsec
        Of bands whose PSF is taken for a Gaussian, where the tile names no image of it.
    zero_points
        AB, of bands whose header does not tell.

    Returns
    -------
    EuclidisedTile
        What was done to every band.

    Raises
    ------
    TileError
        An image cannot be read, has no WCS, zero point or PSF, or is no sharper than Euclid's; the message names it.
    OutputError
        The folder cannot be written.
    """
    if depth <= 0:
        raise UsageError(f"--depth must be more than 0 (given: {depth:g}).")
    sharp = {
        band: read_sharp(files, band, (fwhm_arcsec or {}).get(band), (zero_points or {}).get(band))
        for band, files in tile.bands.items()
    }
    grid, shape = euclid_grid(sharp["VIS"])
    made: dict[Band, EuclidisedBand] = {}
    for band, image in sharp.items():
        pixels, gain = matched(image, band, grid, shape, str(tile.bands[band].image))
        number = np.random.SeedSequence([seed, BANDS.index(band), *tile.tile_id.encode()])
        observed, before, sigma = observed_at_depth(pixels, band, depth, np.random.Generator(np.random.PCG64(number)))
        path = out / f"EUC_MER_BGSUB-MOSAIC-{band if band == 'VIS' else f'NIR-{band}'}_{tile.tile_id}.fits"
        made[band] = EuclidisedBand(
            image=path.name,
            source=str(tile.bands[band].image),
            zero_point=image.zero_point,
            scale_arcsec=image.scale_arcsec,
            psf=image.psf_name,
            gain=gain,
            sigma_before=before,
            sigma=sigma,
            as_noisy=before >= sigma,
        )
        _write(path, observed, grid if band == "VIS" else grid[::3, ::3], band, made[band])
    return EuclidisedTile(tile_id=tile.tile_id, seed=seed, depth=depth, bands=made)


def euclidised_once(tile: Tile, out: Path, *, seed: int, depth: float, **sources: Any) -> EuclidisedTile:
    """As :func:`euclidise` into ``out``/tile_id, or what an earlier call made there of the same tile.

    Raises
    ------
    OutputError
        What is there was made of other images, or with other settings.
    """
    folder = out / tile.tile_id
    marker = folder / RECORD_FILE
    if marker.exists():
        found = EuclidisedTile.from_bytes(marker.read_bytes(), marker, f"remove {folder} and give the command again")
        same = (found.seed, found.depth) == (seed, depth)
        same &= {band: made.source for band, made in found.bands.items()} == {b: str(f.image) for b, f in tile.bands.items()}
        if not same:
            raise OutputError(f"{folder}: was made of other images or with other settings; choose another --out or remove it.")
        return found
    made = euclidise(tile, folder, seed=seed, depth=depth, **sources)
    write_atomically(marker, made.to_bytes())
    return made


def read_sharp(files: BandFiles, band: Band, fwhm_arcsec: float | None = None, zero_point: float | None = None) -> Sharp:
    """Read an image and its PSF.

    Raises
    ------
    TileError
        See :func:`euclidise`.
    """
    pixels, header = read_image(files.image)
    name = str(files.image)
    wcs = celestial_wcs(header, (pixels.shape[0], pixels.shape[1]), name)
    scales = 3600.0 * np.asarray(proj_plane_pixel_scales(wcs))
    scale = float(np.sqrt(scales.prod()))
    zero = ab_zero_point(header, scale) if zero_point is None else zero_point
    if not math.isfinite(zero):
        raise TileError(f"{name}: its header tells no AB zero point; give it with --zero-point.")
    if files.psf is not None:
        stamp, _ = read_image(files.psf)
        if not np.isfinite(stamp).all() or stamp.sum() <= 0 or max(stamp.shape) * scale > 60.0:
            raise TileError(f"{files.psf}: is no point-spread function; give one star on the pixels of {name}.")
        psf, psf_name = centred(stamp / stamp.sum()), str(files.psf)
    elif fwhm_arcsec is not None:
        psf, psf_name = gaussian(fwhm_arcsec / scale), f'Gaussian of FWHM {fwhm_arcsec:g}"'
    else:
        raise TileError(f"{name}: its PSF is not known; add {band}_PSF=FILE to the list or give --fwhm {band} ARCSEC.")
    gain = 10.0 ** (0.4 * (noise.ZERO_POINT[band] - zero))
    return Sharp((pixels * gain).astype(np.float32), wcs, scale, zero, psf, psf_name)


def euclid_psf(band: Band, psf: Float64, scale_arcsec: float) -> Float64:
    """Euclid's mean PSF, its pixel included, on an odd number of pixels of ``scale_arcsec``, no fewer than ``psf`` has."""
    side = max(2 * math.ceil(_REACH_ARCSEC / scale_arcsec) + 1, psf.shape[0])
    axis = (np.arange(side) - side // 2) * (scale_arcsec / VIS_PIXEL_SCALE_ARCSEC)
    euclid = mean_psf(band).values(axis[None, :], axis[:, None]).astype(np.float64)
    return np.asarray(euclid / euclid.sum())


def euclid_grid(vis: Sharp) -> tuple[WCS, tuple[int, int]]:
    """WCS and shape of the 0.1″ pixels that cover the VIS image in its own orientation, a multiple of three along each side."""
    ny, nx = vis.pixels.shape
    step = vis.scale_arcsec / VIS_PIXEL_SCALE_ARCSEC
    shape = (max(3, int(ny * step) // 3 * 3), max(3, int(nx * step) // 3 * 3))
    middle = (0.5 * (nx - 1), 0.5 * (ny - 1))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = vis.wcs.all_pix2world([middle], 0)[0]
    wcs.wcs.crpix = [0.5 * (shape[1] + 1), 0.5 * (shape[0] + 1)]
    # Directions of the image's axes about its middle, distortion included.
    around = vis.wcs.all_pix2world([[middle[0] + 1, middle[1]], [middle[0], middle[1] + 1]], 0)
    offset = np.asarray(around) - wcs.wcs.crval
    offset[:, 0] = (offset[:, 0] + 180.0) % 360.0 - 180.0
    offset[:, 0] *= math.cos(math.radians(wcs.wcs.crval[1]))
    unit = offset / np.linalg.norm(offset, axis=1)[:, None]
    # Square pixels: the second axis at a right angle to the first, on its own side.
    across = np.array([-unit[0, 1], unit[0, 0]])
    across *= np.sign(across @ unit[1])
    wcs.wcs.cdelt = [VIS_PIXEL_SCALE_ARCSEC / 3600.0] * 2
    wcs.wcs.pc = np.stack([unit[0], across], axis=1)
    return wcs, shape


def matched(image: Sharp, band: Band, grid: WCS, shape: tuple[int, int], name: str) -> tuple[Float32, float]:
    """The image with Euclid's PSF on Euclid's pixels, and the gain of :func:`matching_kernel`.

    Raises
    ------
    TileError
        It is no sharper than Euclid's.
    """
    # It brings all of scipy.stats, a second of processor time.
    from scipy.signal import oaconvolve

    kernel, gain = matching_kernel(image.psf, euclid_psf(band, image.psf, image.scale_arcsec))
    if gain > _MOST_GAIN or image.scale_arcsec > VIS_PIXEL_SCALE_ARCSEC * (1.0 if band == "VIS" else 3.0):
        raise TileError(f"{name}: is no sharper than Euclid's {band}, so it cannot be made like it; give a sharper image.")
    good = np.isfinite(image.pixels)
    smooth = oaconvolve(np.where(good, image.pixels, np.float32(0.0)), kernel.astype(np.float32), mode="same")
    if not good.all():
        weight = np.abs(kernel) / np.abs(kernel).sum()
        bad = oaconvolve((~good).astype(np.float32), weight.astype(np.float32), mode="same")
        far_from_good = (bad > _MOST_BAD).astype(np.float32)
    # A smooth image on pixels much smaller than its PSF: values between them follow from a cubic spline.
    values, _ = reproject_interp((smooth, image.wcs), grid, shape_out=shape, order="bicubic")
    values *= (VIS_PIXEL_SCALE_ARCSEC / image.scale_arcsec) ** 2
    if not good.all():
        masked, _ = reproject_interp((far_from_good, image.wcs), grid, shape_out=shape, order="nearest-neighbor")
        values[masked > 0] = np.nan
    return np.asarray(values if band == "VIS" else noise.bin3(values), dtype=np.float32), gain


def observed_at_depth(pixels: Float32, band: Band, depth: float, rng: np.random.Generator) -> tuple[Float32, float, float]:
    """Add the noise that brings an image in Euclid's units to Euclid's depth.

    Parameters
    ----------
    pixels
        VIS (ny, nx) on 0.1″ pixels, or NISP on 0.3″ ones; NaN where bad.
    band, depth
        Exposure time in units of Euclid's.
    rng
        Of the noise.

    Returns
    -------
    tuple
        The image; the robust scatter that it had, and that of Euclid's sky at this depth.
    """
    light = np.nan_to_num(pixels)
    native = band != "VIS"
    before = scatter(pixels, 3 if native else 5)
    sigma = (noise.NATIVE_NOISE_RATIO if native else 1.0) * noise.SKY_SIGMA[band] * depth**-0.5
    level = math.sqrt(max(0.0, 1.0 - (before / sigma) ** 2))
    white = rng.standard_normal(tuple(n if native else n + 2 for n in pixels.shape), dtype=np.float32)
    if native:
        grain: Any = white * noise.native_rms(light, band, level)
    else:
        grain = noise.vis_noise(white, np.pad(light, 1, mode="edge"), level)
    return np.asarray(pixels + np.float32(depth**-0.5) * grain, dtype=np.float32), before, sigma


def scatter(pixels: Float32, step: int) -> float:
    """Robust noise of an image that a galaxy may fill, from second differences over ``step`` pixels, which no slope enters.

    ``step``: beyond the reach of the noise's own correlation. NaN counts for nothing; 0 where there is nothing.
    """
    first, last, middle = slice(None, -2 * step), slice(2 * step, None), slice(step, -step)
    rows = pixels[first] - 2.0 * pixels[middle] + pixels[last]
    columns = pixels[:, first] - 2.0 * pixels[:, middle] + pixels[:, last]
    both = np.concatenate([rows.ravel(), columns.ravel()])
    both = both[np.isfinite(both)]
    return 1.4826 * float(np.median(np.abs(both))) / math.sqrt(6.0) if both.size else 0.0


def _write(path: Path, pixels: Float32, wcs: WCS, band: Band, made: EuclidisedBand) -> None:
    header = wcs.to_header(relax=True)
    header["RADESYS"] = "ICRS"
    header["MAGZERO"] = (noise.ZERO_POINT[band], "AB zero point")
    header["FILTER"] = band if band == "VIS" else f"NIR_{band}"
    header["BUNIT"] = ("adu", "flux = 10^(0.4 (MAGZERO - mag))")
    header["ORIGIN"] = ("scanner", "another telescope's image made Euclid-like")
    header["SRCZERO"] = (made.zero_point, "AB zero point of the source")
    header["SRCSIGMA"] = (made.sigma_before, "scatter before noise was added")
    header["HISTORY"] = f"from {Path(made.source).name}, PSF {Path(made.psf).name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.writeto(path, pixels, header, overwrite=True)
    except OSError as error:
        raise OutputError.of(path, error) from None
