"""Simulated images against what was measured on real Euclid images: sky, noise, PSF, zero points, brightness of lenses.

    python benchmarks/sky_facts.py [--real FOLDER] [--cutouts 240] [--tiles 12] [--plot docs/images/simulation/sky-facts.webp]

Tiles are drawn as ``scanner simulate tiles`` draws them: even ones with NISP resampled to 0.1" as MER does, odd ones native at
0.3". Cutouts are drawn as the preset ``eval`` draws them, in both noise regimes: without an object for their sky, and of lenses
for their brightness. A row passes where the median
of the simulated values lies in the stated range. Real images, where given, are measured by the same functions and only shown:
there are two of them, with a galaxy in the middle, so their values scatter about the ranges.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from scanner.records import BANDS
from scanner.simulation.datasets.cutouts import observe
from scanner.simulation.datasets.presets import PRESETS, ClassName, CutoutScene, draw_scene, object_generator
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.simulation.telescope.noise import ZERO_POINT
from scanner.simulation.telescope.psf import draw_psf

Range = tuple[float, float]
Values = dict[tuple[str, str], list[float]]

#: Property and band to the range that real images gave.
FACTS: dict[tuple[str, str], Range] = {
    ("zero point", "VIS"): (24.6, 24.6),
    ("zero point", "Y"): (29.8, 29.8),
    ("zero point", "J"): (30.0, 30.0),
    ("zero point", "H"): (29.9, 29.9),
    ("sky σ", "VIS"): (0.0027, 0.0028),
    ("sky σ", "Y"): (0.56, 0.59),
    ("sky σ", "J"): (0.52, 0.62),
    ("sky σ", "H"): (0.52, 0.58),
    ("RMS map", "VIS"): (0.0040, 0.0042),
    ("RMS map", "Y"): (2.36, 2.54),
    ("RMS map", "J"): (2.39, 2.69),
    ("RMS map", "H"): (2.23, 2.51),
    ("lag-1 correlation", "VIS"): (0.22, 0.24),
    ("lag-1 correlation", "Y"): (0.77, 0.81),
    ("lag-1 correlation", "J"): (0.74, 0.82),
    ("lag-1 correlation", "H"): (0.76, 0.81),
    ("σ after 3×3 sum", "Y"): (3.7, 4.3),
    ("σ after 3×3 sum", "J"): (3.4, 4.5),
    ("σ after 3×3 sum", "H"): (3.3, 4.2),
    ("variance / flux", "VIS"): (2.6e-4, 3.0e-4),
    ("variance / flux", "Y"): (0.84, 1.05),
    ("variance / flux", "J"): (0.74, 0.99),
    ("variance / flux", "H"): (0.68, 0.85),
    ("PSF FWHM [″]", "VIS"): (0.165, 0.175),
    ("PSF FWHM [″]", "Y"): (0.41, 0.43),
    ("PSF FWHM [″]", "J"): (0.46, 0.47),
    ("PSF FWHM [″]", "H"): (0.45, 0.47),
    ("narrowest FWHM [″]", "VIS"): (0.155, 0.175),
    ("narrowest FWHM [″]", "Y"): (0.36, 0.43),
    ("narrowest FWHM [″]", "J"): (0.41, 0.47),
    ("narrowest FWHM [″]", "H"): (0.385, 0.47),
    ("widest FWHM [″]", "VIS"): (0.165, 0.18),
    ("widest FWHM [″]", "Y"): (0.41, 0.49),
    ("widest FWHM [″]", "J"): (0.46, 0.54),
    ("widest FWHM [″]", "H"): (0.45, 0.60),
    ("native sky σ", "Y"): (1.5 * 3.7, 1.5 * 4.3),
    ("native sky σ", "J"): (1.5 * 3.4, 1.5 * 4.5),
    ("native sky σ", "H"): (1.5 * 3.3, 1.5 * 4.2),
    ("native lag-1 correlation", "Y"): (-0.1, 0.1),
    ("native lag-1 correlation", "J"): (-0.1, 0.1),
    ("native lag-1 correlation", "H"): (-0.1, 0.1),
    ("core magnitude r<1″", "VIS"): (20.3, 22.6),
    ("core magnitude r<1″", "Y"): (19.3, 20.9),
    ("core magnitude r<1″", "J"): (19.0, 20.5),
    ("core magnitude r<1″", "H"): (18.7, 20.0),
}
ROUNDS = 10
_BRIGHT = 15.0


@dataclass
class Measured:
    """Values of every property and band, of simulated images and of real ones."""

    simulated: Values = field(default_factory=lambda: defaultdict(list))
    real: Values = field(default_factory=lambda: defaultdict(list))


def sky(image: NDArray[np.float64], good: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Level, robust σ and lag-1 correlation of the sky: pixels clipped at 3σ about their median."""
    left = image[good]
    for _ in range(ROUNDS):
        level, sigma = _robust(left)
        left = left[np.abs(left - level) < 3.0 * sigma]
    level, sigma = _robust(left)
    clean = np.where(good & (np.abs(image - level) < 3.0 * sigma), image - level, np.nan)
    lag = 0.5 * (np.nanmean(clean[:, 1:] * clean[:, :-1]) + np.nanmean(clean[1:] * clean[:-1]))
    return level, sigma, float(lag / np.nanmean(clean**2))


def _robust(values: NDArray[np.float64]) -> tuple[float, float]:
    level = float(np.median(values))
    return level, 1.4826 * float(np.median(np.abs(values - level)))


def variance_slope(image: NDArray[np.float64], rms: NDArray[np.float64], good: NDArray[np.bool_], sigma: float) -> float:
    """By how much RMS² rises per unit of flux in bright pixels; NaN where there are few."""
    bright = good & (image > _BRIGHT * sigma)
    rise = (rms[bright] ** 2 - np.median(rms[good]) ** 2) / image[bright]
    return float(np.median(rise)) if bright.sum() > 20 else math.nan


def binned(image: NDArray[np.float64]) -> NDArray[np.float64]:
    ny, nx = (length // 3 * 3 for length in image.shape)
    return image[:ny, :nx].reshape(ny // 3, 3, nx // 3, 3).sum(axis=(1, 3))


def measure_mosaic(image: NDArray[np.float64], rms: NDArray[np.float64], band: str, zero_point: float, values: Values) -> None:
    """Sky, noise and zero point of a 0.1" mosaic with its RMS map."""
    good = rms < 1e10
    _, sigma, lag = sky(image, good)
    values["zero point", band].append(zero_point)
    values["sky σ", band].append(sigma)
    values["lag-1 correlation", band].append(lag)
    values["RMS map", band].append(float(np.median(rms[good])))
    values["variance / flux", band].append(variance_slope(image, rms, good, sigma))
    if band != "VIS":
        values["σ after 3×3 sum", band].append(sky(binned(image), binned(good) == 9)[1])


def measure_tiles(n_tiles: int, size: int, values: Values) -> None:
    """Draw tiles and measure their mosaics."""
    with tempfile.TemporaryDirectory() as folder:
        draw_tiles(TilesRequest(n_tiles=n_tiles, size=size, seed=11, overlap=0.0, lenses_per_tile=0.0), Path(folder))
        for image_path in sorted(Path(folder).rglob("*BGSUB-MOSAIC*")):
            band = next(name for name in BANDS if f"-{name}_TILE" in image_path.name)
            rms_path = next(image_path.parent.glob(f"*{'NIR-' if band != 'VIS' else ''}{band}-RMS*"))
            header, image, rms = fits.getheader(image_path), _array(fits.getdata(image_path)), _array(fits.getdata(rms_path))
            native = band != "VIS" and abs(header["CD2_2"]) * 3600.0 > 0.2
            if native:
                _, sigma, lag = sky(image, rms < 1e10)
                values["native sky σ", band].append(sigma)
                values["native lag-1 correlation", band].append(lag)
            else:
                measure_mosaic(image, rms, band, header["MAGZERO"], values)


def _array(data: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(data, dtype=np.float64)


def measure_cutouts(n: int, values: Values) -> None:
    """Draw ``n`` cutouts without an object and measure their sky, and ``n`` with a lens and measure its core magnitudes."""
    for scene, images in _cutouts(n, {"empty": 1.0}):
        for band, image in zip(BANDS, images, strict=True):
            _, sigma, lag = sky(image, np.isfinite(image))
            if band == "VIS":
                values["sky σ", band].append(sigma)
                values["lag-1 correlation", band].append(lag)
            elif scene.exposure.native:
                values["native sky σ", band].append(sigma)
                values["native lag-1 correlation", band].append(lag)
            else:
                values["σ after 3×3 sum", band].append(sigma)
    for scene, images in _cutouts(n, {"lens": 1.0}):
        for band, image, scale in zip(BANDS, images, (0.1, 0.3, 0.3, 0.3), strict=True):
            core = _disc(image.shape[0], scale, scene.x, scene.y)
            flux = (image - sky(image, ~core)[0])[core].sum()
            values["core magnitude r<1″", band].append(ZERO_POINT[band] - 2.5 * math.log10(max(flux, 1e-9)))


def _cutouts(n: int, mix: dict[ClassName, float]) -> Iterator[tuple[CutoutScene, list[NDArray[np.float64]]]]:
    """Scenes of the preset ``eval`` with another mix of classes, and their images, VIS Y J H."""
    preset = PRESETS["eval"].model_copy(update={"mix": mix})
    for first in range(0, n, 24):
        scenes = [draw_scene(preset, object_generator(preset.name, 11, index)) for index in range(first, min(first + 24, n))]
        drawn = observe(scenes, range(first, first + len(scenes)))
        for scene, vis, nisp in zip(scenes, drawn.vis, drawn.nisp, strict=True):
            yield scene, [_array(image) for image in (vis, *nisp)]


def _disc(pixels: int, scale: float, x: float, y: float, radius: float = 1.0) -> NDArray[np.bool_]:
    at = scale * (np.arange(pixels) - 0.5 * (pixels - 1))
    return np.hypot(at[None, :] - x, at[:, None] - y) < radius


def measure_psfs(n: int, values: Values) -> None:
    """FWHM of drawn PSFs: mean and extremes over azimuth."""
    rng = np.random.default_rng(11)
    for _ in range(n):
        roll, width = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.96, 1.04)
        for band in BANDS:
            offsets = np.arange(-16, 17)
            stamp = draw_psf(rng, band, roll, width).values(offsets[None, :], offsets[:, None])
            _add_widths(fwhm(_array(stamp)), band, values)


def _add_widths(widths: NDArray[np.float64], band: str, values: Values) -> None:
    values["PSF FWHM [″]", band].append(float(widths.mean()))
    values["narrowest FWHM [″]", band].append(float(widths.min()))
    values["widest FWHM [″]", band].append(float(widths.max()))


def fwhm(stamp: NDArray[np.float64]) -> NDArray[np.float64]:
    """FWHM of a PSF stamp on 0.1" pixels in 36 directions, arcsec: cubic splines about the centroid."""
    y, x = np.indices(stamp.shape)
    weight = stamp * np.exp(-0.125 * np.hypot(x - stamp.shape[1] // 2, y - stamp.shape[0] // 2) ** 2)
    centre_x, centre_y = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
    radius = np.linspace(0.0, 5.0, 1001)
    angle = np.linspace(0.0, 2.0 * math.pi, 36, endpoint=False)[:, None]
    places = [centre_y + radius * np.sin(angle), centre_x + radius * np.cos(angle)]
    profile = map_coordinates(stamp, places, order=3)
    return np.asarray(0.2 * radius[np.argmax(profile < 0.5 * profile[:, :1], axis=1)])


def measure_real(folder: Path, values: Values) -> None:
    """The same of the two real images."""
    for path, suffix in _real_images(folder):
        with fits.open(path) as file:
            for band in BANDS:
                name = band if band == "VIS" else f"NIR_{band}"
                image, rms = _array(file[f"{name}_{suffix}"].data), _array(file[f"{name}_RMS"].data)
                zero_point = float(file[f"{name}_{suffix}"].header["MAGZERO"])
                core = _disc(image.shape[0], 0.1, 0.0, 0.0)
                values["core magnitude r<1″", band].append(zero_point - 2.5 * math.log10(image[core].sum()))
                rms = np.where(
                    _disc(image.shape[0], 0.1, 0.0, 0.0, 3.0) & (image < 15.0 * sky(image, rms < 1e10)[1]), 1e16, rms
                )
                measure_mosaic(image, rms, band, zero_point, values)
                _add_widths(fwhm(_array(file[f"{name}_PSF"].data)), band, values)


def _real_images(folder: Path) -> Iterator[tuple[Path, str]]:
    for name, suffix in (("euclid-q1-102018665", "BGSUB"), ("euclid-group", "FLUX")):
        for path in sorted((folder / name).glob("*.fits")):
            yield path, suffix


def verdicts(values: Values) -> dict[tuple[str, str], bool]:
    """Whether the median of each property lies in its range, to the last digit stated."""
    found = {}
    for key, (low, high) in FACTS.items():
        if values[key]:
            middle = float(np.nanmedian(values[key]))
            found[key] = low - 1e-9 <= middle <= high + 1e-9
    return found


def print_table(measured: Measured) -> bool:
    """One line a property and band; True where all pass."""
    print(f"{'property':26s} {'band':4s} {'range':>19s} {'median':>9s} {'5-95%':>19s} {'n':>4s}  verdict  real images")
    passed = verdicts(measured.simulated)
    for key, good in passed.items():
        low, high = FACTS[key]
        values = np.array(measured.simulated[key])
        spread = "-".join(f"{value:.4g}" for value in np.nanpercentile(values, (5, 95)))
        real = " ".join(f"{value:.4g}" for value in measured.real[key])
        stated = f"{low:.4g}-{high:.4g}"
        verdict = "pass" if good else "FAIL"
        row = f"{key[0]:26s} {key[1]:4s} {stated:>19s} {np.nanmedian(values):9.4g} {spread:>19s} {len(values):4d}"
        print(f"{row}  {verdict:7s}  {real}")
    return all(passed.values())


def plot(measured: Measured, path: Path) -> None:
    """One panel a property: the range as a band, ours as a distribution, the real images as marks."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    properties = list(dict.fromkeys(name for name, _ in FACTS if name != "zero point"))
    figure, axes = plt.subplots(3, 4, figsize=(13, 8.2), layout="constrained")
    for axis, name in zip(axes.flat, properties, strict=False):
        bands = [band for band in BANDS if (name, band) in FACTS]
        # Bands differ by orders of magnitude: units of the middle of the range, but for magnitudes and correlations.
        relative = not name.startswith(("core", "native lag", "lag"))
        for place, band in enumerate(bands):
            low, high = FACTS[name, band]
            unit = 0.5 * (low + high) if relative else 1.0
            values = np.array(measured.simulated[name, band]) / unit
            values = values[np.isfinite(values)]
            axis.fill_between(
                [place - 0.42, place + 0.42], low / unit, high / unit, color="#bcd4ec", lw=0, label="stated range"
            )
            jitter = place + np.random.default_rng(place).uniform(-0.22, 0.22, len(values))
            axis.plot(jitter, values, ".", ms=2, color="#5b5b5b", alpha=0.5, label="simulated")
            axis.plot([place - 0.3, place + 0.3], [np.median(values)] * 2, color="black", lw=1.6, label="their median")
            real = np.array(measured.real[name, band]) / unit
            axis.plot(np.full(len(real), place), real, "D", ms=5, color="#d1495b", mec="white", label="real images")
            if relative:
                axis.annotate(f"{unit:.3g}", (place, 0.02), xycoords=("data", "axes fraction"), ha="center", fontsize=7)
        axis.set_xticks(range(len(bands)), bands)
        axis.set_title(name + (" / middle of the range" if relative else ""), fontsize=9)
        axis.tick_params(labelsize=8)
        if name.startswith("core"):
            axis.invert_yaxis()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, fontsize=9)
    for axis in axes.flat[len(properties) :]:
        axis.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def measure(n_cutouts: int, n_tiles: int, size: int, n_psfs: int = 200) -> Measured:
    """Everything simulated."""
    measured = Measured()
    measure_psfs(n_psfs, measured.simulated)
    measure_tiles(n_tiles, size, measured.simulated)
    measure_cutouts(n_cutouts, measured.simulated)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, help="folder of the real images")
    parser.add_argument("--cutouts", type=int, default=240)
    parser.add_argument("--tiles", type=int, default=12)
    parser.add_argument("--size", type=int, default=600, help="side of a tile, pixels")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    measured = measure(arguments.cutouts, arguments.tiles, arguments.size)
    if arguments.real is not None:
        measure_real(arguments.real, measured.real)
    good = print_table(measured)
    if arguments.plot is not None:
        plot(measured, arguments.plot)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
