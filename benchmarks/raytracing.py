"""How exactly and how fast lensed images are drawn, against lenstronomy and caustics.

    OMP_NUM_THREADS=1 python benchmarks/raytracing.py [--systems 240] [--images 96] [--seconds 10] [--json FILE]

Exactness: noiseless 80x80 pixel images of random systems (SIE and shear in one or two planes, Sérsic deflectors and sources,
each lensed by what is in front of it) against lenstronomy's deflections and profiles on 10x10 samples a pixel, 40x40 where
these are not enough, and 200x200 about the deflectors' cusps: largest residual of an image over its peak, through the VIS PSF
and before it. Speed: images of 200x200 pixels a second for the same content (one SIE with shear, one Sérsic deflector, one
Sérsic source, one band, no PSF), one process and two, one thread each, in one run; beside it the residual that each pays for
its speed. lenstronomy and caustics are optional: what is not installed is left out, and said so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scanner.simulation import lensing
from scanner.simulation.lensing import Lens, Sightline
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind, norm, sersic_b
from scanner.simulation.telescope.psf import convolve, mean_psf

PIXEL = 0.1
#: Samples a pixel side of the referee: everywhere, where these are not enough, and this near to an unlensed cusp, arcsec.
SAMPLES, FINER_SAMPLES, CUSP_SAMPLES, CUSP_RADIUS = 10, 40, 200, 0.2
UNEVEN = 1.0e-4  # of the peak


@dataclass(frozen=True)
class System:
    """Components nearest first, deflectors alike, and redshifts: of each deflector, then of the source."""

    components: tuple[Component, ...]
    lenses: tuple[Lens, ...]
    redshifts: tuple[float, ...]


def random_system(rng: np.random.Generator, planes: int) -> System:
    """A deflector, behind it perhaps another, and a source: in front of each light the deflectors that bend it."""
    redshifts = tuple(float(z) for z in np.cumsum(rng.uniform(0.25, 0.9, planes + 1)))
    lenses, components = [], []
    for plane in range(planes):
        spread, theta_e = (0.05, rng.uniform(0.5, 1.6)) if plane == 0 else (0.3, rng.uniform(0.1, 0.5))
        x, y = rng.uniform(-spread, spread, 2)
        lens = Lens(theta_e, rng.uniform(0.5, 0.97), rng.uniform(0, math.pi), float(x), float(y), *rng.uniform(-0.05, 0.05, 2))
        lenses.append(lens)
        components.append(
            _sersic(rng, lens.x, lens.y, 20.0 if plane == 0 else 4.0, (0.3, 1.5), (1.0, 4.0 if plane == 0 else 2.0))
        )
    share = [float(lensing.coupling(redshifts[0], z, redshifts[-1])) for z in redshifts[1:-1]]
    beta, turn = 0.9 * lenses[0].theta_e * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
    source = _sersic(rng, beta * math.cos(turn), beta * math.sin(turn), 2.0, (0.1, 0.6), (0.7, 2.0))
    seen = [replace(source, seen_through=Sightline(tuple(lenses), tuple(share)))]
    if planes == 2:
        front = lenses[0]
        weaker = replace(
            front, theta_e=share[0] * front.theta_e, gamma1=share[0] * front.gamma1, gamma2=share[0] * front.gamma2
        )
        components[1] = replace(components[1], seen_through=Sightline((weaker,)))
    return System((*components, *seen), tuple(lenses), redshifts)


def _sersic(
    rng: np.random.Generator, x: float, y: float, flux: float, radii: tuple[float, float], indices: tuple[float, float]
) -> Component:
    return Component(
        Kind.SERSIC, x, y, (flux, 1e-9, 1e-9, 1e-9), radius=rng.uniform(*radii), index=rng.uniform(*indices),
        q=rng.uniform(0.5, 1.0), angle=rng.uniform(0, math.pi),
    )  # fmt: skip


def lenstronomy_image(system: System, raster: scene.Raster, first: int = 0) -> Any:
    """Flux per pixel (ny, nx) of the components from ``first`` on: lenstronomy's deflections and profiles, brute force."""
    image = np.zeros((raster.ny, raster.nx))
    for plane, component in list(enumerate(system.components))[first:]:
        rays = _lenstronomy_rays(system, plane)
        image += _means(component, rays, raster)
    return image


def _means(component: Component, rays: Callable[[Any, Any], tuple[Any, Any]], raster: scene.Raster) -> Any:
    """Pixels (ny, nx): even samples; finer ones where two halves of them disagree, and about unlensed cusps."""
    from lenstronomy.LightModel.light_model import LightModel

    model, parameters = LightModel(["SERSIC_ELLIPSE"]), [lenstronomy_sersic(component)]

    def sample(columns: Any, rows: Any, samples: int) -> Any:
        within = ((np.arange(samples) + 0.5) / samples - 0.5) * PIXEL
        x = (raster.x0 + columns * PIXEL)[:, None, None] + within[None, None, :] + 0.0 * within[None, :, None]
        y = (raster.y0 + rows * PIXEL)[:, None, None] + within[None, :, None] + 0.0 * within[None, None, :]
        return model.surface_brightness(*rays(x.ravel(), y.ravel()), parameters).reshape(x.shape)

    rows, columns = (grid.ravel() for grid in np.indices((raster.ny, raster.nx)))
    light = sample(columns, rows, SAMPLES)
    means = light.mean(axis=(1, 2))
    half = 0.5 * (light[:, ::2, ::2].mean(axis=(1, 2)) + light[:, 1::2, 1::2].mean(axis=(1, 2)))
    uneven = np.flatnonzero(np.abs(half - means) > UNEVEN * means.max())
    means[uneven] = sample(columns[uneven], rows[uneven], FINER_SAMPLES).mean(axis=(1, 2))
    if component.seen_through is None:
        near = np.hypot(raster.x0 + columns * PIXEL - component.x, raster.y0 + rows * PIXEL - component.y) < CUSP_RADIUS
        for pixel in np.flatnonzero(near):
            means[pixel] = sample(columns[pixel, None], rows[pixel, None], CUSP_SAMPLES).mean()
    return means.reshape(raster.ny, raster.nx) * PIXEL**2


def _lenstronomy_rays(system: System, plane: int) -> Callable[[Any, Any], tuple[Any, Any]]:
    from astropy.cosmology import FlatLambdaCDM
    from lenstronomy.LensModel.lens_model import LensModel

    if plane == 0:
        return lambda x, y: (x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns whenever it is told a cosmology
        model = LensModel(
            ["SIE", "SHEAR"] * plane, lens_redshift_list=[z for z in system.redshifts[:plane] for _ in range(2)],
            z_source=system.redshifts[plane], z_source_convention=system.redshifts[-1], multi_plane=True,
            cosmo=FlatLambdaCDM(H0=lensing.HUBBLE_KM_S_MPC, Om0=lensing.OMEGA_MATTER),
        )  # fmt: skip
    parameters = [part for lens in system.lenses[:plane] for part in lenstronomy_lens(lens)]
    return lambda x, y: model.ray_shooting(x, y, parameters)


def lenstronomy_lens(lens: Lens) -> list[dict[str, float]]:
    """Parameters of ``SIE`` and ``SHEAR``."""
    return [
        {"theta_E": lens.theta_e, "center_x": lens.x, "center_y": lens.y, **_ellipticity(lens.q, lens.angle)},
        {"gamma1": lens.gamma1, "gamma2": lens.gamma2, "ra_0": lens.x, "dec_0": lens.y},
    ]


def lenstronomy_sersic(component: Component) -> dict[str, float]:
    """Parameters of ``SERSIC_ELLIPSE``: its b(n) is an approximation, so radius and amplitude are those of the same profile."""
    b, theirs = sersic_b(component.index), 1.9992 * component.index - 0.3271
    radius = component.radius * math.sqrt(component.q) * (theirs / b) ** component.index
    amplitude = component.flux[0] / norm(component) * math.exp(b - theirs)
    shape = {"R_sersic": radius, "n_sersic": component.index, "center_x": component.x, "center_y": component.y}
    return {"amp": amplitude, **shape, **_ellipticity(component.q, component.angle)}


def _ellipticity(q: float, angle: float) -> dict[str, float]:
    e = (1.0 - q) / (1.0 + q)
    return {"e1": e * math.cos(2.0 * angle), "e2": e * math.sin(2.0 * angle)}


def residuals(systems: Sequence[System], pixels: int = 80) -> list[tuple[float, float]]:
    """Largest difference from lenstronomy over the peak: through the PSF, and before it."""
    raster, transfer = scene.centred_raster(pixels, PIXEL), mean_psf("VIS").transfer(pixels, pixels)
    drawn = scene.render([system.components for system in systems], raster, ("VIS",))[:, 0]
    out = []
    for mine, system in zip(drawn, systems, strict=True):
        theirs = lenstronomy_image(system, raster).astype(np.float32)
        seen = convolve(theirs, transfer)
        out.append((
            float(np.abs(convolve(mine, transfer) - seen).max() / seen.max()), float(np.abs(mine - theirs).max() / theirs.max())
        ))  # fmt: skip
    return out


def draw_ours(systems: Sequence[System], pixels: int) -> Any:
    """Images (N, pixels, pixels)."""
    raster = scene.centred_raster(pixels, PIXEL)
    parts = [systems[start : start + 32] for start in range(0, len(systems), 32)]
    return np.concatenate([scene.render([system.components for system in part], raster, ("VIS",))[:, 0] for part in parts])


def draw_lenstronomy(systems: Sequence[System], pixels: int, supersampling: int) -> Any:
    """As :func:`draw_ours`, with lenstronomy's own image model."""
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    start = -0.5 * (pixels - 1) * PIXEL
    data = ImageData(
        image_data=np.zeros((pixels, pixels)), ra_at_xy_0=start, dec_at_xy_0=start, transform_pix2angle=np.eye(2) * PIXEL
    )
    numerics = {"supersampling_factor": supersampling, "supersampling_convolution": False}
    light = LightModel(["SERSIC_ELLIPSE"])
    model = ImageModel(data, PSF("NONE"), LensModel(["SIE", "SHEAR"]), light, light, kwargs_numerics=numerics)
    return np.stack([
        model.image(
            lenstronomy_lens(system.lenses[0]), [lenstronomy_sersic(system.components[1])],
            [lenstronomy_sersic(system.components[0])], unconvolved=True,
        )
        for system in systems
    ])  # fmt: skip


def draw_caustics(systems: Sequence[System], pixels: int, quadrature: int) -> Any:
    """As :func:`draw_ours`, with caustics' simulator, Gauss' rule of ``quadrature`` points a pixel side."""
    import caustics
    import torch

    torch.set_num_threads(1)
    universe = caustics.FlatLambdaCDM(name="universe")
    lens = caustics.SinglePlane(
        universe, [caustics.SIE(universe, name="sie"), caustics.ExternalShear(universe, name="shear")], z_l=0.5, z_s=1.5
    )
    # Radii are Einstein radii for the source already: redshifts do not enter.
    simulator = caustics.LensSource(
        lens, caustics.Sersic(name="source"), lens_light=caustics.Sersic(name="galaxy"), pixelscale=PIXEL, pixels_x=pixels,
        quad_level=quadrature,
    )  # fmt: skip

    def numbers(component: Component) -> dict[str, float]:
        amplitude = component.flux[0] / norm(component) * PIXEL**2
        return {
            "x0": component.x, "y0": component.y, "q": component.q, "phi": component.angle, "n": component.index,
            "Re": component.radius, "Ie": amplitude,
        }  # fmt: skip

    images = []
    with torch.inference_mode():
        for system in systems:
            bend = system.lenses[0]
            values = {
                "sie": {"x0": bend.x, "y0": bend.y, "q": bend.q, "phi": bend.angle, "Rein": bend.theta_e},
                "shear": {"x0": bend.x, "y0": bend.y, "gamma_1": bend.gamma1, "gamma_2": bend.gamma2},
                "source": numbers(system.components[1]), "galaxy": numbers(system.components[0]),
            }  # fmt: skip
            for part in (*lens.lenses, simulator.source, simulator.lens_light):
                for name, value in values[part.name].items():
                    getattr(part, name).value = torch.tensor(value, dtype=torch.float32)
            images.append(simulator().numpy())
    return np.stack(images)


DRAW: dict[str, Callable[[Sequence[System], int], Any]] = {
    "scanner": draw_ours,
    "lenstronomy, 1x1 samples a pixel": lambda systems, pixels: draw_lenstronomy(systems, pixels, 1),
    "lenstronomy, 3x3": lambda systems, pixels: draw_lenstronomy(systems, pixels, 3),
    "lenstronomy, 5x5": lambda systems, pixels: draw_lenstronomy(systems, pixels, 5),
    "caustics, 3x3": lambda systems, pixels: draw_caustics(systems, pixels, 3),
}


def _rate(name: str, systems: Sequence[System], seconds: float, barrier: Any, results: Any) -> None:
    """Images a second of one process, once all are ready."""
    draw = DRAW[name]
    draw(systems[:2], 200)
    barrier.wait()
    start, drawn = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        part = [systems[(drawn + k) % len(systems)] for k in range(32 if name == "scanner" else 2)]
        draw(part, 200)
        drawn += len(part)
    results.put(drawn / (time.perf_counter() - start))


def images_per_second(name: str, systems: Sequence[System], seconds: float, processes: int) -> float:
    """Images a second of several processes together."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(processes), context.SimpleQueue()
    workers = [context.Process(target=_rate, args=(name, systems, seconds, barrier, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    rates = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return sum(rates)


def installed(name: str) -> bool:
    """Whether the package that a row of the table needs is there."""
    package = name.split(",")[0]
    return package == "scanner" or importlib.util.find_spec(package) is not None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", type=int, default=240)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng, report = np.random.default_rng(20), {}
    if installed("lenstronomy"):
        systems = [random_system(rng, 1 + int(k % 3 == 2)) for k in range(options.systems)]
        found = np.array(residuals(systems))
        planes = np.array([len(system.lenses) for system in systems])
        for label, some in (("one plane", planes == 1), ("two planes", planes == 2), ("all", planes > 0)):
            for column, stage in enumerate(("through the PSF", "before it")):
                median, high, worst = np.percentile(found[some, column], [50, 95, 100])
                report[f"residual, {label}, {stage}"] = {"n": int(some.sum()), "median": median, "p95": high, "max": worst}
                print(f"{label:12s} {stage:16s} n={some.sum():4d}  median {median:.1e}  95% {high:.1e}  max {worst:.1e}")
    else:
        print("lenstronomy is not installed: exactness is not measured.")
    systems = [random_system(rng, 1) for _ in range(options.images)]
    truth = (
        [lenstronomy_image(system, scene.centred_raster(80, PIXEL)) for system in systems[:12]]
        if installed("lenstronomy")
        else []
    )
    base = {}
    print(f"\n{'200x200 pixels, one band':36s} {'1 process':>10s} {'2':>10s}  images/s, residual before the PSF (median of 12)")
    for name, draw in DRAW.items():
        if not installed(name):
            print(f"{name:36s} not installed")
            continue
        rates = [images_per_second(name, systems, options.seconds, processes) for processes in (1, 2)]
        base.setdefault("rates", rates)
        error = [np.abs(a - b).max() / b.max() for a, b in zip(draw(systems[:12], 80), truth, strict=False)]
        residual = float(np.median(error)) if error else math.nan
        ratios = [ours / rate for ours, rate in zip(base["rates"], rates, strict=True)]
        report[name] = {"rates": rates, "times_slower": ratios, "median_residual": residual}
        print(f"{name:36s} {rates[0]:10.1f} {rates[1]:10.1f}  x{ratios[0]:.1f} x{ratios[1]:.1f}  {residual:.1e}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
