"""Hands a model to other software: images, noise and PSFs as FITS, and the best fit as what that software starts from."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from astropy.io import fits

from scanner.atomic_file import writing_to
from scanner.errors import OutputError, UsageError
from scanner.modelling.lens_model import IMAGES, PICTURE, RECORD, LensModel, ModelledGalaxy, read_file
from scanner.modelling.observation import FIT_RADIUS
from scanner.modelling.panels import lens_of_record
from scanner.records import BANDS, NISP_PIXEL_SCALE_ARCSEC, VIS_PIXEL_SCALE_ARCSEC
from scanner.simulation.lensing import Sightline, find_images
from scanner.simulation.light.components import sersic_b
from scanner.storage import Store

Format = Literal["fits", "lenstronomy", "pyautolens"]
FORMATS: tuple[Format, ...] = get_args(Format)


def hand_over(store: Store, model: LensModel, to: Format, out: Path) -> tuple[Path, ...]:
    """Write a model for other software.

    ``fits``: ``model.fits``, ``model.json`` and ``panels.png``. ``lenstronomy``: these, and ``lenstronomy.json``, whose keys
    are the arguments of lenstronomy's classes (:func:`lenstronomy_arguments`). ``pyautolens``: a dataset of the Euclid strong
    lens modelling pipeline (:func:`pyautolens_dataset`), which is called as the folder is.

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
