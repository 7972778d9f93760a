"""Light drawn by lenstronomy: the generator the paper used, and the referee of the fast one.

In: components and systems as the populations draw them, and the raster of :mod:`~scanner.simulation.light.scene`. Out:
noiseless, unconvolved pixels, float32. lenstronomy traces the rays, through all planes and to the redshift of each source,
with its own distances, and draws the Sérsic profiles; shapes that it lacks (rings, arms) are the fast generator's on its
rays, and only the choice of samples within a pixel is made here. Refused: no lenstronomy (UsageError). Stars are left to the
telescope, as everywhere.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scanner.errors import UsageError
from scanner.records import BANDS, Band, Float32, Float64
from scanner.simulation.lensing.cosmology import HUBBLE_KM_S_MPC, OMEGA_MATTER
from scanner.simulation.light.components import Component, Kind, sersic_b, tabulate
from scanner.simulation.light.profiles import profiles, surface_brightness
from scanner.simulation.light.scene import Raster
from scanner.simulation.population.system import System

#: Samples per pixel side: everywhere; where the light bends within a pixel; and where a cusp sits.
_COARSE, _FINE, _FINEST = 3, 12, 48
#: A pixel is drawn again where its second differences exceed this share of the peak ...
_CURVATURE = 0.004
#: ... and a third time where they exceed this one.
_CUSP_CURVATURE = 0.1
_NO_SOFTENING = 1.0e-4  # arcsec; not zero, for the logarithm of spiral arms

Brightness = Callable[[Float64, Float64], Float64]  # positions (P,) in arcsec -> (bands, P) flux per arcsec²


def unlensed_light(components: Sequence[Component], raster: Raster, bands: Sequence[Band] = BANDS) -> Float32:
    """Pixels of components seen through nothing.

    Parameters
    ----------
    components
        Stars among them are skipped.
    raster, bands
        What to draw.

    Returns
    -------
    array
        (bands, ny, nx) float32, image units per pixel.

    Raises
    ------
    UsageError
        lenstronomy is not installed.
    """
    return _pixels(_light(components, bands), raster, len(bands))


def lensed_light(systems: Sequence[System], raster: Raster, bands: Sequence[Band] = BANDS) -> Float32:
    """Pixels of the sources of one object, each at its own redshift behind the deflectors in front of it.

    Parameters
    ----------
    systems
        All systems of one object, nearest source first: the n-th source but the last is the (n+1)-th deflector. θ_E are taken
        from the last one's sightline; what they are for nearer sources is lenstronomy's business.
    raster, bands
        What to draw.

    Returns
    -------
    array
        (systems, bands, ny, nx) float32, image units per pixel.

    Raises
    ------
    UsageError
        lenstronomy is not installed.
    """
    out = np.zeros((len(systems), len(bands), raster.ny, raster.nx), dtype=np.float32)
    for row, system in enumerate(systems):
        trace, brightness = _tracer(systems, row), _light(system.source, bands)
        out[row] = _pixels(lambda x, y, trace=trace, light=brightness: light(*trace(x, y)), raster, len(bands))  # type: ignore[misc]
    return out


def _lenstronomy(module: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own dependencies' deprecations
            return importlib.import_module(f"lenstronomy.{module}")
    except ImportError:
        raise UsageError("lenstronomy is not installed: install scanner[paper] to draw with it.") from None


def _tracer(systems: Sequence[System], row: int) -> Callable[[Float64, Float64], tuple[Float64, Float64]]:
    """Rays back to the source of one system."""
    lens_model = _lenstronomy("LensModel.lens_model")
    from astropy.cosmology import FlatLambdaCDM

    redshifts, parameters = [], []
    for system, lens in zip(systems, systems[-1].sightline.lenses, strict=True):
        if system.z_lens >= systems[row].z_source:
            continue
        e = (1.0 - lens.q) / (1.0 + lens.q)
        centre = {"center_x": lens.x, "center_y": lens.y}
        parameters += [
            {"theta_E": lens.theta_e, "e1": e * math.cos(2.0 * lens.angle), "e2": e * math.sin(2.0 * lens.angle), **centre},
            {"gamma1": lens.gamma1, "gamma2": lens.gamma2, "ra_0": lens.x, "dec_0": lens.y},
        ]
        redshifts += [system.z_lens, system.z_lens]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns whenever it is told a cosmology
        model = lens_model.LensModel(
            ["SIE", "SHEAR"] * (len(redshifts) // 2),
            lens_redshift_list=redshifts,
            z_source=systems[row].z_source,
            z_source_convention=systems[-1].z_source,
            multi_plane=True,
            cosmo=FlatLambdaCDM(H0=HUBBLE_KM_S_MPC, Om0=OMEGA_MATTER),
        )
    return lambda x, y: model.ray_shooting(x, y, parameters)


def _light(components: Sequence[Component], bands: Sequence[Band]) -> Brightness:
    """Surface brightness in the components' own plane."""
    sersic = [component for component in components if component.kind is Kind.SERSIC]
    others = [component for component in components if component.kind not in (Kind.SERSIC, Kind.POINT)]
    model = _lenstronomy("LightModel.light_model").LightModel(["SERSIC_ELLIPSE"] * len(sersic))
    parameters = [_sersic(component) for component in sersic]
    share = np.array([1.0 / total for total in model.total_flux([{"amp": 1.0, **p} for p in parameters])])
    sersic_flux, other_flux = _flux(sersic, bands), _flux(others, bands)

    def brightness(x: Float64, y: Float64) -> Float64:
        total = np.zeros((len(bands), len(x)))
        if sersic:
            total += (sersic_flux * share) @ np.stack(model.functions_split(x, y, parameters)[0])
        for component, flux in zip(others, other_flux.T, strict=True):
            dx, dy = (x - component.x)[None, None, :], (y - component.y)[None, None, :]
            total += flux[:, None] * surface_brightness(dx, dy, profiles(tabulate([component]), np.asarray), _NO_SOFTENING)[0]
        return total

    return brightness


def _flux(components: Sequence[Component], bands: Sequence[Band]) -> Float64:
    """(bands, components) in image units."""
    channels = [BANDS.index(band) for band in bands]
    return np.array([[c.flux[k] for c in components] for k in channels], dtype=np.float64).reshape(len(bands), -1)


def _sersic(component: Component) -> dict[str, float]:
    """A profile as lenstronomy has it: its radius is the geometric mean of the axes.

    Half of the light is within it only nearly, as its b(n) is a straight line, 0.4% off at n = 1; the radius makes up for it.
    """
    e = (1.0 - component.q) / (1.0 + component.q)
    line = _lenstronomy("LensModel.Profiles.sersic_utils").SersicUtil.b_n(component.index)
    return {
        "R_sersic": component.radius * math.sqrt(component.q) * float(line / sersic_b(component.index)) ** component.index,
        "n_sersic": component.index,
        "e1": e * math.cos(2.0 * component.angle),
        "e2": e * math.sin(2.0 * component.angle),
        "center_x": component.x,
        "center_y": component.y,
    }


def _pixels(brightness: Brightness, raster: Raster, bands: int) -> Float32:
    """Integrals over pixels: a coarse pass, and finer ones where the light is not smooth."""
    rows, columns = (grid.ravel() for grid in np.indices((raster.ny, raster.nx)))
    mean = _mean(brightness, raster, rows, columns, _COARSE).reshape(bands, raster.ny, raster.nx)
    for samples, limit in ((_FINE, _CURVATURE), (_FINEST, _CUSP_CURVATURE)):
        rows, columns = np.nonzero(_uneven(mean, limit))
        mean[:, rows, columns] = _mean(brightness, raster, rows, columns, samples)
    return (mean * raster.scale**2).astype(np.float32)


def _mean(brightness: Brightness, raster: Raster, rows: Any, columns: Any, samples: int) -> Float64:
    """(bands, P) mean surface brightness of pixels."""
    within = ((np.arange(samples) + 0.5) / samples - 0.5) * raster.scale
    x = (raster.x0 + columns * raster.scale)[:, None, None] + within[None, None, :]
    y = (raster.y0 + rows * raster.scale)[:, None, None] + within[None, :, None]
    x, y = np.broadcast_arrays(x, y)
    values = brightness(x.ravel(), y.ravel())
    return np.asarray(values.reshape(len(values), len(rows), samples**2).mean(axis=-1), dtype=np.float64)


def _uneven(mean: Float64, limit: float) -> Any:
    """(ny, nx) bool: pixels, and their neighbours, whose second differences exceed a share of the band's peak."""
    padded = np.pad(mean, ((0, 0), (1, 1), (1, 1)), mode="edge")
    inner = padded[:, 1:-1, 1:-1]
    curvature = np.abs(padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] - 2.0 * inner)
    curvature += np.abs(padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:] - 2.0 * inner)
    steep = np.pad((curvature > limit * mean.max(axis=(1, 2), keepdims=True)).any(axis=0), 1)
    ny, nx = mean.shape[1:]
    return np.logical_or.reduce([steep[1 + dy : ny + 1 + dy, 1 + dx : nx + 1 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
