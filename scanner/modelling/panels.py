"""A candidate's model as a picture for people and as FITS: data, deflector removed, model, residual, source."""

from __future__ import annotations

import io
import math

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image, ImageDraw

from scanner.cutouts.framed import window_wcs
from scanner.modelling.candidate import SOURCE_PIXEL, SOURCE_SIDE, ModelImages
from scanner.modelling.lens_model import LensModel
from scanner.modelling.observation import NISP_SIDE
from scanner.modelling.psf import SIDE
from scanner.records import BANDS, NISP_PIXEL_SCALE_ARCSEC, VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC, Float32
from scanner.report.colour import UInt8
from scanner.simulation.lensing import Lens, Sightline, trace_with_jacobian

#: Names of the panels, from the left.
PANELS = ("data", "deflector removed", "lensed + others", "residual", "source")
_ZOOM, _GAP, _CAPTION = 2, 4, 14
PANEL = SIDE * _ZOOM
#: Where the stretch of images turns from linear to logarithmic, what is white (both in sigma), and the residuals' range.
_SOFTENING, _WHITE, _RANGE = 3.0, 60.0, 5.0
_CRITICAL, _CAUSTIC = (86, 180, 233), (230, 159, 0)


def picture(model: LensModel, images: ModelImages) -> bytes:
    """The VIS panels side by side as PNG, y upwards: the critical curve on the second, the caustics on the last."""
    sigma = np.maximum(images.noise[0], 1e-30)
    unlensed = images.data[0] - images.deflector[0]
    panels = [
        _grey(images.data[0] / sigma.min()),
        _grey(unlensed / sigma.min()),
        _grey((images.lensed[0] + images.companions[0]) / sigma.min()),
        _signed(np.asarray(images.residual(0) / sigma, dtype=np.float32)),
        _grey(images.source / max(float(np.nanmax(images.source)), 1e-30) * _WHITE),
    ]
    whole = Image.new("RGB", (len(panels) * (PANEL + _GAP) - _GAP, PANEL + _CAPTION), (255, 255, 255))
    pen = ImageDraw.Draw(whole)
    for number, (name, panel) in enumerate(zip(PANELS, panels, strict=True)):
        left = number * (PANEL + _GAP)
        whole.paste(
            Image.fromarray(np.ascontiguousarray(panel[::-1])).resize((PANEL, PANEL), Image.Resampling.NEAREST), (left, 0)
        )
        pen.text((left + 2, PANEL + 1), name, fill=(24, 24, 27))
    if model.mass is not None:
        lens = lens_of_record(model)
        critical, caustic = curves(lens, images)
        for x, y in critical:
            _dot(
                pen,
                PANEL + _GAP + (x - images.window_x) / VIS_PIXEL_SCALE_ARCSEC * _ZOOM,
                (y - images.window_y) / VIS_PIXEL_SCALE_ARCSEC * _ZOOM,
                PANEL + _GAP,
                _CRITICAL,
            )
        scale = PANEL / SOURCE_SIDE / SOURCE_PIXEL
        left = 4 * (PANEL + _GAP)
        for x, y in caustic:
            _dot(pen, left + (x - images.source_centre[0]) * scale, (y - images.source_centre[1]) * scale, left, _CAUSTIC)
    stream = io.BytesIO()
    whole.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, left: int, colour: tuple[int, int, int]) -> None:
    """A point of a curve, from the middle of the panel that begins at ``left``."""
    column, row = x + 0.5 * PANEL, 0.5 * PANEL - y
    if left <= column < left + PANEL and 0.0 <= row < PANEL:
        pen.point((column, row), fill=colour)


def lens_of_record(model: LensModel) -> Lens:
    """The mass of a record for :mod:`scanner.simulation.lensing`."""
    mass = model.mass
    assert mass is not None
    return Lens(mass.theta_e_arcsec, mass.q, mass.angle_rad, mass.x_arcsec, mass.y_arcsec, mass.gamma1, mass.gamma2)


def curves(lens: Lens, images: ModelImages) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Points of the tangential critical curve on the sky, and of the caustic behind it, arcsec."""
    turns = np.linspace(0.0, 2.0 * math.pi, 721)[:-1]
    low, high = np.full(turns.shape, 0.02 * lens.theta_e), np.full(turns.shape, 4.0 * lens.theta_e)
    # The determinant is negative inside the curve and positive outside.
    for _ in range(40):
        middle = 0.5 * (low + high)
        x, y = lens.x + middle * np.cos(turns), lens.y + middle * np.sin(turns)
        inside = trace_with_jacobian(x, y, Sightline((lens,)))[2].determinant < 0.0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    x, y = lens.x + high * np.cos(turns), lens.y + high * np.sin(turns)
    behind_x, behind_y, _ = trace_with_jacobian(x, y, Sightline((lens,)))
    return list(zip(x.tolist(), y.tolist(), strict=True)), list(zip(behind_x.tolist(), behind_y.tolist(), strict=True))


def _grey(significance: Float32) -> UInt8:
    value = np.arcsinh(np.clip(significance, -2.0, None) / _SOFTENING) / math.asinh(_WHITE / _SOFTENING)
    level = np.rint(255.0 * np.clip(0.12 + 0.88 * value, 0.0, 1.0)).astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=-1)


def _signed(significance: Float32) -> UInt8:
    """Blue where the model is too bright, red where it is too faint."""
    value = np.clip(significance / _RANGE, -1.0, 1.0)[..., None]
    ends = np.where(value < 0.0, (33, 102, 172), (178, 24, 43))
    return np.asarray(np.rint(247.0 + (ends - 247.0) * np.abs(value)), dtype=np.uint8)


def fits_bytes(model: LensModel, images: ModelImages, wcs: WCS | None = None, x0: int = 0, y0: int = 0) -> bytes:
    """All images as FITS: of each band DATA, DEFLECTOR, LENSED, OTHERS, RESIDUAL, NOISE, FITTED, PSF.

    Each is named ``DATA_VIS`` and so on; ``SOURCE`` is the unlensed VIS light. The linear axes are arcsec from the cutout's
    centre; where the sky is known, it is what images of the window have, and the linear axes are their alternate ones, ``A``.
    Background is taken off; units are those of the mosaics.

    Parameters
    ----------
    model, images
        See :func:`~scanner.modelling.candidate.model_cutout`.
    wcs, x0, y0
        Of the tile's VIS mosaic, and its pixel that is the cutout's first.
    """
    middle = 0.5 * (VIS_CUTOUT_PIXELS - SIDE)
    first = [
        start + round(middle + place / VIS_PIXEL_SCALE_ARCSEC)
        for start, place in ((x0, images.window_x), (y0, images.window_y))
    ]
    primary = fits.PrimaryHDU()
    primary.header["TILE"], primary.header["TARGET"] = model.tile_id, model.target_id
    primary.header["VERDICT"], primary.header["STATUS"] = model.verdict, model.status
    if model.mass is not None:
        primary.header["THETA_E"] = (model.mass.theta_e_arcsec, "arcsec")
    hdus = [primary]
    for number, band in enumerate(images.bands):
        scale = VIS_PIXEL_SCALE_ARCSEC if band == 0 else NISP_PIXEL_SCALE_ARCSEC
        side = SIDE if band == 0 else NISP_SIDE
        sky = None if wcs is None else window_wcs(wcs, first[0], first[1], 3 if band else 1)
        for name, values in (
            ("DATA", images.data[number]),
            ("DEFLECTOR", images.deflector[number]),
            ("LENSED", images.lensed[number]),
            ("OTHERS", images.companions[number]),
            ("RESIDUAL", images.residual(number)),
            ("NOISE", images.noise[number]),
            ("FITTED", images.fitted[number]),
        ):
            hdus.append(_image(f"{name}_{BANDS[band]}", values, scale, side, images.window_x, images.window_y, sky))
        hdus.append(_image(f"PSF_{BANDS[band]}", images.psf[number], scale, images.psf[number].shape[0], 0.0, 0.0))
    hdus.append(_image("SOURCE", images.source, SOURCE_PIXEL, SOURCE_SIDE, *images.source_centre))
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


def _image(name: str, values: Float32, scale: float, side: int, x: float, y: float, sky: WCS | None = None) -> fits.ImageHDU:
    hdu = fits.ImageHDU(np.asarray(values, dtype=np.float32), name=name)
    if sky is not None:
        hdu.header.update(sky.to_header(relax=True))
    key = "" if sky is None else "A"
    for axis, centre in ((1, x), (2, y)):
        hdu.header[f"CTYPE{axis}{key}"], hdu.header[f"CUNIT{axis}{key}"] = "LINEAR", "arcsec"
        hdu.header[f"CRPIX{axis}{key}"], hdu.header[f"CRVAL{axis}{key}"] = 0.5 * (side + 1), centre
        hdu.header[f"CDELT{axis}{key}"] = scale
    return hdu
