"""Hands a model to other software: images, noise and PSFs as FITS, and the best fit as what that software starts from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal, get_args

from scanner.atomic_file import writing_to
from scanner.errors import OutputError, UsageError
from scanner.modelling.lens_model import IMAGES, PICTURE, RECORD, LensModel, ModelledGalaxy, read_file
from scanner.records import BANDS, NISP_PIXEL_SCALE_ARCSEC, VIS_PIXEL_SCALE_ARCSEC
from scanner.simulation.light.components import sersic_b
from scanner.storage import Store

Format = Literal["fits", "lenstronomy"]
FORMATS: tuple[Format, ...] = get_args(Format)


def hand_over(store: Store, model: LensModel, to: Format, out: Path) -> tuple[Path, ...]:
    """Write a model for other software.

    ``fits``: ``model.fits``, ``model.json`` and ``panels.png``. ``lenstronomy``: these, and ``lenstronomy.json``, whose keys
    are the arguments of lenstronomy's classes (:func:`lenstronomy_arguments`).

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
    files = {name: read_file(store, model, name) for name in (IMAGES, PICTURE)} | {RECORD: model.to_bytes()}
    if to == "lenstronomy":
        files["lenstronomy.json"] = (json.dumps(lenstronomy_arguments(model), indent=2) + "\n").encode()
    with writing_to(out):
        out.mkdir(parents=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
    return tuple(out / name for name in files)


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
