"""What other surveys and small stamps lose: the same objects on other pixels, behind other PSFs, in fewer bands.

    python benchmarks/other_surveys.py stamps --set SETS/eval --n 200
    python benchmarks/other_surveys.py surveys --out FOLDER [--size 1600 --lenses 60]
    python benchmarks/other_surveys.py methods

``stamps``: cutouts cut down to a stamp, with sky and sigma of the stamp (``mad``) or of its darkest edge, against the whole
cutout. ``surveys``: a simulated tile on the pixels, behind the PSF and in the bands of other surveys, scanned at the same
positions. ``methods``: flux, place and rate of the ways to resample an image.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import erf
from sklearn.metrics import roc_auc_score

from scanner.config import CutoutsConfig, TargetsConfig
from scanner.cutouts import quality
from scanner.cutouts.extract import cut
from scanner.ensemble import bundles
from scanner.ensemble.session import Scorer
from scanner.imaging_surveys import SURVEYS
from scanner.labelled_set import LabelledSet
from scanner.records import BANDS, RESAMPLING_METHODS, BandFiles, Flag, Float64, ImageRef, Targets, Tile
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.sky import tile_list
from scanner.sky.alignment import map_pixels
from scanner.sky.mosaic import open_mosaic
from scanner.sky.regrid import ImageToResample, plane_at, resampled
from scanner.sky.targets import list_targets, pixel_positions
from scanner.sky.tile_images import open_tile
from scanner.survey.scan.tile import score_batch


def log_odds(probability: Float64) -> Float64:
    """Log-odds of probabilities, at most 20 either way."""
    clipped = np.clip(probability.astype(np.float64), 2e-9, 1 - 2e-9)
    return np.log(clipped / (1 - clipped))


def stamps(path: Path, n: int) -> None:
    """Print a line for each size of stamp and way of measuring its sky."""
    dataset = LabelledSet(path)
    whole = dataset.store.read(np.arange(min(n, len(dataset))))
    lens = dataset.truth.is_lens[: len(whole)]
    scorer = Scorer(bundles.load(None))
    native = score_batch(scorer, whole).calibrated
    print(f"{len(lens)} objects, {lens.sum()} lenses; whole cutouts: AUROC {roc_auc_score(lens, native):.3f}")
    for size in (60, 102, 150):
        half, few = size // 2, size // 6
        vis, nisp = np.full_like(whole.vis, np.nan), np.full_like(whole.nisp, np.nan)
        rows, low = slice(100 - half, 100 + half), slice(33 - few, 33 + few)
        vis[:, rows, rows], nisp[:, :, low, low] = whole.vis[:, rows, rows], whole.nisp[:, :, low, low]
        measured = quality.measure(vis, nisp)
        edges = np.array([[quality.darkest_edge(image) for image in (vis[i], *nisp[i])] for i in range(len(vis))], np.float32)
        for name, sky, sigma in (("mad", measured.sky, measured.sigma), ("darkest edge", edges[..., 0], edges[..., 1])):
            flags = whole.flags | np.uint32(Flag.PADDED)
            batch = replace(
                whole, vis=vis, nisp=nisp, sky=sky, sigma=sigma, bad_fraction=np.zeros_like(sky), flags=flags.astype(np.uint32)
            )
            found = score_batch(scorer, batch).calibrated
            change = log_odds(found) - log_odds(native)
            ratio = np.median(sigma / whole.sigma, axis=0)
            print(
                f'{size / 10:4.1f}" {name:13} AUROC {roc_auc_score(lens, found):.3f}, log-odds: '
                f"lenses {np.median(change[lens]):+.2f}, "
                f"others {np.median(change[~lens]):+.2f}, RMS {np.sqrt(np.mean(change**2)):.2f}; sigma x {np.round(ratio, 2)}",
                flush=True,
            )


def moved(pixels: Float64, old: WCS, new: WCS, shape: tuple[int, int]) -> Float64:
    """An image on other pixels, by a quintic spline at as many points of a pixel as the old ones are smaller; flux is kept."""
    area = abs(np.linalg.det(new.pixel_scale_matrix) / np.linalg.det(old.pixel_scale_matrix))
    n = max(1, round(2 * np.sqrt(area)))
    fine = (np.arange(n) + 0.5) / n - 0.5
    total = np.zeros(shape)
    for dy in fine:
        for dx in fine:
            y, x = np.indices(shape)
            at_x, at_y = map_pixels(new, old, x + dx, y + dy)
            total += map_coordinates(pixels, [at_y, at_x], order=5, mode="nearest")
    return total * area / n**2


def other_wcs(
    wcs: WCS, shape: tuple[int, int], scale: float, angle: float = 0.0, galactic: bool = False
) -> tuple[WCS, tuple[int, int]]:
    """A plane about the middle of an image: its pixels, turned; galactic ones are distorted too, by up to ten pixels."""
    middle = SkyCoord(*wcs.all_pix2world((shape[1] - 1) / 2, (shape[0] - 1) / 2, 0), unit="deg")
    size = tuple(int(n * 0.1 / scale * 0.98) for n in shape)
    new = WCS(naxis=2)
    ctype = ["GLON-TAN-SIP", "GLAT-TAN-SIP"] if galactic else ["RA---TAN", "DEC--TAN"]
    place = middle.galactic if galactic else middle
    new.wcs.ctype, new.wcs.crval = ctype, [place.spherical.lon.deg, place.spherical.lat.deg]
    new.wcs.crpix = [(size[1] + 1) / 2, (size[0] + 1) / 2]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    new.wcs.cd = np.array([[-cos, sin], [sin, cos]]) * scale / 3600
    if galactic:
        from astropy.wcs import Sip

        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], b[0, 2], b[1, 1] = 1.5e-5, -1e-5, 6e-6
        new.sip = Sip(a, b, None, None, new.wcs.crpix)
    new.wcs.set()
    return new, size


#: Name, pixels, turn, frame, bands, and PSF and depth of VIS where they are not Euclid's: a survey's filter.
CASES = (
    ('HST-like, VIS 0.05"', 0.05, 0.0, False, BANDS, None),
    ('turned, distorted, galactic, 0.13"', 0.13, 33.0, True, BANDS, None),
    ("VIS alone, as it is", 0.1, 0.0, False, ("VIS",), None),
    ('LSST-like, i alone, 0.2"', 0.2, 0.0, False, ("VIS",), SURVEYS["lsst"].filters["i"]),
)


def surveys(out: Path, size: int, lenses: int) -> None:
    """Print a line for each case: change of the log-odds, recall of the native scan's best, and AUROC."""
    listed = draw_tiles(TilesRequest(n_tiles=1, size=size, seed=11, lenses_per_tile=lenses, density=1.0), out / "sky", 1)
    del listed
    (tile,) = tile_list.read(out / "sky" / "tile-list.txt").tiles.values()
    scorer = Scorer(bundles.load(None), max_bad_fraction=0.25)
    config = CutoutsConfig()
    with open_tile(tile, config) as images:
        targets = list_targets(tile, images.vis, TargetsConfig(magnitude_limit=22.0)).targets
        edge = 110
        inside = (targets.x > edge) & (targets.x < size - edge) & (targets.y > edge) & (targets.y < size - edge)
        targets = targets.take(inside)
        native = scan(images, targets, scorer)
        mosaics = {band: (images.vis if band == "VIS" else images.nisp[band]) for band in BANDS}
        pixels = {
            band: np.nan_to_num(one.read(0, one.shape[0], 0, one.shape[1]).astype(np.float64)) for band, one in mosaics.items()
        }
        wcs = {band: one.wcs for band, one in mosaics.items()}
        zero = images.vis.zero_point
    lens = is_lens(out / "sky", targets)
    print(f"{len(lens)} objects to VIS 22, {lens.sum()} lenses; native AUROC {roc_auc_score(lens, native):.3f}", flush=True)
    for name, scale, angle, galactic, bands, camera in CASES:
        files = {}
        for band in bands:
            new, shape = other_wcs(wcs[band], pixels[band].shape, scale if band == "VIS" or galactic else 0.1, angle, galactic)
            light = pixels[band]
            if camera is not None:
                sigma = np.sqrt(max(camera.fwhm_arcsec**2 - 0.17**2, 0.0)) / 2.3548 / 0.1
                light = gaussian_filter(light, sigma)
            image = moved(light, wcs[band], new, shape)
            if camera is not None:
                # A point source at the depth is 5 sigma within the PSF's equivalent area, 4 pi sigma².
                area = 4 * np.pi * (camera.fwhm_arcsec / 2.3548 / scale) ** 2
                noise = 10 ** (0.4 * (zero - camera.depth_mag)) / 5 / np.sqrt(area)
                image += np.random.default_rng(1).normal(0, noise, shape)
            path = out / f"{band}-other.fits"
            header = new.to_header(relax=True)
            header["MAGZERO"] = zero
            fits.writeto(path, image.astype(np.float32), header, overwrite=True)
            files[band] = BandFiles(image=ImageRef(str(path)))
        with open_tile(Tile(tile_id="other", bands=files), config) as images:
            x, y, _ = pixel_positions(images.vis, targets.ra, targets.dec)
            here = replace(targets, x=x, y=y)
            found = scan(images, here, scorer)
        known = np.isfinite(found)
        change = log_odds(found[known]) - log_odds(native[known])
        best = np.argsort(-native)[: lens.sum()]
        kept = np.isin(best, np.argsort(-np.nan_to_num(found))[: lens.sum()]).mean()
        print(
            f"{name:36} scored {known.mean():.2f}; AUROC {roc_auc_score(lens[known], found[known]):.3f}; of the native best "
            f"{lens.sum()}, {kept:.2f} are again; log-odds: lenses {np.median(change[lens[known]]):+.2f}, others "
            f"{np.median(change[~lens[known]]):+.2f}, RMS {np.sqrt(np.mean(change**2)):.2f}",
            flush=True,
        )


def scan(images, targets: Targets, scorer: Scorer) -> Float64:
    """Calibrated probabilities in the order of the targets."""
    scores = {}
    for batch in cut(images, targets, 32):
        found = score_batch(scorer, batch)
        scores |= dict(zip(batch.targets.target_id.tolist(), found.calibrated.tolist(), strict=True))
    return np.array([scores[one] for one in targets.target_id.tolist()])


def is_lens(sky: Path, targets: Targets) -> np.ndarray:
    """Which targets lie within 1" of a visible lens of the truth."""
    import pyarrow.parquet as pq

    truth = pq.read_table(sky / "truth.parquet").to_pandas()
    lenses = truth[truth["is_lens"] & truth["visible"]]
    there = SkyCoord(lenses["ra"].to_numpy(), lenses["dec"].to_numpy(), unit="deg")
    _, distance, _ = SkyCoord(targets.ra, targets.dec, unit="deg").match_to_catalog_sky(there)
    return distance.arcsec < 1.0


def methods() -> None:
    """Print flux, place, width and rate of each way to resample, for pixels finer and coarser than ours."""
    print("pixels  method    flux error  place, px  width  Mpix/s")
    for scale, fwhm in ((0.05, 0.1), (0.13, 0.3), (0.2, 0.77)):
        with TemporaryDirectory() as folder:
            size = int(100 / scale)
            wcs = plane_at(150.0, 2.0)
            cos, sin = np.cos(0.5), np.sin(0.5)
            wcs.wcs.cdelt, wcs.wcs.pc, wcs.wcs.crpix = [-scale / 3600, scale / 3600], [[cos, -sin], [sin, cos]], [size / 2] * 2
            wcs.wcs.set()
            random = np.random.default_rng(2)
            x, y = random.uniform(0.2, 0.8, (2, 60)) * size
            image = np.zeros((size, size))
            width = fwhm / 2.3548 / scale * np.sqrt(2)
            for one, other in zip(x, y, strict=True):
                profiles = [np.diff(0.5 * erf((np.arange(size + 1) - 0.5 - at) / width)) for at in (other, one)]
                image += np.outer(*profiles)
            fits.writeto(f"{folder}/a.fits", image.astype(np.float32), wcs.to_header())
            target = plane_at(150.0, 2.0)
            target.wcs.crpix = [500.5, 500.5]
            target.wcs.set()
            at_x, at_y = map_pixels(wcs, target, x, y)
            reach = max(8, round(2.5 * fwhm / 0.1))
            with open_mosaic(BandFiles(image=ImageRef(f"{folder}/a.fits")), band="VIS") as mosaic:
                for method in RESAMPLING_METHODS:
                    start = time.process_time()
                    found = resampled(ImageToResample(mosaic), target, 1, 0, 0, (1000, 1000), method).pixels
                    seconds = time.process_time() - start
                    flux, place, widths = [], [], []
                    for px, py in zip(at_x, at_y, strict=True):
                        if np.hypot(at_x - px, at_y - py)[np.hypot(at_x - px, at_y - py) > 0].min() < 3 * reach:
                            continue
                        if not (reach < px < 999 - reach and reach < py < 999 - reach):
                            continue
                        x0, y0 = round(px), round(py)
                        part = found[y0 - reach : y0 + reach + 1, x0 - reach : x0 + reach + 1].astype(np.float64)
                        rows, columns = np.indices(part.shape)
                        total = part.sum()
                        cx, cy = (columns * part).sum() / total, (rows * part).sum() / total
                        flux.append(total - 1)
                        place.append(np.hypot(cx + x0 - reach - px, cy + y0 - reach - py))
                        widths.append(np.sqrt(((columns - cx) ** 2 * part).sum() / total))
                    true = np.hypot(fwhm / 2.3548, max(scale, 0.1) / np.sqrt(12)) / 0.1
                    print(
                        f'{scale:.2f}"   {method:9} {np.abs(flux).max():.1e}     {np.max(place):.4f}     '
                        f"{np.median(widths) / true:.3f}  "
                        f"{1.0 / seconds:.2f}",
                        flush=True,
                    )


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["stamps", "surveys", "methods"])
    parser.add_argument("--set", type=Path)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("other-surveys"))
    parser.add_argument("--size", type=int, default=1600)
    parser.add_argument("--lenses", type=int, default=60)
    asked = parser.parse_args()
    if asked.what == "stamps":
        stamps(asked.set, asked.n)
    elif asked.what == "surveys":
        surveys(asked.out, asked.size, asked.lenses)
    else:
        methods()


if __name__ == "__main__":
    main()
