"""What lens models are worth: Einstein radii of visible lenses, verdicts on them and on hard negatives, seconds.

    python benchmarks/modelling.py --set SETS/eval --out models.jsonl [--lenses 100 --negatives 100 --skip 60]
    python benchmarks/modelling.py --set SETS/challenge --out models.jsonl --negatives 500 --hardest 600 --cache CACHE
    python benchmarks/modelling.py --out models.jsonl --negatives 0 --lenses 0      # the table again

Lenses are visible, of one source, with all deflectors in one galaxy; negatives are of the classes that only arcs tell from
lenses or, with ``--hardest``, of the non-lenses that a bundle ranks highest, as a scan scores. Both are taken in an order that
depends on nothing but the set. What ``--out`` holds is not fitted again, so that the command goes on where it was stopped, and
several sets may be added one after the other. With ``--cache`` the bundle scores all sets, and networks and model are judged
together: on the lenses that rank among the negatives, each object by odds that were fitted to four fifths of the others.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from scanner.ensemble import bundles
from scanner.interval import Interval, wilson_interval
from scanner.labelled_set import LabelledSet
from scanner.modelling.candidate import model_cutout, model_terms
from scanner.modelling.observation import mean_of_euclid
from scanner.modelling.radius_network import RadiusPosterior
from scanner.records import BANDS, Float64, Int64

#: Errors of θ_E that count as good, and as catastrophic.
GOOD, CATASTROPHIC = 0.05, 0.2
ORDER_SEED = 0
FOLDS, RESAMPLES = 5, 1000
#: Shares of the negatives that may pass where recall is told.
PASSING = (0.05, 0.1, 0.2)


def main() -> None:
    """Fit what is not fitted yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, help="labelled set")
    parser.add_argument("--out", type=Path, required=True, help="what was found, a line an object; added to")
    parser.add_argument("--lenses", type=int, default=100, help="so many visible lenses [100]")
    parser.add_argument("--negatives", type=int, default=100, help="so many hard negatives [100]")
    parser.add_argument("--psf-width", type=float, default=1.0, help="fit with a PSF so many times as wide as the mean one [1]")
    parser.add_argument("--no-network", action="store_true", help="start anywhere, and take the lens of the most evidence")
    parser.add_argument("--hardest", type=int, help="negatives are among so many that the bundle ranks highest")
    parser.add_argument("--bundle", help="that bundle [the default one]")
    parser.add_argument("--cache", type=Path, help="folder of its scores")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first of each, on which something was chosen [0]")
    arguments = parser.parse_args()
    if arguments.hardest is not None and arguments.cache is None:
        parser.error("--hardest needs --cache, the folder of the bundle's scores")
    known = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    if arguments.set is not None:
        data = LabelledSet(arguments.set)
        done = {one["row"] for one in known if one["set"] == arguments.set.name}
        hard = np.flatnonzero(data.truth.is_hard_negative)
        log_odds = np.full(len(data), np.nan)
        if arguments.cache is not None:
            # As a scan scores; the bundle is loaded only here.
            from wide_sky import scores

            log_odds = scores(bundles.load(arguments.bundle), data, arguments.cache)
        if arguments.hardest is not None:
            others = np.flatnonzero(~data.truth.is_lens)
            hard = others[np.argsort(-log_odds[others], kind="stable")[: arguments.hardest]]
        rows = chosen(data, hard, arguments.lenses, arguments.negatives, arguments.skip)
        with arguments.out.open("a") as output:
            for row in rows:
                if row not in done:
                    one = measured(data, arguments.set.name, row, arguments.psf_width, not arguments.no_network)
                    known.append(one | {"log_odds": float(log_odds[row]) if arguments.cache else None})
                    output.write(json.dumps(known[-1]) + "\n")
                    output.flush()
    report(known)


def chosen(data: LabelledSet, hard: Int64, n_lenses: int, n_negatives: int, skip: int) -> list[int]:
    """Rows of lenses and negatives by turns, so that a run that is stopped has measured both."""
    rng = np.random.default_rng(ORDER_SEED)
    lenses = rng.permutation(np.flatnonzero(data.visible_single_lenses))
    negatives = rng.permutation(hard)
    parts = [lenses[skip : skip + n_lenses].tolist(), negatives[skip : skip + n_negatives].tolist()]
    longest = max(map(len, parts))
    return [part[k] for k in range(longest) for part in parts if k < len(part)]


def measured(data: LabelledSet, name: str, row: int, psf_width: float, network: bool) -> dict[str, Any]:
    """Fit one object; seconds are of the processor."""
    psfs = {band: mean_of_euclid(band, psf_width) for band in BANDS}
    began = time.process_time()
    model, _ = model_cutout(
        data.store.read(np.array([row])), name, "", psfs=psfs, radius=None if network else RadiusPosterior.flat()
    )
    seconds = time.process_time() - began
    theta_e = data.column("theta_e_arcsec")
    return {
        "set": name,
        "row": row,
        "class": str(data.truth.class_name[row]),
        "is_lens": bool(data.truth.is_lens[row]),
        "arc_snr": float(data.truth.arc_snr[row]),
        "theta_e": None if theta_e is None or not data.truth.is_lens[row] else float(theta_e[row]),
        "found": None if model.mass is None else model.mass.theta_e_arcsec,
        "error": None if model.mass is None else model.mass.theta_e_error_arcsec,
        "agreement": None if model.seen_radius is None else model.seen_radius.agreement,
        "pattern": model.pattern,
        "ln_evidence_ratio": model.ln_evidence_ratio,
        "counter_image_snr": model.counter_image_snr,
        "status": model.status,
        "verdict": model.verdict,
        "seconds": seconds,
    }


def report(found: list[dict[str, Any]]) -> None:
    """Print the table."""
    lenses, negatives = ([one for one in found if one["is_lens"] is kind] for kind in (True, False))
    modelled = [one for one in lenses if one["found"] is not None]
    print(f"{len(lenses)} visible lenses, {len(negatives)} hard negatives; intervals of 95 %")
    for title, rows in (
        ("all lenses", modelled),
        *((f"arc S/N {low} to {high}", [one for one in modelled if low <= one["arc_snr"] < high]) for low, high in
          ((25, 40), (40, 70), (70, 120), (120, 10_000))),
        ("certified", [one for one in modelled if one["verdict"] == "certified"]),
        ("certified or consistent", [one for one in modelled if one["verdict"] in ("certified", "consistent")]),
    ):  # fmt: skip
        off = np.array([abs(one["found"] / one["theta_e"] - 1.0) for one in rows])
        if len(off):
            print(
                f"{title:26s} n {len(off):4d}  median {np.median(off):.3f}  within 5 % {_share(off <= GOOD)}  "
                f"off by more than 20 % {_share(off > CATASTROPHIC)}"
            )
    inside = np.array([abs(one["found"] - one["theta_e"]) <= one["error"] for one in modelled])
    print(f"68 % intervals cover {_share(inside)}")
    for verdict in ("certified", "consistent", "no evidence", "better without a lens", "refused"):
        shares = [_share(np.array([one["verdict"] == verdict for one in rows])) for rows in (lenses, negatives)]
        print(f"{verdict:22s} lenses {shares[0]}  hard negatives {shares[1]}")
    pairs = [(one["ln_evidence_ratio"], one["is_lens"]) for one in found if one["ln_evidence_ratio"] is not None]
    if lenses and negatives:
        print(f"AUROC of ln_evidence_ratio {roc_auc_score([lens for _, lens in pairs], [ratio for ratio, _ in pairs]):.3f}")
        scored = [one for one in found if one.get("log_odds") is not None and one["agreement"] is not None]
        if any(one["is_lens"] for one in scored) and not all(one["is_lens"] for one in scored):
            report_together(scored)
    seconds = np.array([one["seconds"] for one in found])
    if len(seconds):
        print(f"seconds a candidate: median {np.median(seconds):.1f}, 95 % below {np.percentile(seconds, 95):.1f}")


def report_together(scored: list[dict[str, Any]]) -> None:
    """Print what networks and model are worth together, and the numbers of ``p_lens_modelled`` that all these objects give."""
    names = ("is_lens", "log_odds", "ln_evidence_ratio", "counter_image_snr", "agreement")
    is_lens, by_networks, ratio, counter, agreement = (np.array([one[name] for one in scored], np.float64) for name in names)
    seen = model_terms(ratio, counter, agreement).T
    # A lens below all negatives is on no list.
    listed = by_networks >= by_networks[is_lens == 0].min()
    is_lens, by_networks, seen = is_lens[listed] > 0, by_networks[listed], seen[listed]

    def added(rows: Any) -> tuple[Float64, float]:
        fitted = LogisticRegression(C=1e3).fit(np.c_[seen, by_networks][rows], is_lens[rows]).coef_[0, :-1]
        return fitted, -float(np.log(np.exp(seen[rows] @ fitted)[~is_lens[rows]].mean()))

    rng = np.random.default_rng(ORDER_SEED)
    fold, together = rng.integers(0, FOLDS, len(is_lens)), by_networks.copy()
    for number in range(FOLDS):
        coefficients, constant = added(fold != number)
        together[fold == number] += (seen @ coefficients + constant)[fold == number]
    lenses, others = np.flatnonzero(is_lens), np.flatnonzero(~is_lens)

    def figures(score: Float64, of: Any, against: Any) -> Float64:
        both = np.concatenate([of, against])
        recall = [float((score[of] > np.quantile(score[against], 1.0 - share)).mean()) for share in PASSING]
        return np.array([roc_auc_score(is_lens[both], score[both]), *recall])

    alone, with_model = (figures(score, lenses, others) for score in (by_networks, together))
    drawn = [(rng.choice(lenses, len(lenses)), rng.choice(others, len(others))) for _ in range(RESAMPLES)]
    gains = np.array([figures(together, *rows) - figures(by_networks, *rows) for rows in drawn])
    lowest = expit(by_networks.min())
    print(f"networks and model: {len(lenses)} lenses that rank among {len(others)} negatives, p above {lowest:.1e}")
    names = ("AUROC", *(f"recall at {share:g}" for share in PASSING))
    for name, before, after, gain in zip(names, alone, with_model, gains.T, strict=True):
        low, high = np.percentile(gain, (2.5, 97.5))
        print(f"  {name:14s} networks {before:.3f}  together {after:.3f}  gain {after - before:+.3f} [{low:+.3f}, {high:+.3f}]")
    coefficients, constant = added(np.full(len(is_lens), True))
    print(f"  odds: {constant:.2f}, " + ", ".join(f"{value:.2f}" for value in coefficients))


def _share(which: Any) -> str:
    interval: Interval = wilson_interval(int(np.sum(which)), len(which))
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}] ({int(np.sum(which))})"


if __name__ == "__main__":
    main()
