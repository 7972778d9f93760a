"""Whether it shows that something was painted: a probe tells painted look-alikes from objects as they are, or cannot.

    python benchmarks/painted_probe.py adapted/on-galaxies adapted/held-out-lenses adapted/held-out-sky

Non-lenses of painted sets: those with a companion or an unlensed source painted beside an early-type galaxy, against such
galaxies that nothing was painted to. The probe is gradient-boosted trees on statistics of the pixels of each band: noise, its
correlation, and how far the brightest and the sharpest pixels stand above it. It sees pixels more than 3.5" from the middle,
where both have the same, unrelated galaxies painted in; and, to compare, all pixels, where what was painted on purpose is
there to be seen. AUROC of objects on galaxies that it was not fitted on (five folds), with the 95% interval of DeLong.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from scanner.cutouts.quality import fill_bad_pixels
from scanner.evaluation.metrics import auroc_interval
from scanner.interval import Interval
from scanner.labelled_set import LabelledSet
from scanner.records import Float64

PAINTED, AS_THEY_ARE = ("companion", "tangential", "near_lens"), ("real_deflector",)
NEAR_ARCSEC, WIDTH_ARCSEC = 3.5, 20.0
QUANTILES = (0.01, 0.5, 0.9, 0.99, 0.999)


def statistics(dataset: LabelledSet, rows: NDArray[np.int64], *, away: bool) -> Float64:
    """Statistics of cutouts (n, F), of all pixels or of those away from the middle."""
    batch = dataset.store.read(rows)
    vis, nisp = fill_bad_pixels(batch)
    found = []
    for k in range(4):
        images = vis if k == 0 else nisp[:, k - 1]
        scaled = (images - batch.sky[:, k, None, None]) / batch.sigma[:, k, None, None]
        neighbours = [np.roll(scaled, step, axis) for axis in (1, 2) for step in (1, -1)]
        axis = np.abs(np.arange(images.shape[1]) - 0.5 * (images.shape[1] - 1)) * WIDTH_ARCSEC / images.shape[1]
        chosen = np.hypot(axis[:, None], axis[None, :]) > (NEAR_ARCSEC if away else 0.0)
        quiet = (np.abs(scaled) < 2.5) & chosen
        found.append(batch.sigma[:, k])
        found += [np.where(quiet, scaled * other, 0.0).sum(axis=(1, 2)) / quiet.sum(axis=(1, 2)) for other in neighbours[::2]]
        for values in (scaled, 4.0 * scaled - np.sum(neighbours, axis=0)):
            found += list(np.quantile(np.arcsinh(values[:, chosen]), QUANTILES, axis=1))
    return np.stack(found, axis=1).astype(np.float64)


def probe(features: Float64, is_painted: NDArray[np.bool_], galaxies: NDArray[np.int64], seed: int = 0) -> Interval:
    """AUROC of a probe on statistics (n, F); cutouts of one galaxy are in one fold."""
    model = HistGradientBoostingClassifier(max_iter=60, max_depth=3, learning_rate=0.08, random_state=seed)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    scores = cross_val_predict(model, features, is_painted, groups=galaxies, cv=folds, method="predict_proba")[:, 1]
    return auroc_interval(scores, is_painted)


def main() -> None:
    """Print two lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+")
    sets = [LabelledSet(path) for path in parser.parse_args().sets]
    rows = [np.flatnonzero(np.isin(one.truth.class_name, PAINTED + AS_THEY_ARE) & ~one.truth.is_lens) for one in sets]
    is_painted = np.concatenate(
        [np.isin(one.truth.class_name[chosen], PAINTED) for one, chosen in zip(sets, rows, strict=True)]
    )
    places = [np.round(np.stack([one.store.ra, one.store.dec])[:, chosen], 5) for one, chosen in zip(sets, rows, strict=True)]
    _, galaxies = np.unique(np.concatenate(places, axis=1), axis=1, return_inverse=True)
    print(f"{is_painted.sum()} painted, {(~is_painted).sum()} as they are; AUROC by")
    for away, name in ((True, f'pixels beyond {NEAR_ARCSEC}"'), (False, "all pixels")):
        features = np.concatenate([statistics(one, chosen, away=away) for one, chosen in zip(sets, rows, strict=True)])
        print(f"{name:20} {probe(features, is_painted, galaxies.ravel())}")


if __name__ == "__main__":
    main()
