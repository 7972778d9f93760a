"""What adapting wins back: a bundle is moved to a sky that it was never trained on, and adapted to it from mosaics alone.

    python benchmarks/blind_adaptation.py --lenses SETS/eval --others SETS/challenge --out DIR --hours 0.6

The second sky: PSF of VIS 0.25" and elongated, with the wings of a Moffat profile; noise 1.7 times as strong in VIS and 1.5
times in NISP, and correlated; galaxies clumpy in VIS on scales of 0.35"; other colours and zero points. Tiles are drawn
(``--tiles``, none with labels) and moved there; so are the two labelled sets, object by object. ``scanner.adapt`` sees the
moved tiles and nothing else. Then recall of the same lenses, at the same false-positive rates among the same non-lenses: on
the first sky, on the second before, with the bundle's own networks calibrated anew, and after; with 95% intervals of 2,000
resamples of both classes, paired. Lenses count whose arcs can be seen on both skies: what the second's noise hides is not
lost by the bundle.
Everything is kept in DIR: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from numpy.typing import NDArray
from pydantic import Field
from scipy import fft, ndimage

from scanner.cutouts import quality
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import Calibration, fit
from scanner.ensemble.session import open_session
from scanner.evaluation.scores import cached_logits
from scanner.interface.simulate import simulate
from scanner.interface.train import adapt
from scanner.interval import Interval, resampled_interval
from scanner.labelled_set import TRUTH, LabelledSet, writing_labelled_set
from scanner.processes import cores
from scanner.records import BANDS, Band, Float32, Float64, Int64, SealedRecord, Tile
from scanner.simulation.injection.places import flux_scale
from scanner.simulation.population.truth import VISIBLE_SNR
from scanner.simulation.telescope.noise import SKY_SIGMA, ZERO_POINT, bin3
from scanner.sky import tile_list
from scanner.training.adaptation import JUDGING_SETS
from scanner.training.assemble import SKY_PREVALENCE

RATES = (1e-2, 1e-3)
RESAMPLES = 2_000
#: FWHM in arcsec of the kernel along its major axis, its axis ratio and position angle: what makes 0.17" of VIS 0.25".
KERNEL: dict[Band, float] = {"VIS": 0.20, "Y": 0.25, "J": 0.25, "H": 0.25}
KERNEL_Q, KERNEL_ANGLE, MOFFAT_BETA = 0.7, 0.6, 2.5
#: Noise that is added, in units of the sky's, smoothed by a Gaussian of this width.
NOISE: dict[Band, float] = {"VIS": 1.5, "Y": 1.0, "J": 1.0, "H": 1.0}
NOISE_SMOOTHING_ARCSEC: dict[Band, float] = {"VIS": 0.07, "Y": 0.2, "J": 0.2, "H": 0.2}
#: Flux in units of the first sky's, which is a colour; and what one unit of a mosaic is.
COLOUR: dict[Band, float] = {"VIS": 1.0, "Y": 0.7, "J": 1.0, "H": 1.5}
NEW_ZERO_POINT: dict[Band, float] = {"VIS": 25.3, "Y": 28.0, "J": 28.5, "H": 29.0}
#: VIS light is multiplied by exp(strength x Gaussian field), whose grains are this wide: young stars lie in clumps, old do not.
CLUMPINESS, CLUMP_ARCSEC = 0.5, 0.35


def kernel(band: Band, scale: float) -> Float64:
    """The kernel on pixels of ``scale`` arcsec, summing to one; pixels are averaged over 5 x 5 points."""
    half, fine = round(2.0 / scale), 5
    axis = (np.arange(fine * (2 * half + 1)) - 0.5 * (fine * (2 * half + 1) - 1)) * scale / fine
    x, y = axis[None, :], axis[:, None]
    major = np.cos(KERNEL_ANGLE) * x + np.sin(KERNEL_ANGLE) * y
    minor = (np.cos(KERNEL_ANGLE) * y - np.sin(KERNEL_ANGLE) * x) / KERNEL_Q
    alpha = 0.5 * KERNEL[band] / np.sqrt(2.0 ** (1.0 / MOFFAT_BETA) - 1.0)
    values = (1.0 + (major**2 + minor**2) / alpha**2) ** -MOFFAT_BETA
    size = 2 * half + 1
    binned = values.reshape(size, fine, size, fine).sum(axis=(1, 3))
    return np.asarray(binned / binned.sum())


def moved(image: Float32, band: Band, scale: float, rng: np.random.Generator) -> tuple[Float32, float]:
    """An image (..., n, m) in the simulation's units on the second sky, in its units; and the noise that a pixel got."""
    lit = np.nan_to_num(image - np.nanmedian(image)).astype(np.float32)
    if band == "VIS":
        grains = (0,) * (lit.ndim - 2) + (CLUMP_ARCSEC / scale,) * 2
        field = ndimage.gaussian_filter(rng.standard_normal(lit.shape, dtype=np.float32), grains, mode="wrap")
        lit *= np.exp(CLUMPINESS * field / field.std() - 0.5 * CLUMPINESS**2)
    stamp = kernel(band, scale)
    pad = stamp.shape[0] // 2
    wide = np.pad(lit, [(0, 0)] * (lit.ndim - 2) + [(pad, pad)] * 2, mode="reflect")
    shape = [fft.next_fast_len(size, real=True) for size in wide.shape[-2:]]
    transform = fft.rfft2(wide, shape) * fft.rfft2(stamp.astype(np.float32), shape)
    blurred = fft.irfft2(transform, shape)[..., 2 * pad : 2 * pad + lit.shape[-2], 2 * pad : 2 * pad + lit.shape[-1]]
    sigma = (0,) * (lit.ndim - 2) + (NOISE_SMOOTHING_ARCSEC[band] / scale,) * 2
    smooth = ndimage.gaussian_filter(rng.standard_normal(lit.shape, dtype=np.float32), sigma)
    # The sky's noise is known of the pixels of a cutout: of 0.3" in NISP.
    seen = bin3(smooth[..., : lit.shape[-2] // 3 * 3, : lit.shape[-1] // 3 * 3]) if band != "VIS" and scale < 0.2 else smooth
    level = NOISE[band] * SKY_SIGMA[band] / float(seen.std())
    unit = 10.0 ** (0.4 * (NEW_ZERO_POINT[band] - ZERO_POINT[band]))
    out = (COLOUR[band] * blurred + level * smooth) * unit
    return np.where(np.isfinite(image), out, np.nan).astype(np.float32), level * float(smooth.std()) * unit


def move_tile(tile: Tile, out: Path, number: int) -> str:
    """Move a tile's mosaics and their RMS maps; returns its line in the tile list. Catalogues stay behind."""
    words = [f"id={tile.tile_id}"]
    for k, (band, files) in enumerate(tile.bands.items()):
        path = out / f"{tile.tile_id}-{band}.fits"
        rms_path = out / f"{tile.tile_id}-{band}-rms.fits"
        words += [f"{band}={path}", f"{band}_RMS={rms_path}", f"{band}_FLAG={files.flag}"]
        if rms_path.exists():
            continue
        with fits.open(files.image.path) as hdus:
            header, pixels = hdus[0].header.copy(), np.asarray(hdus[0].data, dtype=np.float32)
        scale = 3600.0 * abs(header.get("CD2_2", header.get("CDELT2")))
        to_simulation = flux_scale(header["MAGZERO"], band)
        image, level = moved(pixels / to_simulation, band, scale, np.random.default_rng([number, k]))
        header["MAGZERO"] = NEW_ZERO_POINT[band]
        fits.PrimaryHDU(image, header).writeto(path, overwrite=True)
        with fits.open(files.rms.path) as hdus:
            rms = np.asarray(hdus[0].data, dtype=np.float32)
        unit = COLOUR[band] * 10.0 ** (0.4 * (NEW_ZERO_POINT[band] - ZERO_POINT[band])) / to_simulation
        fits.PrimaryHDU(np.where(rms < 1e15, np.hypot(rms * unit, level), rms).astype(np.float32), header).writeto(
            rms_path, overwrite=True
        )
    return " ".join(words)


class ChosenSet(SealedRecord):
    """``dataset.json`` of objects of a labelled set."""

    purpose: str = "evaluation"
    part_of: str
    sha256: dict[str, str] = Field(default_factory=dict)


def chosen_set(given: LabelledSet, rows: Int64, out: Path, *, is_moved: bool) -> LabelledSet:
    """Some objects of a set, as they are or on the second sky."""
    if out.exists():
        return LabelledSet(out)
    truth, rng = pq.read_table(given.path / TRUTH), np.random.default_rng(len(given))
    with writing_labelled_set(out, truth.schema, "chosen") as writer:
        for some in np.array_split(rows, -(-len(rows) // 64)):
            batch = given.store.read(some)
            if is_moved:
                vis, _ = moved(batch.vis, "VIS", 0.1, rng)
                nisp = np.stack([moved(batch.nisp[:, k], band, 0.3, rng)[0] for k, band in enumerate(BANDS[1:])], axis=1)
                seen = quality.measure(vis, nisp)
                batch = replace(batch, vis=vis, nisp=nisp, sky=seen.sky, sigma=seen.sigma)
            writer.append(batch, truth.take(some).to_pylist())
        writer.finish(ChosenSet(part_of=given.fingerprint))
    return LabelledSet(out)


def visible_on_both(first: LabelledSet, second: LabelledSet) -> NDArray[np.bool_]:
    """Which lenses (N,) are visible still where VIS is noisier, by the signal-to-noise ratio of their arcs."""
    unit = COLOUR["VIS"] * 10.0 ** (0.4 * (NEW_ZERO_POINT["VIS"] - ZERO_POINT["VIS"]))
    here, there = (float(np.median(one.store.read(slice(0, 500)).sigma[:, 0])) for one in (first, second))
    return np.asarray(first.truth.arc_snr * here / (there / unit) > VISIBLE_SNR)


def recall(lenses: Float64, others: Float64, rate: float) -> Float64:
    """Recall (..., ) of (..., P) lenses where a share ``rate`` of (..., N) non-lenses passes."""
    threshold = np.quantile(others, 1.0 - rate, axis=-1, method="higher", keepdims=True)
    return np.asarray((lenses > threshold).mean(axis=-1))


def figures(scores: dict[str, tuple[Float64, Float64]], rate: float, seed: int = 0) -> dict[str, Interval]:
    """Recall of each case at a rate, and what of the loss is won back; the cases are of the same objects."""
    rng = np.random.default_rng(seed)
    lenses, others = (np.stack([pair[side] for pair in scores.values()]) for side in (0, 1))
    value = recall(lenses, others, rate)
    drawn = np.empty((RESAMPLES, len(scores)))
    for k in range(RESAMPLES):
        p, n = (rng.integers(0, size, size) for size in (lenses.shape[1], others.shape[1]))
        drawn[k] = recall(lenses[:, p], others[:, n], rate)
    found = {name: resampled_interval(float(value[k]), drawn[:, k]) for k, name in enumerate(scores)}
    home, before = value[:2]
    loss = drawn[:, 0] - drawn[:, 1]
    for k, name in enumerate(list(scores)[2:], 2):
        found[f"{name}: share of the loss won back"] = resampled_interval(
            float((value[k] - before) / (home - before)),
            (drawn[:, k] - drawn[:, 1]) / np.where(np.abs(loss) > 1e-3, loss, np.nan),
        )
    return found


def log_odds(bundle: Bundle, sets: Sequence[LabelledSet], cache: Path) -> list[Float32]:
    """What the members of a bundle say of all objects of each set, test-time augmentation included."""
    return [cached_logits(bundle, one, lambda: open_session(bundle, "auto", 1, cores()), cache) for one in sets]


def scored(bundle: Bundle, sets: Sequence[LabelledSet], cache: Path) -> tuple[Float64, Float64]:
    """Scores of all objects of each set."""
    lenses, others = (bundle.calibration.ranking_score(rows) for rows in log_odds(bundle, sets, cache))
    return lenses, others


def recalibrated(bundle: Bundle, painted: Sequence[LabelledSet], cache: Path) -> Calibration:
    """What adapting wins without training: the bundle's own networks, calibrated on painted lenses and own objects."""
    logits, truth = log_odds(bundle, painted, cache), [one.truth for one in painted]
    counted = [~one.is_lens | one.visible for one in truth]
    return fit(
        np.concatenate([rows[keep] for rows, keep in zip(logits, counted, strict=True)]),
        np.concatenate([one.is_lens[keep] for one, keep in zip(truth, counted, strict=True)]),
        sky_prevalence=SKY_PREVALENCE,
    )


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=None)
    for name in ("--lenses", "--others", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="of log-odds on the first sky")
    parser.add_argument("--data", action="append", default=[], help="simulated set that is trained on beside")
    parser.add_argument("--tiles", type=int, default=10)
    parser.add_argument("--size", type=int, default=6000)
    parser.add_argument("--used", type=int, default=10, help="tiles of them that the bundle is adapted to")
    parser.add_argument("--n-others", type=int, default=8000, help="non-lenses that judge, the first of --others")
    parser.add_argument("--n", type=int, default=6000)
    parser.add_argument("--hours", type=float, default=0.6)
    parser.add_argument("--stop-after", choices=["sky", "before", "adapt"])
    asked = parser.parse_args()
    out: Path = asked.out
    plain = simulate(out / "plain", asked.tiles, asked.size, seed=777, overlap=0.02, lenses_per_tile=2, density=1.3)
    (out / "moved").mkdir(exist_ok=True)
    listed = list(tile_list.read(plain.tile_list).tiles.values())[: asked.used]
    lines = [move_tile(tile, out / "moved", number) for number, tile in enumerate(listed)]
    (out / "moved" / "tile-list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lenses, others = LabelledSet(asked.lenses), LabelledSet(asked.others)
    seen = np.flatnonzero(lenses.truth.is_lens & lenses.truth.visible)
    plain_rows = np.flatnonzero(~others.truth.is_lens)[: asked.n_others]
    first = [chosen_set(lenses, seen, out / "first-lenses", is_moved=False), others]
    second = [
        chosen_set(lenses, seen, out / "second-lenses", is_moved=True),
        chosen_set(others, plain_rows, out / "second-others", is_moved=True),
    ]
    if asked.stop_after == "sky":
        return
    counted = visible_on_both(first[0], second[0])
    cache = out / "log-odds"
    bundle = bundles.load(asked.bundle)
    cases = {"first sky": (bundle, first, asked.cache or cache), "before": (bundle, second, cache)}
    scores = {name: scored(*case) for name, case in cases.items()}
    scores = {name: (pair[0][counted], pair[1]) for name, pair in scores.items()}
    scores["first sky"] = scores["first sky"][0], scores["first sky"][1][plain_rows]
    for name, pair in scores.items():
        print(name, [round(float(recall(*pair, rate)), 3) for rate in RATES], flush=True)
    if asked.stop_after == "before":
        return
    adapted = adapt(
        out / "moved" / "tile-list.txt",
        out / "adapted",
        asked.bundle,
        data=asked.data,
        n_objects=asked.n,
        hours=asked.hours,
        progress=True,
    )
    if asked.stop_after == "adapt":
        return
    judges = [LabelledSet(out / "adapted" / name) for name in JUDGING_SETS]
    calibrated = recalibrated(bundle, judges, out / "adapted" / "members" / "log-odds")
    lens_scores, other_scores = (calibrated.ranking_score(rows) for rows in log_odds(bundle, second, cache))
    scores["recalibrated"] = lens_scores[counted], other_scores
    lens_scores, other_scores = scored(bundles.load(adapted.path), second, cache)
    scores["after"] = lens_scores[counted], other_scores
    n_lenses, n_others = (len(part) for part in scores["after"])
    print(f"{n_lenses} visible lenses, {n_others} non-lenses")
    table = {f"{rate:g}": {name: str(value) for name, value in figures(scores, rate).items()} for rate in RATES}
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
