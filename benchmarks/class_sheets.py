"""Contact sheets of every class of the simulator: what it draws, to be looked at beside real images.

    python benchmarks/class_sheets.py                               # docs/images/simulation/classes-*.webp, wide-sky.webp
    python benchmarks/class_sheets.py --beside-real sheet.png       # simulated and real, same stretch; never committed

Objects are the first of their class for a seed, not chosen. Of each, VIS above and VIS coloured by NISP below, as in the pages
of candidates: the inner 10" of the cutout, or all 20" of groups, clusters, wide lenses, stars and artefacts. Real images: both
Euclid stamps of ``../shared/real``, a lens (10") and a group (windows of 10" and 20").
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

import numpy as np
from astropy.io import fits
from PIL import Image, ImageDraw

from scanner.cutouts.quality import measure
from scanner.records import NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS
from scanner.report import colour
from scanner.simulation import PresetName
from scanner.simulation.datasets.cutouts import draw
from scanner.simulation.datasets.presets import PRESETS, ClassName, Preset
from scanner.simulation.population.classes import CLASSES

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images" / "simulation"
REAL = Path(__file__).resolve().parents[1] / ".." / "shared" / "real"
LENS_STAMP = REAL / "euclid-q1-102018665" / "102018665_NEG570040238507752998.fits"
GROUP_STAMP = REAL / "euclid-group" / "group.fits"
SHEETS: dict[str, tuple[str, ...]] = {
    "lenses": ("lens", "compound_arc", "double_ring", "quasar_lens"),
    "massive": ("elliptical", "companion", "tangential", "near_lens"),
    "discs": ("spiral", "merger", "edge_on", "ring"),
    "others": ("group", "cluster", "star", "artefact"),
}
#: The presets of the wide sky's lenses, on one more sheet.
PRESET_SHEET: tuple[PresetName, ...] = (
    "wide-lenses",
    "invisible-deflectors",
    "bright-deflectors",
    "whole-rings",
    "other-telescopes",
)
WIDE = ("group", "cluster", "star", "artefact", "wide-lenses")
COLUMNS, THUMBNAIL, INNER = 9, 100, 100
LABEL = 14  # pixels above a row
BYTES = 150_000
LARGEST_SIGMA = np.array([0.0035, 5.5, 5.5, 5.5], dtype=np.float32)  # VIS, Y, J, H


def pictures(vis: Any, nisp: Any, wide: bool) -> list[Any]:
    """One object: VIS above colour, north up, ``THUMBNAIL`` pixels wide."""
    quality = measure(vis[None], nisp[None])
    # In a crowd what is measured is not the sky's scatter: one stretch and one balance of colours for all.
    sky, sigma = quality.sky[0], np.minimum(quality.sigma[0], LARGEST_SIGMA)
    grey = np.repeat(colour.vis_image(vis, sky, sigma)[..., None], 3, axis=-1)
    out = []
    for picture in (grey, colour.colour_image(vis, nisp, sky, sigma)):
        first = 0 if wide else (VIS_CUTOUT_PIXELS - INNER) // 2
        part = Image.fromarray(picture[::-1][first : VIS_CUTOUT_PIXELS - first, first : VIS_CUTOUT_PIXELS - first])
        out.append(np.asarray(part.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)))
    return out


def row(label: str, columns: list[list[Any]]) -> Any:
    """Objects side by side under a label."""
    strip = Image.new("RGB", (COLUMNS * (THUMBNAIL + 2), LABEL + 2 * THUMBNAIL + 2), "white")
    ImageDraw.Draw(strip).text((2, 1), label, fill="black")
    for number, column in enumerate(columns):
        for k, picture in enumerate(column):
            strip.paste(Image.fromarray(picture), (number * (THUMBNAIL + 2), LABEL + k * (THUMBNAIL + 1)))
    return np.asarray(strip)


def class_row(name: str, seed: int, count: int) -> Any:
    return preset_row(name, PRESETS["quick"].model_copy(update={"mix": {name: 1.0}}), seed, count)


def preset_row(name: str, preset: Preset, seed: int, count: int) -> Any:
    drawn = draw(preset, seed, range(count))
    return row(name, [pictures(vis, nisp, name in WIDE) for vis, nisp in zip(drawn.vis, drawn.nisp, strict=True)])


def stamp(path: Path, suffix: str) -> Any:
    """(4, n, n) VIS, Y, J, H on 0.1" pixels."""
    with fits.open(path) as hdus:
        return np.array([hdus[f"{label}_{suffix}"].data for label in ("VIS", "NIR_Y", "NIR_J", "NIR_H")], dtype=np.float32)


def cutout(bands: Any, x: float, y: float) -> tuple[Any, Any]:
    """VIS and binned NISP about a pixel of a stamp, NaN beyond its edges."""
    padded = np.pad(bands, ((0, 0), (100, 100), (100, 100)), constant_values=np.nan)
    window = padded[:, int(y) : int(y) + VIS_CUTOUT_PIXELS, int(x) : int(x) + VIS_CUTOUT_PIXELS]
    nisp = window[1:, 1:-1, 1:-1].reshape(3, NISP_CUTOUT_PIXELS, 3, NISP_CUTOUT_PIXELS, 3).sum(axis=(2, 4))
    return window[0], nisp


def real_rows() -> list[Any]:
    lens, group = stamp(LENS_STAMP, "BGSUB"), stamp(GROUP_STAMP, "FLUX")
    places = ((150, 150), (60, 60), (60, 150), (60, 240), (150, 60), (240, 60), (240, 150), (240, 240))
    near = [cutout(lens, 50, 50), *(cutout(group, x, y) for x, y in places)]
    return [
        row('real: a lens, and a group in windows of 10"', [pictures(*item, wide=False) for item in near]),
        row('real: the group in windows of 20"', [pictures(*cutout(group, x, y), wide=True) for x, y in places[:1]]),
    ]


def save(rows: list[Any], path: Path) -> None:
    """As good a picture as fits into the limit."""
    sheet = Image.fromarray(np.vstack(rows))
    if path.suffix != ".webp":
        sheet.save(path)
        return
    for quality in range(80, 20, -5):
        sheet.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size < BYTES:
            break
    print(f"{path.name}: {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--classes", nargs="+", choices=get_args(ClassName), help="only these, on the sheet beside real images")
    parser.add_argument("--beside-real", type=Path, help="write one sheet of simulated and real images there, and no others")
    arguments = parser.parse_args()
    if arguments.beside_real:
        names = arguments.classes or CLASSES
        save(real_rows() + [class_row(name, arguments.seed, COLUMNS) for name in names], arguments.beside_real)
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for sheet, names in SHEETS.items():
        drawn = [class_row(name, arguments.seed, COLUMNS) for name in names if name in CLASSES]
        save(drawn, FOLDER / f"classes-{sheet}.webp")
    lenses = [PRESETS[name].model_copy(update={"mix": {"lens": 1.0}, "dropout": 0.0}) for name in PRESET_SHEET]
    save(
        [preset_row(preset.name, preset, arguments.seed, COLUMNS) for preset in lenses],
        FOLDER / "wide-sky.webp",
    )


if __name__ == "__main__":
    main()
