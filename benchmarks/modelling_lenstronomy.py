"""Lens models beside lenstronomy's own fit to the same pixels: Einstein radii, and seconds.

    OMP_NUM_THREADS=1 python benchmarks/modelling_lenstronomy.py --set SETS/eval --n 20 --out FILE.jsonl [--skip 150]
    python benchmarks/modelling_lenstronomy.py --n 0 --out FILE.jsonl               # the table again
    python benchmarks/modelling_lenstronomy.py --drawn                              # a lens of known radius, without noise

Lenses are those of ``benchmarks/modelling.py``. lenstronomy fits an isothermal ellipsoid with shear, one Sérsic source, and a
deflector of two Sérsic profiles (n = 4 and n = 1) that share the mass' centre, by its particle swarm and then its simplex. What
ours makes of the cutout is given to it: window, noise, mask of neighbours, PSF, and the place of the deflector's centre; the
time for that counts as ours only. Ours may add sources, and galaxies that are not lensed; lenstronomy has none.
What ``--out`` holds is not fitted again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from modelling import CATASTROPHIC, GOOD, chosen
from threadpoolctl import threadpool_limits

from scanner.cutouts.quality import measure
from scanner.interval import wilson_interval
from scanner.labelled_set import LabelledSet
from scanner.modelling.candidate import model_cutout
from scanner.modelling.deflector_light import fit_deflector
from scanner.modelling.observation import SIDE, mean_of_euclid, observe
from scanner.modelling.radius_network import RadiusPosterior, in_use
from scanner.modelling.scene_fit import Problem
from scanner.records import (
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    CutoutBatch,
    Targets,
)
from scanner.simulation.lensing import Lens, Sightline
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.telescope.noise import SKY_SIGMA
from scanner.simulation.telescope.psf import convolve

#: lenstronomy draws this much of the window on each side less, and light this far from what is fitted; pixels.
EDGE, MARGIN = 5, 4
#: Samples a pixel side, as many as ours.
SAMPLES = 2
#: Middle, half-width of the swarm's start, and limits of each number. Centres are relative to the deflector's.
_SHAPE = {"e1": (0.0, 0.2, -0.5, 0.5), "e2": (0.0, 0.2, -0.5, 0.5)}
_CENTRE = {"center_x": (0.0, 0.1, -0.5, 0.5), "center_y": (0.0, 0.1, -0.5, 0.5)}
LENS = (
    {"theta_E": (1.4, 1.1, 0.3, 2.5), **_SHAPE, **_CENTRE},
    {"gamma1": (0.0, 0.05, -0.3, 0.3), "gamma2": (0.0, 0.05, -0.3, 0.3)},
)
SOURCE = (
    {
        "R_sersic": (0.3, 0.25, 0.03, 1.0),
        "n_sersic": (1.5, 1.0, 0.5, 4.0),
        **_SHAPE,
        "center_x": (0.0, 0.5, -1.5, 1.5),
        "center_y": (0.0, 0.5, -1.5, 1.5),
    },
)
LIGHT = (
    {"R_sersic": (0.6, 0.5, 0.05, 4.0), **_SHAPE, **_CENTRE},
    {"R_sersic": (1.0, 0.7, 0.05, 4.0), **_SHAPE, **_CENTRE},
)
INDICES = 4.0, 1.0
#: Of the drawn lens.
DRAWN = Lens(1.2, 0.6, 0.5, 0.0, 0.0, 0.03, -0.02)


def main() -> None:
    """Fit what is not fitted yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, help="labelled set")
    parser.add_argument("--out", type=Path, help="what was found, a line an object; added to")
    parser.add_argument("--n", type=int, default=20, help="so many visible lenses [20]")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first, on which something was chosen [0]")
    parser.add_argument("--particles", type=int, default=100, help="of lenstronomy's swarm [100]")
    parser.add_argument("--iterations", type=int, default=100, help="of lenstronomy's swarm, at most [100]")
    parser.add_argument("--simplex", type=int, default=1000, help="iterations of lenstronomy's simplex, at most [1000]")
    parser.add_argument("--drawn", action="store_true", help="fit a drawn lens of known radius instead, without noise")
    arguments = parser.parse_args()
    effort = arguments.particles, arguments.iterations, arguments.simplex
    if arguments.drawn:
        cutout = drawn()
        for name, found in measured(cutout, 0, effort).items():
            print(f"{name:38s} {found['theta_e']:.4f} arcsec, drawn {DRAWN.theta_e}, χ² a pixel {found['chi2']:.2f}")
        return
    if arguments.out is None:
        parser.error("--out FILE or --drawn is needed")
    known = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    if arguments.set is not None:
        data = LabelledSet(arguments.set)
        done = {one["row"] for one in known if one["set"] == arguments.set.name}
        theta_e = data.column("theta_e_arcsec")
        with arguments.out.open("a") as output:
            for row in chosen(data, np.array([], np.int64), arguments.n, 0, arguments.skip):
                if row not in done:
                    fits = measured(data.store.read(np.array([row])), row, effort)
                    truth = {"theta_e": float(theta_e[row]), "arc_snr": float(data.truth.arc_snr[row])}
                    known.append({"set": arguments.set.name, "row": row, **truth, "fits": fits})
                    output.write(json.dumps(known[-1]) + "\n")
                    output.flush()
    report(known)


def measured(cutout: CutoutBatch, seed: int, effort: tuple[int, int, int]) -> dict[str, Any]:
    """Fit one object in all four ways; seconds are of the processor, without what is done once a process."""
    vis = replace(cutout, nisp=np.full_like(cutout.nisp, np.nan))
    in_use().posterior(cutout)
    data = observe(vis)
    with threadpool_limits(1):
        problem = Problem(data, fit_deflector(data))
        with _quiet():
            lenstronomys(problem, seed, (4, 1, 1))
    found = {}
    for name, one, radius in (
        ("VIS, no network of radii", vis, RadiusPosterior.flat()),
        ("VIS", vis, None),
        ("four bands", cutout, None),
    ):
        began = time.process_time()
        model, _ = model_cutout(one, "benchmark", "", radius=radius)
        seconds = time.process_time() - began
        found[name] = {
            "theta_e": None if model.mass is None else model.mass.theta_e_arcsec,
            "chi2": None if model.chi2_lens is None else model.chi2_lens / model.n_pixels,
            "seconds": seconds,
        }
    began = time.process_time()
    with threadpool_limits(1), _quiet():
        theirs = lenstronomys(problem, seed, effort)
    found["lenstronomy, VIS, {} x {} and {}".format(*effort)] = theirs | {"seconds": time.process_time() - began}
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what lenstronomy prints, and its warning that the simplex has used up its iterations."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Maximum number of iterations", RuntimeWarning)
        yield


def lenstronomys(problem: Problem, seed: int, effort: tuple[int, int, int]) -> dict[str, Any]:
    """Fit by lenstronomy: particles and iterations of its swarm, and iterations of its simplex.

    ``theta_E`` of its ``SIE`` is ours: κ = θ_E / (2 √(q x² + y² / q)), whose critical curve has axes θ_E √q and θ_E / √q.
    """
    from lenstronomy.Workflow.fitting_sequence import FittingSequence

    data, deflector = problem.data, problem.deflector
    part = slice(EDGE, SIDE - EDGE)
    used = problem.mask(0) > 0.0
    noise = np.full(used.shape, 1.0)
    noise[used] = 1.0 / problem.weights[0]
    drawn = np.hypot(data.x - data.x.mean(), data.y - data.y.mean())
    drawn = drawn < drawn[used].max() + MARGIN * VIS_PIXEL_SCALE_ARCSEC
    image = {
        "image_data": data.images[0][part, part].astype(np.float64),
        "noise_map": noise[part, part],
        "ra_at_xy_0": float(data.x[EDGE, EDGE]) - deflector.x,
        "dec_at_xy_0": float(data.y[EDGE, EDGE]) - deflector.y,
        "transform_pix2angle": np.eye(2) * VIS_PIXEL_SCALE_ARCSEC,
    }
    psf = {"psf_type": "PIXEL", "kernel_point_source": np.maximum(data.psf(0), 0.0).astype(np.float64)}
    numerics = {"supersampling_factor": SAMPLES, "supersampling_convolution": False, "flux_evaluate_indexes": drawn[part, part]}
    fixed = [[{}, {"ra_0": 0.0, "dec_0": 0.0}], [{}], [{"n_sersic": index} for index in INDICES]]
    sequence = FittingSequence(
        {"multi_band_list": [[image, psf, numerics]], "multi_band_type": "single-band"},
        {
            "lens_model_list": ["SIE", "SHEAR"],
            "source_light_model_list": ["SERSIC_ELLIPSE"],
            "lens_light_model_list": ["SERSIC_ELLIPSE"] * len(LIGHT),
        },
        {
            "joint_lens_with_light": [[0, 0, ["center_x", "center_y"]]],
            "joint_lens_light_with_lens_light": [[0, 1, ["center_x", "center_y"]]],
        },
        {"check_bounds": True, "check_positive_flux": True, "image_likelihood_mask_list": [used[part, part]]},
        {
            name: _parameters(numbers, known)
            for name, numbers, known in zip(
                ("lens_model", "source_model", "lens_light_model"), (LENS, SOURCE, LIGHT), fixed, strict=True
            )
        },
        verbose=False,
    )
    np.random.seed(seed)  # noqa: NPY002 (lenstronomy draws from it)
    particles, iterations, simplex = effort
    sequence.fit_sequence(
        [
            ["PSO", {"sigma_scale": 1.0, "n_particles": particles, "n_iterations": iterations, "threadCount": 1}],
            ["SIMPLEX", {"n_iterations": simplex}],
        ]
    )
    best = sequence.best_fit()
    pixels = used.sum() / data.correlation[0]
    return {
        "theta_e": float(best["kwargs_lens"][0]["theta_E"]),
        "chi2": -2.0 * float(sequence.best_fit_likelihood()) / pixels,
    }


def _parameters(numbers: Any, fixed: list[dict[str, float]]) -> list[Any]:
    """Start, spread, what is fixed, and limits, as lenstronomy takes them."""
    start, spread, low, high = ([{name: row[k] for name, row in part.items()} for part in numbers] for k in range(4))
    return [start, spread, fixed, low, high]


def drawn() -> CutoutBatch:
    """A lens that is known, with next to no noise, through the PSF that the fits take for granted."""
    components = [
        Component(Kind.SERSIC, 0.0, 0.0, (20.0,) * 4, 0.6, 4.0, 0.7, 0.5),
        Component(Kind.SERSIC, 0.15, 0.2, (2.5,) * 4, 0.2, 1.0, 0.8, 1.0, seen_through=Sightline((DRAWN,))),
    ]
    light = scene.render([components], scene.centred_raster(SIDE, VIS_PIXEL_SCALE_ARCSEC), ("VIS",))[0, 0]
    first = (VIS_CUTOUT_PIXELS - SIDE) // 2
    vis = np.random.default_rng(1).normal(0.0, 0.05 * SKY_SIGMA["VIS"], (1, VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS))
    vis[0, first : first + SIDE, first : first + SIDE] += convolve(light, mean_of_euclid("VIS").transfer)
    nisp = np.full((1, len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), np.nan, np.float32)
    quality = measure(vis.astype(np.float32), nisp)
    zero = np.zeros(1)
    targets = Targets(np.zeros(1, np.int64), zero, zero, zero, zero, np.zeros(1, np.float32))
    place = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros((1, 2), np.float32)
    return CutoutBatch(targets, vis.astype(np.float32), nisp, *place, *vars(quality).values(), np.zeros(1, np.uint32))


def report(found: list[dict[str, Any]]) -> None:
    """Print the table; what was refused counts as far off."""
    names = list(dict.fromkeys(name for one in found for name in one["fits"]))
    print(f"{len(found)} visible lenses; intervals of 95 %; seconds of one thread; how many times as long lenstronomy takes")
    for name in names:
        rows = [(one["theta_e"], one["fits"][name]) for one in found if name in one["fits"]]
        off = np.array([math.inf if fit["theta_e"] is None else abs(fit["theta_e"] / radius - 1.0) for radius, fit in rows])
        seconds = np.array([fit["seconds"] for _, fit in rows])
        chi2 = np.median([fit["chi2"] for _, fit in rows if fit["chi2"] is not None])
        ratio = np.median([
            theirs["seconds"] / one["fits"][name]["seconds"]
            for one in found if name in one["fits"]
            for other, theirs in one["fits"].items() if other.startswith("lenstronomy")
        ])  # fmt: skip
        print(
            f"{name:38s} n {len(rows):2d}  median {np.median(off):.3f}  within 5 % {_share(off <= GOOD)}  "
            f"off by more than 20 % {_share(off > CATASTROPHIC)}  χ² a pixel {chi2:.2f}  seconds: median "
            f"{np.median(seconds):.1f}, 95 % below {np.percentile(seconds, 95):.1f}, lenstronomy x{ratio:.1f}"
        )


def _share(which: Any) -> str:
    interval = wilson_interval(int(np.sum(which)), len(which))
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}] ({int(np.sum(which))})"


if __name__ == "__main__":
    main()
