"""A candidate's model for people and for other software: a picture, FITS files, and what that software starts from."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image, ImageDraw

from scanner.atomic_file import writing_to
from scanner.cutouts.framed import window_wcs
from scanner.errors import OutputError, UsageError
from scanner.modelling.candidate import SOURCE_PIXEL, SOURCE_SIDE, ModelImages
from scanner.modelling.lens_model import IMAGES, PICTURE, RECORD, LensModel, ModelledGalaxy, read_file
from scanner.modelling.observation import FIT_RADIUS, NISP_SIDE, SIDE
from scanner.records import BANDS, NISP_PIXEL_SCALE_ARCSEC, VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC, Float32
from scanner.report.colour import UInt8
from scanner.simulation.lensing import Lens, Sightline, find_images, trace_with_jacobian
from scanner.simulation.light.components import sersic_b
from scanner.storage import Store

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


Format = Literal["fits", "lenstronomy", "herculens", "pyautolens"]
FORMATS: tuple[Format, ...] = get_args(Format)


def hand_over(store: Store, model: LensModel, to: Format, out: Path) -> tuple[Path, ...]:
    """Write a model for other software.

    ``fits``: ``model.fits``, ``model.json`` and ``panels.png``. ``lenstronomy``: these, and ``lenstronomy.json``, whose keys
    are the arguments of lenstronomy's classes (:func:`lenstronomy_arguments`). ``herculens``: likewise ``herculens.json``
    (:func:`herculens_arguments`). ``pyautolens``: a dataset of the Euclid strong lens modelling pipeline
    (:func:`pyautolens_dataset`), which is called as the folder is.

    Parameters
    ----------
    store, model
        The run folder, and the model of one of its objects.
    to
        For whom.
    out
        Folder to make, which must not be there.

    Raises
    ------
    UsageError
        There is no model: the object was refused.
    OutputError
        The folder is there already, or cannot be written.
    """
    if model.mass is None:
        raise UsageError(
            f"{model.tile_id}/{model.target_id}: has no model to hand over ({model.reason}); choose another object."
        )
    if out.exists():
        raise OutputError(f"{out}: is there already; choose another --out or remove it.")
    if to == "pyautolens":
        files = pyautolens_dataset(model, read_file(store, model, IMAGES), out.name)
    else:
        files = {name: read_file(store, model, name) for name in (IMAGES, PICTURE)} | {RECORD: model.to_bytes()}
    if to == "lenstronomy":
        files["lenstronomy.json"] = _json(lenstronomy_arguments(model))
    elif to == "herculens":
        files["herculens.json"] = _json(herculens_arguments(model, files[IMAGES]))
    with writing_to(out):
        out.mkdir(parents=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
    return tuple(out / name for name in files)


def pyautolens_dataset(model: LensModel, images: bytes, name: str) -> dict[str, bytes]:
    """A dataset as https://github.com/Jammy2211/euclid_strong_lens_modeling_pipeline reads it, of VIS: its files by name.

    ``NAME.fits``: ``VIS_BGSUB``, ``VIS_PSF`` and ``VIS_RMS``. ``info.json``: pixels and mask. ``positions.json``: the images of
    the brightest source. ``mask_extra_galaxies.fits``: 1 where pixels are bad or of bright neighbours. ``start.json``: the best
    fit as arguments of PyAutoLens' profiles (:func:`pyautolens_arguments`).
    """
    hdus = [fits.PrimaryHDU()]
    with fits.open(io.BytesIO(images)) as found:
        for ours, theirs in (("DATA_VIS", "VIS_BGSUB"), ("PSF_VIS", "VIS_PSF"), ("NOISE_VIS", "VIS_RMS")):
            hdus.append(fits.ImageHDU(found[ours].data, header=found[ours].header, name=theirs))
        x, y = (np.asarray(axis, dtype=np.float64) for axis in _axes(found["DATA_VIS"].header))
        left_out = (found["FITTED_VIS"].data == 0.0) & (np.hypot(x[None, :] - x.mean(), y[:, None] - y.mean()) < FIT_RADIUS)
    start = pyautolens_arguments(model, float(x.mean()), float(y.mean()))
    source = max((one for one in model.galaxies if one.lensed), key=lambda one: one.flux[0] or 0.0)
    seen = find_images(source.x_arcsec, source.y_arcsec, Sightline((lens_of_record(model),)))
    number = int(seen.count[0])
    positions = np.stack([seen.y[0, :number] - y.mean(), seen.x[0, :number] - x.mean()], axis=1)
    return {
        f"{name}.fits": _fits(hdus),
        "info.json": _json(
            {"pixel_scale": VIS_PIXEL_SCALE_ARCSEC, "mask_radius": FIT_RADIUS, "mask_centre": start["mass"]["centre"]}
        ),
        "positions.json": _json(
            {
                "type": "instance",
                "class_path": "autoarray.structures.grids.irregular_2d.Grid2DIrregular",
                "arguments": {"values": {"type": "ndarray", "array": positions.tolist(), "dtype": "float64"}},
            }
        ),
        "mask_extra_galaxies.fits": _fits([fits.PrimaryHDU(left_out.astype(np.float32))]),
        "start.json": _json(start),
    }


def pyautolens_arguments(model: LensModel, x: float, y: float) -> dict[str, Any]:
    """A model in PyAutoLens' words, its origin at (x, y) arcsec.

    ``mass``: of ``mp.Isothermal``; ``shear``: of ``mp.ExternalShear``; ``sources``: each of ``lp_linear.Sersic``. PyAutoLens'
    Einstein radius is (a + b) / 2 of the critical curve, not √(ab), its shear is about the origin, not about the mass, and
    points are (y, x).
    """
    mass = model.mass
    assert mass is not None

    def comps(q: float, angle: float) -> list[float]:
        return list(_ellipticity(q, angle)[::-1])

    # What the shear at the origin adds to all deflections moves the source.
    shift_x = mass.gamma1 * (mass.x_arcsec - x) + mass.gamma2 * (mass.y_arcsec - y)
    shift_y = mass.gamma2 * (mass.x_arcsec - x) - mass.gamma1 * (mass.y_arcsec - y)
    return {
        "mass": {
            "centre": [mass.y_arcsec - y, mass.x_arcsec - x],
            "ell_comps": comps(mass.q, mass.angle_rad),
            "einstein_radius": mass.theta_e_arcsec * (1.0 + mass.q) / (2.0 * math.sqrt(mass.q)),
        },
        "shear": {"gamma_1": mass.gamma1, "gamma_2": mass.gamma2},
        "sources": [
            {
                "centre": [one.y_arcsec - y - shift_y, one.x_arcsec - x - shift_x],
                "ell_comps": comps(one.q, one.angle_rad),
                "effective_radius": one.radius_arcsec,
                "sersic_index": one.index,
            }
            for one in model.galaxies
            if one.lensed
        ],
    }


def _axes(header: fits.Header) -> tuple[Any, Any]:
    """Arcsec from the cutout's centre along the rows and columns of an image of ``model.fits``."""
    key = "A" if "CRVAL1A" in header else ""
    return tuple(
        header[f"CRVAL{axis}{key}"]
        + (np.arange(header[f"NAXIS{axis}"]) + 1.0 - header[f"CRPIX{axis}{key}"]) * header[f"CDELT{axis}{key}"]
        for axis in (1, 2)
    )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _fits(hdus: list[Any]) -> bytes:
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


def lenstronomy_arguments(model: LensModel) -> dict[str, Any]:
    """A model in lenstronomy's words.

    ``lens_model_list`` and ``kwargs_lens``; ``source_light_model_list`` and, of each band, ``kwargs_source``;
    ``lens_light_model_list`` and ``kwargs_lens_light``: the unlensed galaxies (the deflector's own light is the image
    ``DEFLECTOR_VIS`` of ``model.fits``). ``pixel_scale``: arcsec, of each band. Amplitudes are for images in units per square
    arcsecond, as ``LightModel.surface_brightness`` gives them; ``ImageModel`` sums over pixels of ``pixel_scale``.
    """
    mass = model.mass
    assert mass is not None
    e1, e2 = _ellipticity(mass.q, mass.angle_rad)
    centre = {"center_x": mass.x_arcsec, "center_y": mass.y_arcsec}
    sources = [one for one in model.galaxies if one.lensed]
    # lenstronomy has no bent profiles.
    others = [one for one in model.galaxies if not one.lensed]
    return {
        "lens_model_list": ["SIE", "SHEAR"],
        "kwargs_lens": [
            {"theta_E": mass.theta_e_arcsec, "e1": e1, "e2": e2, **centre},
            {"gamma1": mass.gamma1, "gamma2": mass.gamma2, "ra_0": mass.x_arcsec, "dec_0": mass.y_arcsec},
        ],
        "source_light_model_list": ["SERSIC_ELLIPSE"] * len(sources),
        "kwargs_source": {band: [_sersic(one, number) for one in sources] for number, band in _of(model)},
        "lens_light_model_list": ["SERSIC_ELLIPSE"] * len(others),
        "kwargs_lens_light": {band: [_sersic(one, number) for one in others] for number, band in _of(model)},
        "pixel_scale": {band: NISP_PIXEL_SCALE_ARCSEC if number else VIS_PIXEL_SCALE_ARCSEC for number, band in _of(model)},
    }


def herculens_arguments(model: LensModel, images: bytes) -> dict[str, Any]:
    """A model in herculens' words: those of lenstronomy, but half-light radii lie along the major axis.

    ``mass_profile_list``: of ``MassModel``; ``source_profile_list`` and ``lens_light_profile_list``: of ``LightModel``. Of each
    band, ``model``: arguments of ``LensImage.model``; ``pixel_grid``: of ``PixelGrid``, from the headers of ``model.fits``;
    ``pixel_scale``: arcsec, on the diagonal of its ``transform_pix2angle``.
    """
    theirs = lenstronomy_arguments(model)
    lights = ("kwargs_source", "kwargs_lens_light")
    for one in (one for light in lights for galaxies in theirs[light].values() for one in galaxies):
        size = math.hypot(one["e1"], one["e2"])
        one["R_sersic"] *= math.sqrt((1.0 + size) / (1.0 - size))
    with fits.open(io.BytesIO(images)) as found:
        axes = {band: _axes(found[f"DATA_{band}"].header) for _, band in _of(model)}
    return {
        "mass_profile_list": theirs["lens_model_list"],
        "source_profile_list": theirs["source_light_model_list"],
        "lens_light_profile_list": theirs["lens_light_model_list"],
        "model": {
            band: {"kwargs_lens": theirs["kwargs_lens"]} | {light: theirs[light][band] for light in lights} for band in axes
        },
        "pixel_grid": {
            band: {"nx": len(x), "ny": len(y), "ra_at_xy_0": float(x[0]), "dec_at_xy_0": float(y[0])}
            for band, (x, y) in axes.items()
        },
        "pixel_scale": theirs["pixel_scale"],
    }


def _of(model: LensModel) -> list[tuple[int, str]]:
    return [(BANDS.index(band), band) for band in BANDS if band in model.bands]


def _ellipticity(q: float, angle: float) -> tuple[float, float]:
    size = (1.0 - q) / (1.0 + q)
    return size * math.cos(2.0 * angle), size * math.sin(2.0 * angle)


def _sersic(galaxy: ModelledGalaxy, band: int) -> dict[str, float]:
    n, b = galaxy.index, float(sersic_b(galaxy.index))
    # lenstronomy's b(n) is an approximation, so radius and amplitude are those of the same profile.
    theirs = 1.9992 * n - 0.3271
    # Flux of exp(-b r^(1/n)): 2π n b^(-2n) Γ(2n) R_e² (Graham & Driver 2005, equation 4).
    total = 2.0 * math.pi * n * b ** (-2.0 * n) * math.gamma(2.0 * n) * galaxy.radius_arcsec**2
    e1, e2 = _ellipticity(galaxy.q, galaxy.angle_rad)
    return {
        "amp": (galaxy.flux[band] or 0.0) / total * math.exp(-theirs),
        "R_sersic": galaxy.radius_arcsec * (theirs / b) ** n,
        "n_sersic": n,
        "e1": e1,
        "e2": e2,
        "center_x": galaxy.x_arcsec,
        "center_y": galaxy.y_arcsec,
    }
