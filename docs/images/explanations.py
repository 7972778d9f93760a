"""Figs. 11 to 13, 16 (Deep Dream) and 17 of Wilde et al. (2022), for a bundle of ours.

    python docs/images/explanations.py FOLDER_OF_REAL_IMAGES BUNDLE.webp [--bundle BUNDLE] [--dream-steps 1000]

Rows: simulated lenses, a compound arc, a double ring, the Jackpot (one band, in the place of the missing ones as in the paper;
what it does not cover is noise of its own σ), a Euclid lens and a group with a saturated star. Columns: VIS; occlusion of
OU-200 and of OU-66 (covered with blank sky); guided Grad-CAM of both; OU-66's VIS dreamt towards lens and towards non-lens.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from scanner.ensemble import bundles
from scanner.evaluation import images
from scanner.explain.ascent import deep_dream
from scanner.explain.display import enlarged, input_pictures, only, overlaid
from scanner.explain.maps import guided_grad_cam, occlusion, shown
from scanner.explain.networks import lens_output, network_input, restore, sky_level
from scanner.networks import LENS, NON_LENS
from scanner.records import CutoutBatch
from scanner.report.colour import UInt8, vis_image
from scanner.simulation import PresetName
from scanner.simulation.datasets.cutouts import draw
from scanner.simulation.datasets.dataset import batch_of
from scanner.simulation.datasets.presets import PRESETS

SIDE, GAP, LABEL = 132, 4, 16
#: The simulated rows: of a preset the first lenses whose arcs are bright, whatever the networks say of them.
SIMULATED: tuple[tuple[str, PresetName, int], ...] = (
    ("lens", "eval", 2),
    ("compound arc", "compound-arc", 1),
    ("double ring", "double-ring", 1),
)
SEED, LEAST_ARC_SNR, DRAWN = 3, 100.0, 48
REAL = """\
id=Jackpot VIS={folder}/jackpot/slacs0946+1006.fits scale=0.05
id=Euclid-lens VIS={q1}[VIS_BGSUB] Y={q1}[NIR_Y_BGSUB] J={q1}[NIR_J_BGSUB] H={q1}[NIR_H_BGSUB]
id=group VIS={group}[VIS_FLUX] Y={group}[NIR_Y_FLUX] J={group}[NIR_J_FLUX] H={group}[NIR_H_FLUX]
"""
COLUMNS = ("VIS", "occlusion OU-200", "occlusion OU-66", "Grad-CAM OU-200", "Grad-CAM OU-66", "dream: lens", "dream: none")


def objects(real: Path) -> dict[str, CutoutBatch]:
    """What is explained, by name."""
    found = {}
    for name, preset, count in SIMULATED:
        drawn = draw(PRESETS[preset], SEED, range(DRAWN))
        bright = [i for i, row in enumerate(drawn.truth) if row.verdict.is_lens and row.first.arc_snr > LEAST_ARC_SNR]
        for i in bright[:count]:
            found[f"{name} {i}"] = batch_of(drawn).take(np.array([i]))
    (q1,) = (real / "euclid-q1-102018665").glob("*.fits")
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "real.txt"
        listed.write_text(REAL.format(folder=real, q1=q1, group=real / "euclid-group" / "group.fits"))
        return found | images.known_lens_cutouts(images.read_known_lenses(listed))


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle")
    parser.add_argument("--dream-steps", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bundle = bundles.load(arguments.bundle)
    networks = restore(bundle)
    rows = []
    for name, cutout in objects(arguments.real.resolve()).items():
        vis = vis_image(cutout.vis[0], cutout.sky[0], cutout.sigma[0])
        panels: dict[str, tuple[UInt8, str]] = {"VIS": (vis, name)}
        for member in ("OU-200", "OU-66"):
            network, images = networks[member], network_input(bundle, member, cutout)
            probability = float(lens_output(network, images, "probability").detach()[0])
            map_ = occlusion(network, images, fill=sky_level(images))[0]
            panels[f"occlusion {member}"] = (overlaid(vis, map_), f"p = {probability:.2f}")
            mask = shown(guided_grad_cam(network, images))[0]
            panels[f"Grad-CAM {member}"] = (only(vis, mask), f"{mask.mean():.1%} of the pixels")
        for column, target in (("dream: lens", LENS), ("dream: none", NON_LENS)):
            dreamt = deep_dream(networks["OU-66"], network_input(bundle, "OU-66", cutout), target, steps=arguments.dream_steps)
            reached = f"{dreamt.reached[0, 0]:.1f} to {dreamt.reached[-1, 0]:.1f}"
            panels[column] = (input_pictures("OU-66", dreamt.images[0])["VIS"], reached)
        rows.append(row([panels[column] for column in COLUMNS]))
        print(name, flush=True)
    sheet = np.concatenate([header(), *rows])
    Image.fromarray(sheet).save(arguments.out, quality=72, method=6)


def row(panels: list[tuple[UInt8, str]]) -> UInt8:
    """Panels side by side, each with a line under it."""
    return np.concatenate([labelled(enlarged(image, SIDE)[::-1], text) for image, text in panels], axis=1)


def header() -> UInt8:
    """The names of the columns."""
    return np.concatenate([labelled(np.zeros((0, SIDE, 3), np.uint8), column) for column in COLUMNS], axis=1)


def labelled(image: UInt8, text: str) -> UInt8:
    """An image with a line of text under it, and a gap to the right."""
    canvas = Image.new("RGB", (SIDE + GAP, len(image) + LABEL), (23, 26, 31))
    canvas.paste(Image.fromarray(np.ascontiguousarray(image)) if len(image) else canvas.crop((0, 0, 1, 1)), (0, 0))
    ImageDraw.Draw(canvas).text((2, len(image) + 1), text, fill=(231, 234, 238), font=ImageFont.load_default(11))
    return np.asarray(canvas)


if __name__ == "__main__":
    main()
