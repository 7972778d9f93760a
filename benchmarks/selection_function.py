"""Is a selection function right? Lenses of a known law: completeness and purity against the truth, models side by side.

    python benchmarks/selection_function.py [--n 20000] [--skies 20]
    python benchmarks/selection_function.py --mosaic FOLDER [--n 300]
    python benchmarks/selection_function.py --known FOLDER [--n 200 --objects 60 --size 1800 --skies 20]
    python benchmarks/selection_function.py --depth FOLDER [--n 800]
    python benchmarks/selection_function.py --real FOLDER [--n 600 --models 0]

The second draws a tile, scans it and paints lenses into it twice: what each recovery predicts is held to the other's bins. The
third paints lenses and look-alikes into copies of four drawn tiles, as often as there are skies, and scans those. What one
recovery with another seed predicts is held to the truth: recall, and how many lenses the best 50, 200 and 1,000 objects hold.
The fourth makes half of a tile twice as noisy, and compares the map's cells of both halves with what was found there.
The fifth paints into real pixels, the Euclid field of 30" of ``../shared/real``: completeness by Einstein radius and magnitude
of the source; with ``--models`` the run's best object has a lens model, and so many of the painted lenses that rank as high.
FOLDER/recovery/recovery.html shows ten lenses that the run makes candidates of, and ten that it does not.
"""

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from painted import completeness_above, drawn_sky, painted_table, population, run_of
from scipy.spatial import cKDTree
from sklearn.ensemble import HistGradientBoostingClassifier

import scanner
from scanner.interface.recovery import scanned_run
from scanner.interval import wilson_interval
from scanner.records import BANDS
from scanner.recovery.completeness import AXES, Cut, PaintedLenses, SmoothModel, bins, ladder
from scanner.recovery.lenses import LENSES
from scanner.recovery.products import MAP
from scanner.recovery.purity import Assumptions, yields
from scanner.recovery.selection import CARD
from scanner.recovery.stage import ranked
from scanner.sphere import chord, unit_vectors

THRESHOLDS = (0.05, 0.5, 0.9)
#: Lengths of the lists whose purity is compared.
LISTS = (50, 200, 1000)
CUTS = tuple(Cut(kind="threshold", value=value) for value in THRESHOLDS)
#: Completeness rises with Einstein radius and signal-to-noise ratio.
RISING = [1, 1, 0, 0, 0, 0, 0]
BOOSTED = {
    "boosted trees": {},
    "boosted trees, monotonic": {"monotonic_cst": RISING},
    "boosted trees, monotonic, small": {
        "monotonic_cst": RISING, "learning_rate": 0.05, "max_leaf_nodes": 8, "min_samples_leaf": 100, "early_stopping": True,
    },
}  # fmt: skip
#: Bootstrap samples for the interval of boosted trees.
RESAMPLES = 20


def models(n: int) -> None:
    """Error, width and coverage of the models of completeness, at the law's own lenses."""
    lenses = PaintedLenses.of(painted_table(2, n, drawn_sky(1)))
    asked = population(np.random.default_rng(9), 4000)
    values = np.stack([asked["arc_snr" if axis.name == "arc_snr" else axis.column] for axis in AXES], axis=1)
    start = time.process_time()
    model = SmoothModel.fit(lenses, CUTS)
    seconds = (time.process_time() - start) / len(CUTS)
    painted, wanted = (
        np.stack([axis.scaled(part[:, k]) for k, axis in enumerate(AXES)], axis=1) for part in (lenses.values, values)
    )
    rows = []
    for threshold, cut in zip(THRESHOLDS, CUTS, strict=True):
        truth = sum(
            share * completeness_above(asked | {"is_compound": np.full(4000, flag)}, threshold)
            for share, flag in ((0.85, False), (0.15, True))
        )
        found = model.at(cut, values)
        rows.append(("splines", threshold, found.value, found.low, found.high, truth, seconds))
        for name, settings in BOOSTED.items():
            start = time.process_time()
            fit = HistGradientBoostingClassifier(random_state=0, **settings).fit(painted, lenses.found(cut))
            spent = time.process_time() - start
            rng = np.random.default_rng(0)
            drawn = []
            for _ in range(RESAMPLES):
                some = rng.integers(0, len(lenses), len(lenses))
                again = HistGradientBoostingClassifier(random_state=0, **settings).fit(painted[some], lenses.found(cut)[some])
                drawn.append(again.predict_proba(wanted)[:, 1])
            spread = 1.96 * np.std(drawn, axis=0, ddof=1)
            share = fit.predict_proba(wanted)[:, 1]
            rows.append((name, threshold, share, share - spread, share + spread, truth, spent))
    print(f"{n:,} painted lenses; at 4,000 others of the same law, candidates by probability:")
    print(f"{'model':34}{'p ≥':>6}{'rms error':>11}{'bias':>9}{'width':>8}{'covers':>8}{'s a fit':>9}")
    for name, threshold, value, low, high, truth, spent in rows:
        error, inside = value - truth, (low <= truth) & (truth <= high)
        print(
            f"{name:34}{threshold:6.2f}{np.sqrt(np.mean(error**2)):11.4f}{error.mean():+9.4f}{np.mean(high - low):8.3f}"
            f"{inside.mean():8.2f}{spent:9.2f}"
        )


def closure(n: int) -> None:
    """Completeness that one recovery predicts, in the bins of another."""
    sky = drawn_sky(1)
    cuts = (*(Cut(kind="top", value=value) for value in (50, 200, 1000)), Cut(kind="candidates"), Cut(kind="scored"))
    model = SmoothModel.fit(PaintedLenses.of(painted_table(2, n, sky)), cuts)
    made = bins(PaintedLenses.of(painted_table(3, n, sky)), cuts, model)
    inside = [one.completeness_low <= one.predicted <= one.completeness_high for one in made]
    print(f"\nCompleteness of another {n:,} lenses is within its interval in {np.mean(inside):.1%} of {len(made)} bins.")


def purity(n: int, n_skies: int) -> None:
    """Purity of lists of many skies."""
    within = dict.fromkeys(LISTS, 0)
    for seed in range(n_skies):
        sky = drawn_sky(1000 + seed)
        lenses = PaintedLenses.of(painted_table(2000 + seed, n, sky))
        cuts = [Cut(kind="top", value=length) for length in LISTS]
        for length, found in zip(LISTS, yields(lenses, run_of(sky), cuts, Assumptions(density_error=0.0)), strict=True):
            within[length] += found.purity.low <= sky.is_lens[:length].mean() <= found.purity.high
    print(f"Purity is within its interval in {', '.join(f'{k} of {n_skies} skies (top {n})' for n, k in within.items())}.")


def mosaic(folder: Path, n: int) -> None:
    """Closure of two recoveries of a simulated tile; a folder that holds them already is only compared."""
    if not (folder / "sky").exists():
        scanner.simulate(folder / "sky", 1, 1800, seed=5, lenses_per_tile=8, workers=1)
    run = scanner.scan(folder / "sky" / "tile-list.txt", folder / "run", workers=1)
    painted = []
    for seed in (1, 2):
        start = time.perf_counter()
        report = scanner.recover(run, out=folder / f"recovery-{seed}", n=n, seed=seed, workers=1)
        print(f"seed {seed}: {report.record.fates}; {time.perf_counter() - start:.0f} s")
        painted.append(PaintedLenses.of(pq.read_table(folder / f"recovery-{seed}" / LENSES)))
    n_objects = scanned_run(run).n_objects
    for first, second in (painted, painted[::-1]):
        cuts = ladder(n_objects, first)
        model = SmoothModel.fit(first, cuts)
        made = bins(second, cuts, model)
        inside = [one.completeness_low <= one.predicted <= one.completeness_high for one in made]
        print(
            f"{len(first)} lenses predict {len(second)} others: within {np.mean(inside):.1%} of {len(made)} intervals; "
            f"log loss of lenses left out {model.held_out.log_loss:.3f}, of one share {model.held_out.log_loss_of_share:.3f}"
        )


def known(folder: Path, n: int, n_objects: int, size: int, n_skies: int) -> None:
    """Lenses among the best objects of scans of painted skies, and their recall, against what one recovery predicts.

    Skies differ in what is painted. The recovery is of the first; in each its lenses have the ranks that they would have there.
    """
    if not (folder / "sky").exists():
        scanner.simulate(folder / "sky", 4, size, seed=6, lenses_per_tile=0, workers=1)
    painted, inside = None, dict.fromkeys(LISTS, 0)
    for number in range(n_skies):
        mosaics = folder / f"painted-{number}"
        scanner.inject(
            folder / "sky" / "tile-list.txt", mosaics, n_objects,
            preset="survey", seed=9 + number, ground="galaxies", mosaics=True, workers=1,
        )  # fmt: skip
        run = scanner.scan(mosaics / "tile-list.txt", folder / f"run-{number}", workers=1, keep="none")
        if painted is None:
            scanner.recover(run, out=folder / "recovery", n=n, seed=3, ground="galaxies", workers=1)
            painted = pq.read_table(folder / "recovery" / LENSES)
        for image in mosaics.rglob("*.fits"):
            image.unlink()
        config = run.record.config.catalogue
        lenses = PaintedLenses.of(ranked(painted, run.published.open_catalogue(), config.rank, config.duplicate_radius_arcsec))
        truth = pq.read_table(mosaics / "truth.parquet").to_pandas()
        truth = truth[truth["is_lens"] & truth["visible"]]
        rows = run.query(sql="SELECT rank, ra, dec FROM objects ORDER BY rank", arrow=True).to_pandas()
        apart = unit_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy()), unit_vectors(*truth[["ra", "dec"]].to_numpy().T)
        nearest = cKDTree(apart[0]).query(apart[1], distance_upper_bound=chord(1.0))[1]
        listed = rows.iloc[nearest[nearest < len(rows)]]
        about = scanned_run(run)
        cuts = [Cut(kind="top", value=length) for length in LISTS if length <= about.n_objects]
        assumed = Assumptions(density_deg2=len(truth) / about.sky_area_deg2, density_error=0.0)
        print(f"sky {number}: {about.n_objects} objects, {len(truth)} visible lenses; {len(lenses)} lenses of the recovery:")
        for cut, made in zip(cuts, yields(lenses, about, cuts, assumed), strict=True):
            n_true = int((listed["rank"] <= cut.value).sum())
            recall = wilson_interval(n_true, len(truth))
            inside[int(cut.value)] += made.n_lenses.low <= n_true <= made.n_lenses.high
            print(
                f"  {cut}: {n_true} lenses, predicted {made.n_lenses.value:.1f} "
                f"[{made.n_lenses.low:.0f}, {made.n_lenses.high:.0f}]; recall {recall.value:.2f} "
                f"[{recall.low:.2f}, {recall.high:.2f}], predicted {made.completeness.value:.2f}",
                flush=True,
            )
    print(f"Within the interval in {', '.join(f'{k} of {n_skies} skies (top {length})' for length, k in inside.items())}.")


def depth(folder: Path, n: int) -> None:
    """The map of a tile with a deep and a shallow half."""
    rng = np.random.default_rng(0)
    if not (folder / "sky").exists():
        scanner.simulate(folder / "sky", 1, 3600, seed=7, lenses_per_tile=0, workers=1)
        for path in sorted((folder / "sky").rglob("EUC_MER_*MOSAIC*.fits")):
            with fits.open(path, mode="update") as opened:
                pixels = next(one.data for one in opened if one.data is not None)
                half = pixels[:, pixels.shape[1] // 2 :]
                if "-RMS_" in path.name:
                    half *= 2
                elif "-FLAG_" not in path.name:
                    half += rng.normal(0, 3**0.5 * 1.4826 * np.median(np.abs(half - np.median(half))), half.shape)
    run = scanner.scan(folder / "sky" / "tile-list.txt", folder / "run", workers=1)
    scanner.recover(run, out=folder / "recovery", n=n, seed=1, workers=1)
    cells = Table.read(folder / "recovery" / MAP)
    middle = float(np.sqrt(cells["SKY_SIGMA"].min() * cells["SKY_SIGMA"].max()))
    lenses = pq.read_table(folder / "recovery" / LENSES).to_pandas()
    lenses = lenses[lenses["is_lens"] & lenses["visible"]]
    for name, there, painted in (
        ("deep", cells[cells["SKY_SIGMA"] < middle], lenses[lenses["seen_sky_sigma"] < middle]),
        ("shallow", cells[cells["SKY_SIGMA"] >= middle], lenses[lenses["seen_sky_sigma"] >= middle]),
    ):
        share = wilson_interval(int(painted["is_candidate"].sum()), len(painted))
        value, low, high = (there[column] for column in ("COMPLETENESS", "COMPLETENESS_LOW", "COMPLETENESS_HIGH"))
        print(
            f"{name}: {len(there)} cells of order {cells.meta['ORDER']}, noise {there['SKY_SIGMA'].mean():.4f}; completeness "
            f"{value.min():.2f} to {value.max():.2f} [{low.min():.2f}, {high.max():.2f}]; "
            f"{len(painted)} visible lenses, found {share}"
        )


REAL = Path(__file__).parents[1] / ".." / "shared" / "real" / "euclid-group" / "group.fits"


def real(folder: Path, n: int, n_models: int) -> None:
    """Completeness in real pixels, and what was found and lost there."""
    folder.mkdir(exist_ok=True)
    words = ["id=group"]
    for band, name in zip(BANDS, ("VIS", "NIR_Y", "NIR_J", "NIR_H"), strict=True):
        words += [
            f"{band}{key}={REAL.resolve()}[{name}_{part}]" for key, part in (("", "FLUX"), ("_RMS", "RMS"), ("_PSF", "PSF"))
        ]
    (folder / "tile-list.txt").write_text(" ".join(words) + "\n")
    run = scanner.scan(folder / "tile-list.txt", folder / "run", workers=1)
    if n_models:
        scanner.model(run, top=1, workers=1)
    report = scanner.recover(run, out=folder / "recovery", n=n, seed=1, models=n_models, workers=1)
    print((folder / "recovery" / CARD).read_text(encoding="utf-8"))
    lenses = pq.read_table(folder / "recovery" / LENSES).to_pandas()
    whole = lenses[lenses["is_lens"] & lenses["visible"] & (lenses["fate"] != "near an edge")]
    print(f"{report.record.fates}; {len(whole)} visible lenses away from the edges:")
    for name, edges in (
        ("theta_e_arcsec", (0.3, 0.6, 0.8, 1.0, 1.3, 3.0)),
        ("source_magnitude_vis", (21, 23.5, 24.5, 25, 25.5, 27)),
    ):
        for low, high in pairwise(edges):
            some = whole[(whole[name] >= low) & (whole[name] < high)]
            share = wilson_interval(int(some["is_candidate"].sum()), len(some))
            print(f"  {name} {low:g} to {high:g}: {share.value:.2f} [{share.low:.2f}, {share.high:.2f}], n {len(some)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, help="painted lenses [default: 20000; into a mosaic 300]")
    parser.add_argument("--mosaic", type=Path, help="folder for a simulated tile, its scan and two recoveries")
    parser.add_argument("--skies", type=int, default=20, help="skies whose purity is predicted")
    parser.add_argument("--known", type=Path, help="folder for painted mosaics, their scan and a recovery of it")
    parser.add_argument("--objects", type=int, default=60, help="lenses and look-alikes in the painted mosaics")
    parser.add_argument("--size", type=int, default=1800, help="pixels along a side of the four tiles")
    parser.add_argument("--depth", type=Path, help="folder for a tile of two depths, its scan and a recovery")
    parser.add_argument("--real", type=Path, help="folder for the scan of real pixels and a recovery there")
    parser.add_argument("--models", type=int, default=0, help="lens models of lenses painted into real pixels")
    given = parser.parse_args()
    if given.known is not None:
        known(given.known, given.n or 200, given.objects, given.size, given.skies)
        sys.exit()
    if given.real is not None:
        real(given.real, given.n or 600, given.models)
        sys.exit()
    if given.depth is not None:
        depth(given.depth, given.n or 800)
        sys.exit()
    if given.mosaic is not None:
        mosaic(given.mosaic, given.n or 300)
        sys.exit()
    models(given.n or 20_000)
    closure(given.n or 20_000)
    purity(min(given.n or 20_000, 5000), given.skies)
