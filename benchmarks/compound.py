"""Compound lenses and lensed quasars: how many are what they are called, and the fast generator against lenstronomy.

    python benchmarks/compound.py                                  # tables, and docs/images/simulation/compound-*.webp
    python benchmarks/compound.py --objects 100 --no-sheets        # quicker
    python benchmarks/compound.py --beside-jackpot sheet.png       # double rings as the Hubble Space Telescope sees them beside
                                                                   # SDSS J0946+1006 (../shared/real); never committed

Both generators draw the same objects, noiseless, all light that a cutout of 24" shows of them, in four bands, on one core. The
residual is the largest difference of a pixel of the arcs, in units of the brightest pixel, as drawn and as VIS sees it.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from class_sheets import FOLDER, LABEL, THUMBNAIL, pictures, row, save
from PIL import Image
from scipy.ndimage import gaussian_filter

from scanner.records import VIS_PIXEL_SCALE_ARCSEC, VIS_PSF_FWHM_ARCSEC
from scanner.simulation.datasets.cutouts import draw
from scanner.simulation.datasets.presets import PRESETS
from scanner.simulation.lensing import find_images
from scanner.simulation.light import scene
from scanner.simulation.population import classes
from scanner.simulation.population.galaxies import TRAINING, LabelledObject
from scanner.simulation.population.lenses import draw_line_of_sight, draw_paper_object, lensed_light, unlensed_light
from scanner.simulation.population.truth import VISIBLE_PIXELS, VISIBLE_SNR
from scanner.simulation.telescope.exposure import CANVAS_PIXELS

SEED = 5
RASTER = scene.centred_raster(CANVAS_PIXELS, VIS_PIXEL_SCALE_ARCSEC)
VIS_PSF_PIXELS = VIS_PSF_FWHM_ARCSEC / 2.355 / VIS_PIXEL_SCALE_ARCSEC
JACKPOT = Path(__file__).resolve().parents[1] / ".." / "shared" / "real" / "jackpot" / "slacs0946+1006.fits"
HST_PIXEL, HST_PSF, HST_PIXELS = 0.05, 0.09, 281  # arcsec, arcsec FWHM
SHEETS = {"arcs": ("compound-arc", 2), "rings": ("double-ring", 2), "quasars": ("quasars", 2)}
TIMED = 12  # objects


def share(hits: Any) -> str:
    """A share and its 95% interval (Wilson)."""
    n, p, z = len(hits), float(np.mean(hits)), 1.96
    middle, half = (p + z * z / 2 / n) / (1 + z * z / n), z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    return f"{p:.2f} [{middle - half:.2f}, {middle + half:.2f}]"


def definitions(count: int) -> None:
    """How many fulfil the definition of a lens, of a compound lens, and could be seen."""
    print(f"\n{count} objects each | a lens | compound (twice a lens) | visible | arcs of both visible")
    for name in ("compound-arc", "double-ring", "quasars"):
        variants: list[tuple[str, dict[str, Any]]] = [("", {})]
        if name != "quasars":
            variants.append((" (paper)", {"parameters": "paper"}))
        for label, update in variants:
            preset = PRESETS[name].model_copy(update=update)
            truth = [item for start in range(0, count, 25) for item in draw(preset, SEED, range(start, start + 25)).truth]
            columns = [[getattr(item.verdict, field) for item in truth] for field in ("is_lens", "is_compound", "visible")]
            systems = [(item.first, item.second) for item in truth]
            columns.append([all(s.arc_snr > VISIBLE_SNR and s.n_pix_source > VISIBLE_PIXELS for s in pair) for pair in systems])
            print(f"{name}{label} | " + " | ".join(share(column) for column in columns))


def table_1_to_the_letter(count: int) -> None:
    """Far sources with more than one image if arcs' lenses lie within ±5" of the source, as Table 1 says."""
    rng = np.random.default_rng(SEED)
    lensed = []
    for _ in range(count):
        line, item = draw_line_of_sight(rng, TRAINING), draw_paper_object(rng, "compound_arc", "paper")
        front, rear = item.systems[1].sightline.lenses
        (x0, x1), (y0, y1) = rng.uniform(-5.0, 5.0, (2, 2))
        places = ((front, x0, y0, line.front_theta_e), (rear, x1, y1, line.rear_theta_e))
        lenses = tuple(type(lens)(**vars(lens) | {"x": x, "y": y, "theta_e": theta}) for lens, x, y, theta in places)
        sightline = type(item.systems[1].sightline)(lenses, (line.coupling,))
        lensed.append(bool(find_images(0.0, 0.0, sightline).count[0] > 1))
    print(
        f'\nTable 1 to the letter, lenses within ±5" of the source: share of {count} with more than one image: {share(lensed)}'
    )


def objects(name: str, count: int) -> list[LabelledObject]:
    rng = np.random.default_rng(SEED)
    return [classes.draw_object(rng, name, TRAINING) for _ in range(count)]


def generators() -> None:
    """Time and residual of the same objects."""
    print(f"\n{TIMED} objects each | fast, ms an object | lenstronomy | ratio | residual: median, largest | as VIS sees it")
    for name in ("compound_arc", "double_ring", "quasar_lens"):
        drawn = objects(name, TIMED)
        scene.render([drawn[0].components], RASTER)
        sources = [system.source for item in drawn for system in item.systems]
        start = time.process_time()
        scene.render([item.components for item in drawn], RASTER)
        fast = scene.render(sources, RASTER)
        fast_s = time.process_time() - start
        start = time.process_time()
        for item in drawn:
            unlensed_light(item.components, RASTER)
        referee = np.concatenate([lensed_light(item.systems, RASTER) for item in drawn])
        slow_s = time.process_time() - start
        raw = [residual(*pair) for pair in zip(fast[:, 0], referee[:, 0], strict=True)]
        seen = [residual(blurred(a), blurred(b)) for a, b in zip(fast[:, 0], referee[:, 0], strict=True)]
        spread = (f"{np.median(values):.1e}, {np.max(values):.1e}" for values in (raw, seen))
        times = f"{1e3 * fast_s / TIMED:.0f} | {1e3 * slow_s / TIMED:.0f} | {slow_s / fast_s:.0f}"
        print(f"{name} | {times} | " + " | ".join(spread))


def residual(fast: Any, referee: Any) -> float:
    return float(np.abs(fast - referee).max() / referee.max())


def blurred(image: Any) -> Any:
    return gaussian_filter(np.asarray(image, dtype=np.float64), VIS_PSF_PIXELS)


def stretched(image: Any, faint: float) -> Any:
    """Asinh stretch to grey values of three channels, north up."""
    grey = np.clip(np.arcsinh(image / faint) / np.arcsinh(image.max() / faint), 0.0, 1.0)
    return np.repeat((255.0 * grey[::-1, :, None]).astype(np.uint8), 3, axis=-1)


def generator_sheet(count: int = 9) -> list[Any]:
    """All light but stars as VIS sees it without noise: fast, lenstronomy, and the difference a hundredfold."""
    rows = []
    inner = slice(CANVAS_PIXELS // 2 - 40, CANVAS_PIXELS // 2 + 40)
    for name in ("compound_arc", "double_ring", "quasar_lens"):
        columns, differences = [], []
        for item in objects(name, count):
            sources = [system.source for system in item.systems]
            fast = scene.render([item.components], RASTER, ("VIS",)).sum(axis=(0, 1))
            fast = fast + scene.render(sources, RASTER, ("VIS",)).sum(axis=(0, 1))
            arcs = lensed_light(item.systems, RASTER, ("VIS",)).sum(axis=(0, 1))
            referee = unlensed_light(item.components, RASTER, ("VIS",))[0] + arcs
            a, b = blurred(fast)[inner, inner], blurred(referee)[inner, inner]
            grey = 127.5 + 127.5 * np.clip(100.0 * (a - b) / blurred(arcs).max(), -1.0, 1.0)
            columns.append([enlarged(stretched(a, 0.004)), enlarged(stretched(b, 0.004))])
            differences.append([enlarged(np.repeat(grey[::-1, :, None].astype(np.uint8), 3, axis=-1))])
        rows += [
            row(f"{name}: fast, lenstronomy", columns),
            row("their difference, black to white: ±1% of the arcs' peak", differences)[: LABEL + THUMBNAIL + 2],
        ]
    return rows


def enlarged(picture: Any) -> Any:
    return np.asarray(Image.fromarray(picture).resize((100, 100), Image.Resampling.BICUBIC))


def jackpot_sheet(path: Path) -> None:
    """The real double ring first, then drawn ones as large and as deep, all on 0.05" pixels."""
    real = fits.getdata(JACKPOT).astype(np.float64)
    sky = float(np.median(real))
    sigma = 1.4826 * float(np.median(np.abs(real - sky)))
    pieces = [stretched(np.maximum(real - sky, -2.0 * sigma), 2.0 * sigma)]
    rng = np.random.default_rng(SEED)
    raster = scene.centred_raster(HST_PIXELS, HST_PIXEL)
    for item in objects("double_ring", 60):
        if item.systems[0].lens.theta_e > 0.9 and len(pieces) < 8:
            sources = [system.source for system in item.systems]
            light = scene.render([item.components, *sources], raster, ("VIS",)).sum(axis=(0, 1))
            light = gaussian_filter(light, HST_PSF / 2.355 / HST_PIXEL)
            noise = rng.normal(0.0, 0.0012, light.shape)
            pieces.append(stretched(np.maximum(light + noise, -0.0024), 0.0024))
    Image.fromarray(np.vstack([np.hstack(pieces[:4]), np.hstack(pieces[4:8])])).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=400, help="of each preset whose definitions are checked")
    parser.add_argument("--no-sheets", action="store_true")
    parser.add_argument(
        "--beside-jackpot", type=Path, help="write one sheet of real and drawn double rings there, and no others"
    )
    arguments = parser.parse_args()
    if arguments.beside_jackpot:
        jackpot_sheet(arguments.beside_jackpot)
        return
    definitions(arguments.objects)
    table_1_to_the_letter(arguments.objects)
    generators()
    if not arguments.no_sheets:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for sheet, (preset, rows) in SHEETS.items():
            drawn = draw(PRESETS[preset], SEED, range(9 * rows))
            shown = [pictures(vis, nisp, wide=False) for vis, nisp in zip(drawn.vis, drawn.nisp, strict=True)]
            save([row(preset, shown[9 * k : 9 * k + 9]) for k in range(rows)], FOLDER / f"compound-{sheet}.webp")
        save(generator_sheet(), FOLDER / "compound-generators.webp")


if __name__ == "__main__":
    main()
