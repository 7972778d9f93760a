"""Draw the figure of docs/figures.md that shows mistakes: ``python docs/images/mistakes.py BUNDLE LENSES OTHERS CACHE``.

Above, the non-lenses of a set with the highest scores; below, the visible lenses of another with the lowest. Not chosen, VIS
coloured by NISP, 10" about the object. The log-odds are those that ``scanner evaluate --cache`` kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from scanner.ensemble import bundles
from scanner.ensemble.session import open_session
from scanner.evaluation.scores import cached_logits
from scanner.labelled_set import LabelledSet
from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Int64
from scanner.report.colour import UInt8, colour_image

COLUMNS, ROWS, HALF, SIDE, GAP, LABEL = 8, 2, 50, 180, 4, 15


def picture(dataset: LabelledSet, row: int) -> UInt8:
    """The inner 10" about an object, as far as the cutout reaches."""
    batch, _, _ = next(iter(dataset.batches(np.array([row], dtype=np.int64), 1)))
    colours = colour_image(batch.vis[0], batch.nisp[0], batch.sky[0], batch.sigma[0])
    y, x = np.rint(dataset.truth.position[row] / VIS_PIXEL_SCALE_ARCSEC).astype(int) + 100
    y, x = np.clip([y, x], HALF, 200 - HALF)
    return np.asarray(colours[y - HALF : y + HALF, x - HALF : x + HALF][::-1])


def sheet(dataset: LabelledSet, rows: Int64) -> UInt8:
    """Pictures of rows side by side, with what they are."""
    height, width = SIDE + LABEL + GAP, SIDE + GAP
    canvas = Image.new("RGB", (COLUMNS * width, ROWS * height), "white")
    draw = ImageDraw.Draw(canvas)
    truth = dataset.truth
    for number, row in enumerate(rows.tolist()):
        left, top = number % COLUMNS * width, number // COLUMNS * height
        canvas.paste(Image.fromarray(picture(dataset, row)).resize((SIDE, SIDE)), (left, top + LABEL))
        words = f"S/N {truth.arc_snr[row]:.0f}" if truth.is_lens[row] else str(truth.class_name[row]).replace("_", " ")
        draw.text((left + 2, top + 2), words, fill="black")
    return np.asarray(canvas)


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    for name in ("lenses", "others", "cache"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    bundle = bundles.load(arguments.bundle)
    sheets = []
    for path, lenses in ((arguments.others, False), (arguments.lenses, True)):
        dataset = LabelledSet(path)
        truth = dataset.truth
        rows = np.flatnonzero(truth.visible & truth.is_lens if lenses else ~truth.is_lens)
        scores = bundle.calibration.ranking_score(
            cached_logits(bundle, dataset, lambda: open_session(bundle), arguments.cache)
        )[rows]
        order = np.argsort(scores if lenses else -scores)[: COLUMNS * ROWS]
        sheets.append(sheet(dataset, rows[order]))
    Image.fromarray(np.vstack(sheets)).save(Path(__file__).with_suffix(".webp"), "WEBP", quality=80, method=6)


if __name__ == "__main__":
    main()
