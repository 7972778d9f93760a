"""Painted lenses drawn from a known law: what a recovery would write, without images, so that its truth is known."""

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit, logit
from scipy.stats import norm

from scanner.recovery.look import PICTURES_SCHEMA
from scanner.recovery.purity import ScannedRun, list_lengths
from scanner.report.self_contained import webp

#: What the law of a lens depends on, as named in ``lenses.parquet``.
DEEP, SHALLOW = 0.006, 0.012


@dataclass(frozen=True)
class DrawnSky:
    """A run's catalogue, best first: ``probability`` (N,), ``is_lens`` (N,) and the lenses' rows; ``area_deg2`` of sky."""

    probability: np.ndarray
    is_lens: np.ndarray
    lenses: dict[str, np.ndarray]
    area_deg2: float


def population(rng, n):
    """Columns of n lenses: larger rings have brighter deflectors, and what is bright has a high signal-to-noise ratio."""
    theta_e = np.clip(rng.gamma(4.0, 0.28, n), 0.35, 3.0)
    source = rng.normal(24.6, 0.8, n)
    sigma = np.where(rng.random(n) < 0.5, DEEP, SHALLOW)
    snr = 10 ** (1.9 - 0.4 * (source - 24.6) + 0.5 * np.log10(theta_e) - np.log10(sigma / DEEP) + rng.normal(0, 0.25, n))
    return {
        "theta_e_arcsec": theta_e,
        "arc_snr": snr,
        "source_magnitude_vis": source,
        "magnitude_vis": 21.0 - 1.4 * np.log(theta_e) + rng.normal(0, 0.5, n),
        "source_vis_minus_h": rng.normal(0.8, 0.5, n),
        "seen_sky_sigma": sigma,
        "vis_psf_fwhm_arcsec": rng.normal(0.17, 0.004, n),
        "visible": snr > 25,
        "is_compound": rng.random(n) < 0.15,
    }


def chance_scored(of):
    """The law of being scored at all, (N,): faint deflectors are not detected, one in twenty lies at an edge."""
    return 0.95 * expit(3.0 * (23.2 - of["magnitude_vis"]))


def log_odds(of):
    """Mean log-odds of the probability of those that are scored, (N,): a small ring needs a high signal-to-noise ratio."""
    steep = 1.5 + 2.5 * expit(6 * (of["theta_e_arcsec"] - 0.8))
    odds = -6.0 + steep * np.log10(of["arc_snr"]) * 1.4 + 0.4 * of["source_vis_minus_h"]
    return odds - 1.2 * of["is_compound"]


def completeness_above(of, threshold, scatter=1.2):
    """The true completeness at a threshold on the probability, (N,)."""
    return chance_scored(of) * norm.sf(logit(threshold), log_odds(of), scatter)


def drawn_scores(rng, of, scatter=1.2):
    """Probabilities, NaN where a lens is not scored."""
    scored = rng.random(len(of["arc_snr"])) < chance_scored(of)
    return np.where(scored, expit(log_odds(of) + rng.normal(0, scatter, len(scored))), np.nan)


def drawn_sky(seed, density=8.0, area_deg2=20.0, n_others=40_000):
    """A run's sky: visible lenses of the population at a density (Poisson), among other objects."""
    rng = np.random.default_rng(seed)
    pool = population(rng, int(3 * density * area_deg2) + 50)
    rows = np.flatnonzero(pool["visible"])[: rng.poisson(density * area_deg2)]
    lenses = {name: column[rows] for name, column in pool.items()}
    lenses["probability"] = drawn_scores(rng, lenses)
    scored = lenses["probability"][np.isfinite(lenses["probability"])]
    others = expit(rng.normal(-5.0, 2.0, n_others))
    probability = np.concatenate([scored, others])
    order = np.argsort(-probability)
    return DrawnSky(probability[order], (np.arange(len(order)) < len(scored))[order], lenses, area_deg2)


def painted_table(seed, n, sky, threshold=0.5):
    """``lenses.parquet`` of n lenses painted into a sky: columns that completeness and purity read."""
    rng = np.random.default_rng(seed)
    of = population(rng, n)
    probability = drawn_scores(rng, of)
    rank = 1 + np.searchsorted(-sky.probability, -probability)
    scored = np.isfinite(probability)
    fate = np.where(scored, "scored", np.where(rng.random(n) < 0.5, "not detected", "near an edge"))
    tile = rng.integers(0, 4, n)
    # A deep half and a shallow one.
    ra = np.where(of["seen_sky_sigma"] == DEEP, 10.0, 12.0) + 1.9 * rng.random(n)
    is_candidate = np.nan_to_num(probability) >= threshold
    # Lens models of all candidates: half of them are certified, and measure 4% too much, more or less.
    models = np.random.default_rng([seed, 1])
    is_certified = is_candidate & (models.random(n) < 0.5)
    verdict = np.where(is_certified, "certified", np.where(is_candidate, "no evidence", ""))
    measured = of["theta_e_arcsec"] * np.where(is_certified, models.normal(1.04, 0.03, n), models.normal(1.0, 0.4, n))
    return pa.table(
        of
        | {
            "reaches_models": is_candidate,
            "model_verdict": verdict,
            "model_theta_e": np.where(is_candidate, measured, np.nan),
            "target_id": np.arange(n),
            "seen_arc_snr": of["arc_snr"],
            "class_name": np.where(of["is_compound"], "compound", "lens"),
            "is_lens": np.ones(n, dtype=bool),
            "tile_id": [f"tile-{number}" for number in tile],
            "wave": rng.integers(0, 20, n),
            "ra": ra,
            "dec": -1.0 + 2.0 * rng.random(n),
            "fate": fate,
            "separation_arcsec": np.where(scored, 0.1, np.nan),
            "probability": probability.astype(np.float32),
            "ranking_score": probability.astype(np.float32),
            "grid_value": probability.astype(np.float32),
            "is_candidate": is_candidate,
            "rank": np.where(scored, rank, -1),
            "deflector_is_real": rng.random(n) < 0.5,
        }
    )


def pictures():
    """``pictures.parquet`` of the first four lenses, each a grey square."""
    square = webp(np.full((100, 100, 3), 90, dtype=np.uint8))
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pydict({"target_id": [0, 1, 2, 3], "picture": [square] * 4}, PICTURES_SCHEMA), buffer)
    return buffer.getvalue()


def run_of(sky, threshold=0.5):
    """The catalogue of a sky, counted."""
    n = len(sky.probability)
    return ScannedRun(
        run="sky-1",
        title="sky",
        bundle="bundle 1",
        sky_area_deg2=sky.area_deg2,
        n_objects=n,
        n_candidates=int((sky.probability >= threshold).sum()),
        threshold=threshold,
        steps=tuple((k, float(sky.probability[k - 1])) for k in list_lengths(n)),
    )
