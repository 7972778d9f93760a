"""How many companions galaxies have on the simulated sky, beside 17,239 real ones of COSMOS, by the companions' brightness.

    python benchmarks/companions.py [--objects 12000] [--plot docs/images/simulation/companions.webp]

Primaries are brighter than F814W or VIS 22; companions fainter than they are, 0.5 to 2" away; *tangential* ones are elongated
(ellipticity (1 - q²)/(1 + q²) above 0.2) within 30 degrees of the circle about the primary, *radial* ones of the direction to
it. Real: ``../shared/real-galaxies`` (COSMOS, F814W < 23.5), which misses most companions within 1"; beyond 23.5 the field's
counts times 1.4, the measured excess at 2 to 3". Simulated: early types as the preset ``challenge`` draws them,
with their field; 95 % intervals by Wilson.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanner.records import Float64
from scanner.simulation.datasets.presets import PRESETS, draw_scene, object_generator
from scanner.simulation.light.components import Kind
from scanner.simulation.telescope.noise import magnitude

COSMOS = Path(__file__).resolve().parents[1] / ".." / "shared" / "real-galaxies" / "cosmos-table"
PRIMARY, COMPLETE, DISTANCES = 22.0, 23.5, (0.5, 2.0)
ELONGATED, TANGENTIAL_DEGREES = 0.2, 60.0
#: A visible arc (S/N 25 over 100 pixels) is as bright as this.
AS_BRIGHT_AS_ARCS = 25.0
MAGNITUDES = np.arange(20.5, 26.01, 0.5)
#: Pieces of light nearer to a brighter one than this are parts of it, arcsec.
_ONE_GALAXY = 0.4
EXCESS = 1.4


@dataclass(frozen=True)
class Neighbours:
    """Galaxies about a primary.

    ``magnitude``: VIS or F814W. ``distance``: arcsec. ``degrees``: between their major axes and the direction to the primary: 0
    is radial, 90 tangential.
    """

    magnitude: Float64
    distance: Float64
    ellipticity: Float64
    degrees: Float64

    def of_kind(self, kind: str) -> NDArray[np.bool_]:
        """Which are ``any``, ``tangential`` or ``radial`` companions."""
        near = (self.distance > DISTANCES[0]) & (self.distance < DISTANCES[1])
        long = near & (self.ellipticity > ELONGATED)
        return {
            "any": near,
            "tangential": long & (self.degrees > TANGENTIAL_DEGREES),
            "radial": long & (self.degrees < 90.0 - TANGENTIAL_DEGREES),
        }[kind]

    def brightest(self, kind: str) -> float:
        """Magnitude of the brightest companion of a kind; infinite where there is none."""
        return float(min(self.magnitude[self.of_kind(kind)], default=math.inf))


def neighbours(x: Float64, y: Float64, flux: Float64, q: Float64, angle: Float64) -> Neighbours:
    """Galaxies about the origin from their pieces (N,): VIS fluxes, axis ratios, position angles in radians."""
    whole: list[int] = []
    total: list[float] = []
    for k in np.argsort(-flux):
        part_of = [j for j, w in enumerate(whole) if math.hypot(x[k] - x[w], y[k] - y[w]) < _ONE_GALAXY]
        if part_of:
            total[part_of[0]] += float(flux[k])
        else:
            whole.append(int(k))
            total.append(float(flux[k]))
    chosen = np.array(whole, dtype=np.int64)
    turned = np.degrees(angle[chosen] - np.arctan2(y[chosen], x[chosen]))
    return Neighbours(
        np.array([magnitude(value, "VIS") for value in total]),
        np.hypot(x, y)[chosen],
        ((1.0 - q**2) / (1.0 + q**2))[chosen],
        np.abs((turned + 90.0) % 180.0 - 90.0),
    )


def simulated(count: int, seed: int = 1) -> list[Neighbours]:
    """Neighbours of ``count`` early-type galaxies brighter than VIS 22."""
    preset = PRESETS["challenge"].model_copy(update={"mix": {"elliptical": 1.0}})
    found: list[Neighbours] = []
    number = 0
    while len(found) < count:
        scene = draw_scene(preset, object_generator(preset.name, seed, number))
        number += 1
        light = [part for part in scene.components if part.kind is not Kind.POINT]
        place = np.array([(part.x - scene.x, part.y - scene.y) for part in light])
        flux = np.array([part.flux[0] for part in light])
        own = np.hypot(*place.T) < 1e-6
        primary = magnitude(max(float(flux[own].sum()), 1e-9), "VIS")
        near = ~own & (np.hypot(*place.T) < DISTANCES[1] + _ONE_GALAXY)
        # Knots and lanes of a disc are no companions, but lie off its centre.
        first = light[0]
        disc = first.kind is Kind.SPIRAL or not own[0] or (first.index < 1.15 and first.q < 0.25)
        if primary >= PRIMARY or disc:
            continue
        q, angle = (np.array([getattr(part, name) for part in light])[near] for name in ("q", "angle"))
        around = neighbours(place[near, 0], place[near, 1], flux[near], q, angle)
        fainter = around.magnitude > primary
        found.append(Neighbours(*(values[fainter] for values in vars(around).values())))
    return found


def real() -> list[Neighbours]:
    """Neighbours of the COSMOS galaxies brighter than F814W 22."""
    from astropy.table import Table, join
    from scipy.spatial import cKDTree

    table = join(
        Table.read(COSMOS / "shera_catalog_23.5.fits.gz"),
        Table.read(COSMOS / "real_galaxy_23.5_shapes.fits"),
        keys="IDENT",
        join_type="left",
    )
    ra, dec = np.radians(np.array(table["RA"])), np.radians(np.array(table["DEC"]))
    place = np.degrees(np.stack([(ra - ra.mean()) * np.cos(dec.mean()), dec - dec.mean()], axis=1)) * 3600.0
    mag = np.array(table["F814W"])
    ellipticities: list[Float64] = [np.ma.filled(np.ma.asarray(table[name], dtype=float), 0.0) for name in ("e1", "e2")]
    measured = np.ma.filled(table["do_meas"], -1) >= 0
    ellipticity, angle = np.where(measured, np.hypot(*ellipticities), 0.0), 0.5 * np.arctan2(*ellipticities[::-1])
    found = []
    for row, near in enumerate(cKDTree(place).query_ball_point(place, DISTANCES[1])):
        if mag[row] < PRIMARY:
            who = np.array([k for k in near if mag[k] > mag[row]], dtype=np.int64)
            away = place[who] - place[row]
            turned = np.degrees(angle[who] - np.arctan2(away[:, 1], away[:, 0]))
            degrees = np.abs((turned + 90.0) % 180.0 - 90.0)
            found.append(Neighbours(mag[who], np.hypot(*away.T), ellipticity[who], degrees))
    return found


def shares(sample: Sequence[Neighbours], kind: str) -> Float64:
    """(M, 3): share of primaries with a companion of ``kind`` brighter than each of :data:`MAGNITUDES`, and its interval."""
    brightest = np.array([item.brightest(kind) for item in sample])
    n, z = len(sample), 1.96
    p = np.array([(brightest < limit).mean() for limit in MAGNITUDES])
    middle, half = (p + z**2 / (2 * n)), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return np.stack([p, (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=12_000)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    samples = {"simulated": simulated(arguments.objects)}
    if COSMOS.exists():
        samples["COSMOS"] = real()
    else:
        print(f"{COSMOS} is not there: no real galaxies to compare with")
    curves = {
        (name, kind): shares(sample, kind) for name, sample in samples.items() for kind in ("any", "tangential", "radial")
    }
    for (name, kind), curve in curves.items():
        print(f"{name}, {len(samples[name]):,} primaries, {kind}:")
        print(
            "  "
            + "  ".join(
                f"<{m:.1f} {100 * p:.2f}% [{100 * a:.2f}, {100 * b:.2f}]"
                for m, (p, a, b) in zip(MAGNITUDES, curve, strict=True)
            )
        )
    if arguments.plot:
        plot(curves, arguments.plot)


def plot(curves: dict[tuple[str, str], Float64], path: Path) -> None:
    """Shares against brightness, simulated as bands and real ones as points."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), sharex=True, layout="constrained")
    area = math.pi * (DISTANCES[1] ** 2 - DISTANCES[0] ** 2) / 3600.0
    for axis, (title, kinds) in zip(
        axes, (("any companion", ("any",)), ("elongated ones", ("tangential", "radial"))), strict=True
    ):
        for kind, colour in zip(kinds, ("C0", "C3"), strict=False):
            band = curves["simulated", kind]
            axis.fill_between(MAGNITUDES, band[:, 1], band[:, 2], color=colour, alpha=0.3, label=f"simulated, {kind}")
            if ("COSMOS", kind) in curves:
                complete = MAGNITUDES <= COMPLETE
                points = curves["COSMOS", kind][complete]
                axis.errorbar(
                    MAGNITUDES[complete],
                    points[:, 0],
                    np.abs(points[:, 1:] - points[:, :1]).T,
                    fmt="o",
                    ms=4,
                    color=colour,
                    label=f"COSMOS, {kind}",
                )
        # Galaxies per square arcminute brighter than 25 and 26, six tenths of them elongated, a third of these tangential.
        share = 1.0 if kinds == ("any",) else 0.6 / 3.0
        axis.plot([25.0, 26.0], [share * EXCESS * n * area for n in (40.0, 90.0)], "kx", label="counts × 1.4")
        axis.set(title=title, xlabel="companion brighter than, mag", ylabel='share of galaxies, 0.5–2"', yscale="log")
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
