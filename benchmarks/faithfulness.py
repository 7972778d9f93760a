"""How faithful occlusion and guided Grad-CAM are, and what an explained candidate costs.

    python benchmarks/faithfulness.py [--bundle NAME ...] [--objects 200] [--orders 3] [--seed 3]

Visible lenses of preset ``eval`` (S/N of the arcs above 25) are drawn with a seed of their own. Deletion covers cells with
blank sky, the most important first, and insertion uncovers them; gains are differences of areas under the curve of the lens
probability (``scanner.explain.maps``), with 95% bootstrap intervals over the objects. Two controls: random orders of
the cells, whose scattered holes destroy an image faster than patches do wherever they lie; and the map of another lens, patchy
in the same way, so that only a map that knows its own object beats it. Occlusion covers with blank sky.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from scanner.ensemble import bundles
from scanner.evaluation.biases import lenses_only
from scanner.explain.candidate import EXPLAINED, explained
from scanner.explain.maps import Curves, curves, gains, guided_grad_cam, in_cells, occlusion, strength
from scanner.explain.networks import network_input, restore, sky_level
from scanner.interval import Interval
from scanner.records import CutoutBatch
from scanner.simulation.datasets.cutouts import draw
from scanner.simulation.datasets.dataset import batch_of
from scanner.simulation.datasets.presets import PRESETS
from scanner.survey.objects import concatenate

AT_ONCE = 32
#: Cells along a side of the maps that are compared; they divide the sides of 66 and 200 pixels.
CELLS = {"OU-66": 66, "OU-200": 50}


def visible_lenses(seed: int) -> Iterator[CutoutBatch]:
    """Batches of visible lenses, one after the other."""
    preset, start = lenses_only(PRESETS["eval"]), 0
    while True:
        drawn = draw(preset, seed, range(start, start + AT_ONCE))
        yield batch_of(drawn).take(np.flatnonzero([row.verdict.visible for row in drawn.truth]))
        start += AT_ONCE


def choose(n: int, seed: int) -> CutoutBatch:
    """The first ``n`` visible lenses."""
    found: list[CutoutBatch] = []
    for batch in visible_lenses(seed):
        found.append(batch)
        if sum(map(len, found)) >= n:
            return concatenate(found).take(np.arange(n))
    raise AssertionError("there is always another lens")


def random_curves(network: nn.Module, images: torch.Tensor, cells: int, n_orders: int, seed: int) -> Curves:
    """Mean over random orders of the cells of each image."""
    generator = np.random.default_rng(seed)
    found = [curves(network, images, generator.random((len(images), cells, cells))) for _ in range(n_orders)]
    means = [np.mean([getattr(one, name) for one in found], axis=0) for name in ("deletion", "insertion")]
    return Curves(found[0].fraction, *means)


def signed(gain: Interval) -> str:
    """``+0.184 [+0.074, +0.332]``."""
    return f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", action="append", help="name or folder; repeat for more [the default one]")
    parser.add_argument("--objects", type=int, default=200)
    parser.add_argument("--orders", type=int, default=3, help="random orders of each object")
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lenses = choose(arguments.objects, arguments.seed)
    print(f"{len(lenses)} visible lenses, seed {arguments.seed}; gains over {arguments.orders} random orders each")
    print(f"{'bundle':22}{'member':8}{'map':17}{'against':15}{'deletion gain':26}insertion gain")
    for name in arguments.bundle or [None]:
        bundle = bundles.load(name)
        networks = restore(bundle)
        for member in EXPLAINED:
            images, cells = network_input(bundle, member, lenses), CELLS[member]
            maps = {
                "occlusion": -occlusion(networks[member], images, fill=sky_level(images)),
                "guided Grad-CAM": in_cells(strength(guided_grad_cam(networks[member], images)), cells),
            }
            # The same for both maps: it costs more than they do.
            by_chance = random_curves(networks[member], images, cells, arguments.orders, arguments.seed)
            for method, importance in maps.items():
                own = curves(networks[member], images, importance)
                controls = {
                    "random orders": by_chance,
                    "another lens": curves(networks[member], images, np.roll(importance, 1, axis=0)),
                }
                for control, against in controls.items():
                    deletion, insertion = gains(own, against, seed=arguments.seed)
                    told = f"{bundle.manifest.name:22}{member:8}{method:17}{control:15}"
                    print(f"{told}{signed(deletion):26}{signed(insertion)}", flush=True)
        start, n_timed = time.process_time(), min(10, len(lenses))
        for _ in explained(bundle, networks, lenses.take(np.arange(n_timed))):
            pass
        print(f"{bundle.manifest.name}: {(time.process_time() - start) / n_timed:.1f} CPU s an explained candidate")


if __name__ == "__main__":
    main()
