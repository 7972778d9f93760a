"""Whether a probe can tell lenses from non-lenses where there is no galaxy.

Run: ``python benchmarks/psf_trap.py [--n 6000] [--with-galaxies 2000] [--preset train]``. Boosted trees see numbers that tell
of PSF, noise and background (``scanner.simulation.datasets.cutouts``) of one half of the images and are tested on the other,
and in turn. Rows:

- sky alone: the exposures of lenses and non-lenses with all galaxies taken out,
- a star for the object: the same with a star of VIS 19-22 in the middle, which shows the PSF,
- shuffled labels: images with their galaxies, labels permuted,
- control, true labels: the same images; shows that the probe is able to learn,
- control, lenses not rolled: as the second row, but the telescope has one orientation for all lenses. The trap.

Then the share of lenses under each of the eight orientations in which training turns its images.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from scanner.ensemble.preprocessing import ORIENTATIONS
from scanner.records import BANDS
from scanner.simulation.datasets.cutouts import conditions, galaxy_free, observe, probe
from scanner.simulation.datasets.presets import LENS_CLASSES, PRESETS, CutoutScene, Preset, draw_scene, object_generator
from scanner.simulation.telescope.psf import draw_psf

_BATCH = 250


def scenes_of(preset: Preset, numbers: range) -> list[CutoutScene]:
    return [draw_scene(preset, object_generator(preset.name, 77, number)) for number in numbers]


def not_rolled(scene: CutoutScene) -> CutoutScene:
    if scene.class_name not in LENS_CLASSES:
        return scene
    psfs = tuple(draw_psf(scene.rng, band, 0.0) for band in BANDS)
    return replace(scene, exposure=replace(scene.exposure, psfs=psfs, roll=0.0))


def features(preset: Preset, n: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    rows, labels = [], []
    magnitudes = np.random.default_rng(1).uniform(19.0, 22.0, n)
    for start in range(0, n, _BATCH):
        scenes = scenes_of(preset, range(start, min(start + _BATCH, n)))
        labels += [scene.class_name in LENS_CLASSES for scene in scenes]
        if kind == "not rolled":
            scenes = [not_rolled(scene) for scene in scenes]
        if kind != "galaxies":
            stars = [None] * len(scenes) if kind == "sky" else magnitudes[start : start + len(scenes)].tolist()
            scenes = [galaxy_free(scene, star) for scene, star in zip(scenes, stars, strict=True)]
        drawn = observe(scenes, range(len(scenes)))
        rows.append(conditions(drawn.vis, drawn.nisp))
    return np.concatenate(rows), np.array(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=6000)
    parser.add_argument("--with-galaxies", type=int, default=2000)
    parser.add_argument("--preset", choices=list(PRESETS), default="train")
    options = parser.parse_args()
    # A band that is missing has no numbers.
    preset = PRESETS[options.preset].model_copy(update={"dropout": 0.0})
    print(f"{'images':32} {'n':>6} {'AUROC':>6}  95% interval")

    def row(name: str, found: tuple[np.ndarray, np.ndarray]) -> None:
        verdict = probe(*found)
        print(f"{name:32} {verdict.n_images:6} {verdict.auroc:6.3f}  {verdict.low:.3f} - {verdict.high:.3f}", flush=True)

    row("sky alone", features(preset, options.n, "sky"))
    row("a star for the object", features(preset, options.n, "star"))
    numbers, labels = features(preset, options.with_galaxies, "galaxies")
    row("shuffled labels", (numbers, np.random.default_rng(2).permutation(labels)))
    row("control, true labels", (numbers, labels))
    row("control, lenses not rolled", features(preset, options.n // 2, "not rolled"))

    from scanner.training.trainer import draw_orientations

    n = 40_000
    drawn = [draw_orientations(n, (0, epoch)) for epoch in range(10)]
    labels = np.random.default_rng(3).random(n) < preset.lens_share
    shares = [np.concatenate([labels[turned == turn] for turned in drawn]).mean() for turn in range(ORIENTATIONS)]
    print(f"share of lenses, orientations 0-7: {' '.join(f'{share:.3f}' for share in shares)}; all: {labels.mean():.3f}")


if __name__ == "__main__":
    main()
