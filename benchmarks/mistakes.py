"""Draw a bundle's mistakes: non-lenses that it ranks highest, and visible lenses that it loses, ordinary and wide.

    scanner simulate sets --out SETS eval wide-lenses challenge
    python benchmarks/mistakes.py --bundle NAME --sets SETS --cache CACHE --out docs/images/mistakes.webp

From above, two rows each: the highest non-lenses of ``challenge``; of the visible lenses that are lost where 1 % of these pass,
some of ``eval``, and some of ``wide-lenses`` with θ_E of 2 to 6 arcsec, both by chance. VIS coloured by NISP; 10" about an
object, 20" about a wide lens. Scores are as a scan gives them, with the bundle's screen, kept in CACHE.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from wide_sky import scores

from scanner.ensemble import bundles
from scanner.labelled_set import LabelledSet
from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Int64
from scanner.report.colour import UInt8, colour_image

COLUMNS, ROWS, SIDE, GAP, LABEL = 8, 2, 180, 4, 15
#: Half of a picture's side, VIS pixels.
NARROW, WIDE = 50, 100
#: Einstein radii of the wide lenses, arcsec, and the share of the non-lenses that pass.
RADII, RATE = (2.0, 6.0), 1e-2


def main() -> None:
    """Draw all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="[the default one]")
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder of the scores")
    parser.add_argument("--out", type=Path, required=True, help="WebP")
    arguments = parser.parse_args()
    bundle = bundles.load(arguments.bundle)
    others, ordinary, wide = (LabelledSet(arguments.sets / name) for name in ("challenge", "eval", "wide-lenses"))
    of_others = scores(bundle, others, arguments.cache)
    of_others[others.truth.is_lens] = -np.inf
    threshold = float(np.quantile(of_others[~others.truth.is_lens], 1.0 - RATE))
    sheets = [sheet(others, np.argsort(-of_others, kind="stable")[: COLUMNS * ROWS], NARROW)]
    for lenses, radii, half in ((ordinary, (0.0, np.inf), NARROW), (wide, RADII, WIDE)):
        theta_e = lenses.column("theta_e_arcsec")
        assert theta_e is not None
        wanted = lenses.truth.is_lens & lenses.truth.visible & (theta_e >= radii[0]) & (theta_e < radii[1])
        lost = np.flatnonzero(wanted & (scores(bundle, lenses, arguments.cache) <= threshold))
        print(f"{lenses.path.name}: {len(lost)} of {wanted.sum()} visible lenses are lost at a false-positive rate of {RATE:g}")
        sheets.append(sheet(lenses, np.random.default_rng(0).permutation(lost)[: COLUMNS * ROWS], half))
    Image.fromarray(np.vstack(sheets)).save(arguments.out, "WEBP", quality=80, method=6)


def sheet(dataset: LabelledSet, rows: Int64, half: int) -> UInt8:
    """Pictures of rows side by side, with what they are."""
    height, width = SIDE + LABEL + GAP, SIDE + GAP
    canvas = Image.new("RGB", (COLUMNS * width, ROWS * height), "white")
    draw = ImageDraw.Draw(canvas)
    truth, theta_e = dataset.truth, dataset.column("theta_e_arcsec")
    for number, row in enumerate(rows.tolist()):
        left, top = number % COLUMNS * width, number // COLUMNS * height
        canvas.paste(Image.fromarray(picture(dataset, row, half)).resize((SIDE, SIDE)), (left, top + LABEL))
        words = str(truth.class_name[row]).replace("_", " ")
        if truth.is_lens[row] and theta_e is not None:
            words = f'{theta_e[row]:.1f}", S/N {truth.arc_snr[row]:.0f}'
        draw.text((left + 2, top + 2), words, fill="black")
    return np.asarray(canvas)


def picture(dataset: LabelledSet, row: int, half: int) -> UInt8:
    """The inner part of a cutout about an object, as far as the cutout reaches."""
    batch, _, _ = next(iter(dataset.batches(np.array([row], dtype=np.int64), 1)))
    colours = colour_image(batch.vis[0], batch.nisp[0], batch.sky[0], batch.sigma[0])
    y, x = np.rint(dataset.truth.position[row] / VIS_PIXEL_SCALE_ARCSEC).astype(int) + 100
    y, x = np.clip([y, x], half, 200 - half)
    return np.asarray(colours[y - half : y + half, x - half : x + half][::-1])


if __name__ == "__main__":
    main()
