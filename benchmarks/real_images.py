"""Real lenses: where they would stand in a list, and whether brightness or a neighbour moves them.

    python benchmarks/real_images.py --bundle NAME --challenge SETS/challenge --cache CACHE

Reads the stamps of ``../shared/real``, two Euclid ones and one of HST (one band, duplicated for the others), a bundle,
non-lenses, and the folder where ``scanner evaluate --cache`` keeps log-odds. Every image is scored in eight orientations,
and what its judge gives it is averaged over them: the combination, or where bands are missing the member that sees only
those that are there. The Euclid images also come with their VIS image alone. Prints, for each:

- the share of simulated non-lenses that score higher (these in one orientation, as a scan sees them), by the judge, and what it
  would be by the combination;
- how many real cutouts of the two Euclid images whose centre is at least 3.5" from the lens, with nothing or anything else in
  it, score higher, eight orientations likewise: in an image of 10" the lens itself is in all of them;
- the change when all pixels are twice or half as bright;
- the change when a star of VIS 14.5, which saturates and bleeds, stands 6" to the right, left, top or bottom: the largest.

Changes are of the mean probability of OU-66, OU-VIS and OU-200, and of the share of non-lenses that score higher.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from scanner.config import CutoutsConfig
from scanner.cutouts.extract import cut
from scanner.cutouts.quality import measure
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import sigmoid
from scanner.ensemble.session import open_session
from scanner.evaluation.images import image_logits, judge_of, judged, known_lens_cutouts, read_images, read_known_lenses
from scanner.evaluation.scores import cached_logits
from scanner.labelled_set import LabelledSet
from scanner.records import BANDS, MEMBERS, CutoutBatch, Float32, Float64, MemberName, Targets
from scanner.simulation.population.galaxies import fluxes
from scanner.simulation.telescope.artefacts import SATURATION, add_bleeding, add_star
from scanner.simulation.telescope.noise import bin3
from scanner.simulation.telescope.psf import mean_psf, stack
from scanner.sky import tile_list
from scanner.sky.tile_images import open_tile

PREFIXES = ("VIS", "NIR_Y", "NIR_J", "NIR_H")
REAL = Path(__file__).resolve().parents[1] / ".." / "shared" / "real"
Q1 = REAL / "euclid-q1-102018665" / "102018665_NEG570040238507752998.fits"
GROUP = REAL / "euclid-group" / "group.fits"
JACKPOT = REAL / "jackpot" / "slacs0946+1006.fits"
#: Images and their bands, as in a tile list.
EUCLID = {
    name: " ".join(f"{band}={path}[{prefix}_{suffix}]" for band, prefix in zip(BANDS, PREFIXES, strict=True))
    for name, path, suffix in (("q1", Q1, "BGSUB"), ("group", GROUP, "FLUX"))
}
LARGEST = ("OU-66", "OU-VIS", "OU-200")
STAR_MAGNITUDE, STAR_ARCSEC = 14.5, 6.0
OFF_CENTRE_ARCSEC, STEP_ARCSEC = 3.5, 1.5
#: σ of the sky in the units that stars are drawn in: VIS 0.1" pixels, NISP 0.3" pixels.
SKY_SIGMA = np.array([0.00276, 4.25, 4.44, 4.16])


def probabilities(logits: Float32) -> Float64:
    """Those of the largest members, (3,), means over the orientations."""
    chosen = [MEMBERS.index(member) for member in LARGEST]
    return np.asarray(sigmoid(logits[:, chosen].astype(np.float64)).mean(axis=0))


@dataclass(frozen=True)
class Crowd:
    """What an image is ranked among: ``logits`` (N, 7) of non-lenses as scanned, ``elsewhere`` (M, 8, 7) of real cutouts."""

    bundle: Bundle
    logits: Float32
    elsewhere: Float32

    def percent_above(self, logits: Float32, judge: MemberName | None) -> float:
        """Share of the non-lenses to which the judge gives more than to an image, on average over its orientations."""
        own = judged(self.bundle, logits, judge).mean()
        return 100.0 * float((judged(self.bundle, self.logits, judge) > own).mean())

    def real_above(self, logits: Float32, judge: MemberName | None) -> int:
        """Number of the real cutouts to which the judge gives more, averages likewise."""
        own = judged(self.bundle, logits, judge).mean()
        return sum(bool(judged(self.bundle, other, judge).mean() > own) for other in self.elsewhere)


def changed(batch: CutoutBatch, vis: Float32, nisp: Float32) -> CutoutBatch:
    """The cutout with other pixels, its sky and σ measured anew."""
    quality = measure(vis, nisp)
    return replace(batch, vis=vis, nisp=nisp, sky=quality.sky, sigma=quality.sigma)


def with_star(batch: CutoutBatch, x_arcsec: float, y_arcsec: float) -> CutoutBatch:
    """The cutout with a saturated star, as deep above its own noise as in an image of the simulated survey."""
    light = np.zeros((len(BANDS), 200, 200), dtype=np.float32)
    x, y = 99.5 + x_arcsec / 0.1, 99.5 + y_arcsec / 0.1
    brightness = fluxes(STAR_MAGNITUDE, 0.4, 0.1, 0.1)
    psfs = [mean_psf(band) for band in BANDS]
    add_star(light, x, y, brightness, stack(psfs), STAR_MAGNITUDE, 0.4)
    add_bleeding(light[0], x, y, brightness[0], psfs[0], 0.4)
    # NISP pixels are three of VIS; a cutout of 66 covers all but the outermost pixel of VIS.
    star = [light[0], *(bin3(plane[1:199, 1:199]) for plane in light[1:])]
    vis, nisp = batch.vis.copy(), batch.nisp.copy()
    scale = batch.sigma[0] / SKY_SIGMA
    for image, one, factor, band in zip([vis[0], *nisp[0]], star, scale, BANDS, strict=True):
        image += np.minimum(one, SATURATION[band]).astype(np.float32) * np.float32(factor)
    return changed(batch, vis, nisp)


def off_centre(path: Path) -> Iterator[CutoutBatch]:
    """Cutouts on a grid over every image of a list, but for their middles."""
    for tile in tile_list.read(path).tiles.values():
        with open_tile(tile, CutoutsConfig()) as images:
            height, width = images.vis.shape
            step = STEP_ARCSEC / 0.1
            grid = [(x, y) for y in np.arange(5.0, height - 5, step) for x in np.arange(5.0, width - 5, step)]
            middle = np.array([(width - 1) / 2, (height - 1) / 2])
            kept = np.array([place for place in grid if np.hypot(*(place - middle)) * 0.1 >= OFF_CENTRE_ARCSEC])
            ra, dec = images.vis.wcs.all_pix2world(kept, 0).T
            targets = Targets(
                target_id=np.arange(len(kept), dtype=np.int64),
                ra=ra,
                dec=dec,
                x=kept[:, 0],
                y=kept[:, 1],
                magnitude=np.full(len(kept), np.nan, dtype=np.float32),
            )
            yield from cut(images, targets, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--challenge", type=Path, required=True, help="set of non-lenses")
    parser.add_argument("--cache", type=Path, required=True, help="log-odds of that set with this bundle")
    arguments = parser.parse_args()
    bundle = bundles.load(arguments.bundle)
    session = open_session(bundle, "auto", 1, 1)
    with TemporaryDirectory() as folder:
        images, listed = Path(folder) / "images.txt", Path(folder) / "known.txt"
        images.write_text("\n".join(f"id={name} {bands}" for name, bands in EUCLID.items()), encoding="utf-8")
        one_band = [f"id={name}-vis {bands.split()[0]}" for name, bands in EUCLID.items()]
        listed.write_text("\n".join([*one_band, f"id=jackpot VIS={JACKPOT} scale=0.05"]), encoding="utf-8")
        others = cached_logits(bundle, LabelledSet(arguments.challenge), lambda: session, arguments.cache)
        crowd = Crowd(bundle, others, np.stack([image_logits(batch, session) for batch in off_centre(images)]))
        known = read_known_lenses(listed)
        batches = read_images(images) | known_lens_cutouts(known)
    judges = {lens.name: judge_of(lens.images) for lens in known}

    print(f"{len(others):,} simulated non-lenses, {len(crowd.elsewhere)} real cutouts off centre")
    columns = f"{'image':10}{'OU-66 OU-VIS OU-200':>22}{'judge':>8}{'simulated above':>17}{'by all':>9}{'real above':>12}"
    print(f"{columns}  largest changes")
    for name, batch in batches.items():
        judge = judges.get(name)
        found = image_logits(batch, session)
        gains = [
            image_logits(changed(batch, batch.vis * factor, batch.nisp * factor), session)
            for factor in (np.float32(0.5), np.float32(2.0))
        ]
        sides = ((STAR_ARCSEC, 0.0), (-STAR_ARCSEC, 0.0), (0.0, STAR_ARCSEC), (0.0, -STAR_ARCSEC))
        stars = [image_logits(with_star(batch, x, y), session) for x, y in sides]
        words = []
        for what, variants in (("gain", gains), ("star", stars)):
            largest = np.max([np.abs(probabilities(other) - probabilities(found)) for other in variants], axis=0)
            shares = max(crowd.percent_above(other, judge) for other in variants)
            words.append(f"{what} {' '.join(f'{value:.3f}' for value in largest)}, {shares:.2f} % above")
        print(
            f"{name:10}{' '.join(f'{value:.2f}' for value in probabilities(found)):>22}{judge or 'all':>8}"
            f"{crowd.percent_above(found, judge):15.2f} %{crowd.percent_above(found, None):7.2f} %"
            f"{crowd.real_above(found, judge):12}  {'; '.join(words)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
