"""Whether errors of lens models are those of their posteriors: Laplace's approximation beside samples of the same posterior.

    python benchmarks/modelling_posterior.py --set SETS/eval [--n 20 --steps 3000]

For each visible single lens, taken in an order that depends on nothing but the set, the best lens is fitted, and the posterior
of its numbers sampled from there by Metropolis-adjusted Langevin steps in the metric of Laplace's covariance. Fluxes are at
their best everywhere, as in the fit; what a network sees is left out of both.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from scanner.labelled_set import LabelledSet
from scanner.modelling.candidate import MOST_COMPANIONS, fit_lens, with_more
from scanner.modelling.deflector_light import fit_deflector
from scanner.modelling.observation import observe
from scanner.modelling.radius_network import in_use
from scanner.modelling.scene_fit import Fit, Problem, _evaluate, _limits, fit, nothing, priors
from scanner.records import Float64

ORDER_SEED = 0
#: Of the steps, those at the beginning in which the length of a step is found, and that are left out.
BURN_IN = 0.3
#: Independent samples that a walk must be worth to count.
ENOUGH = 30
#: Length of a step at first, over the sixth root of the number of dimensions, and the share of the steps that shall be taken.
STEP, TAKEN = 1.3, 0.57


def main() -> None:
    """Sample, and print a line for each lens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, help="labelled set")
    parser.add_argument("--n", type=int, default=20, help="so many lenses [20]")
    parser.add_argument("--steps", type=int, default=3000, help="steps of each walk [3000]")
    arguments = parser.parse_args()
    data = LabelledSet(arguments.set)
    rows = np.random.default_rng(ORDER_SEED).permutation(np.flatnonzero(data.visible_single_lenses))[: arguments.n]
    theta_e = data.column("theta_e_arcsec")
    assert theta_e is not None
    ratios, shifts = [], []
    for row in rows.tolist():
        began = time.process_time()
        cutout = data.store.read(np.array([row]))
        with threadpool_limits(1), np.errstate(all="ignore"):
            seen = observe(cutout)
            problem = Problem(seen, fit_deflector(seen))
            alone = with_more(problem, nothing(problem), MOST_COMPANIONS)
            found = fit_lens(problem, alone, in_use().posterior(cutout))
            # To the bottom: samples should begin there.
            found = fit(problem, found.scene, 100, tolerance=1e-3)
            walk, taken = sampled(problem, found, arguments.steps, row)
        error = math.sqrt(found.covariance[0, 0])
        ratio, shift = float(walk.std()) / error, (float(walk.mean()) - float(found.scene.vector[0])) / error
        worth = effective(walk)
        if worth >= ENOUGH:
            ratios.append(ratio)
            shifts.append(shift)
        print(
            f"row {row:5d}  θ_E {theta_e[row]:.2f}, found {math.exp(found.scene.vector[0]):.3f}  "
            f"error of ln θ_E {error:.4f}, of samples {walk.std():.4f}, ratio {ratio:.2f}  "
            f"mean off by {shift:+.2f} errors  {worth:.0f} effective samples, {taken:.2f} taken  "
            f"{len(found.scene.vector)} numbers  {time.process_time() - began:.0f} s",
            flush=True,
        )
    print(
        f"{len(ratios)} of {len(rows)} walks are worth {ENOUGH} samples or more. There samples scatter {min(ratios):.2f} to "
        f"{max(ratios):.2f} times as much as Laplace's approximation, {np.median(ratios):.2f} in the median; "
        f"their mean is off by {np.max(np.abs(shifts)):.2f} errors at most"
    )


def sampled(problem: Problem, found: Fit, steps: int, seed: int) -> tuple[Float64, float]:
    """Walk in all numbers; ln θ_E along a walk, without its beginning, and the share of the steps that were taken."""
    rng = np.random.default_rng(seed)
    middle, width = priors(found.scene, problem.deflector)
    low, high = _limits(found.scene)
    covariance = found.covariance
    # Of galaxies that have no flux, or are as round as may be, the curvature says nothing.
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 1e-9 * values.max()))
    covariance = root @ root.T
    length = STEP / len(middle) ** (1.0 / 6.0)
    here, walk, taken, settled = found.scene.vector, [], 0, int(BURN_IN * steps)
    state = _evaluate(problem, found.scene, middle, width)
    for number in range(steps):
        chance = 0.0
        drift = 0.5 * length**2 * covariance @ state.slope
        noise = rng.standard_normal(len(here))
        there = here + drift + length * root @ noise
        if ((there > low) & (there < high)).all():
            trial = _evaluate(problem, found.scene.with_vector(there), middle, width)
            back = np.linalg.solve(root, here - there - 0.5 * length**2 * covariance @ trial.slope) / length
            ln_ratio = 0.5 * (state.objective - trial.objective) - 0.5 * (back @ back - noise @ noise)
            chance = math.exp(min(ln_ratio, 0.0))
            if rng.random() < chance:
                here, state, taken = there, trial, taken + (number >= settled)
        if number < settled:
            length *= math.exp((chance - TAKEN) / math.sqrt(number + 1.0))
        walk.append(here[0])
    return np.array(walk[settled:]), taken / (steps - settled)


def effective(walk: Float64) -> float:
    """How many independent samples a walk is worth: its length over its autocorrelation time (Sokal's window of five)."""
    centred = walk - walk.mean()
    spectrum = np.fft.rfft(centred, 2 * len(walk))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: len(walk)]
    times = 2.0 * np.cumsum(correlation / max(correlation[0], 1e-300)) - 1.0
    window = int(np.argmax(np.arange(len(times)) >= 5.0 * times))
    return float(len(walk) / max(times[window], 1.0))


if __name__ == "__main__":
    main()
