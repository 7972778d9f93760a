"""Samples of surface brightness: components of one kind, each in the frame of its stamp, and the rays that lead to them.

In: stamps of one kind behind one number of planes. Out: :class:`Light`, which answers with arrays of any array-API library.
Places count from the middle of a stamp's first pixel, so that float32 is fine enough anywhere on the sky.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanner.simulation.lensing.lens import Lens
from scanner.simulation.lensing.sightline import Sightline, trace
from scanner.simulation.light.profiles import Profiles, profiles, surface_brightness
from scanner.simulation.light.stamps import Raster, Stamps

#: Turns a numpy array into one of the library and device to compute with, floats into float32.
AsArray = Callable[[Any], Any]


@dataclass(frozen=True)
class Light:
    """K components of one kind as arrays (K, 1, 1), and what is in front of them.

    ``x, y``: the first pixels as seen from the components or, behind a sightline, from its first lens. ``sightline``: of U
    systems, (U, 1, 1), or None. ``system`` (K,): which of them each component is behind, and ``numbers`` the same in numpy;
    ``source_x, source_y``: its place from the first lens.
    """

    shape: Profiles
    x: Any
    y: Any
    sightline: Sightline | None
    system: Any
    numbers: Any
    source_x: Any
    source_y: Any

    @classmethod
    def of(cls, stamps: Stamps, raster: Raster, asarray: AsArray) -> Light:
        """The light of stamps."""
        table = stamps.table

        def column(values: Any) -> Any:
            return asarray(np.asarray(values, dtype=np.float64)[:, None, None])

        origin_x, origin_y, sightline, numbers = table.x, table.y, None, np.zeros(len(table.x), dtype=np.int64)
        if stamps.system[0] >= 0:
            present, numbers = np.unique(stamps.system, return_inverse=True)
            lines = [stamps.sightlines[number] for number in present]
            places = np.array([(line.lenses[0].x, line.lenses[0].y) for line in lines], dtype=np.float64)
            sightline = _gathered([line.moved(-x, -y) for line, (x, y) in zip(lines, places, strict=True)], column)
            origin_x, origin_y = places[numbers].T
        # In double precision before it becomes float32.
        first_column, first_row, _, _ = stamps.clipped(raster)
        x, y = raster.x0 + first_column * raster.scale, raster.y0 + first_row * raster.scale
        return cls(
            profiles(table, asarray),
            column(x - origin_x),
            column(y - origin_y),
            sightline,
            asarray(numbers),
            numbers,
            column(table.x - origin_x),
            column(table.y - origin_y),
        )

    def at(self, which: Any, x: Any, y: Any) -> Any:
        """Surface brightness of the components ``which`` (P,) at places of their own, (P, n, 1) or (P, 1, n)."""
        x, y = self.x[which] + x, self.y[which] + y
        if self.sightline is not None:
            beta_x, beta_y = trace(x, y, self.sightline.take(self.system[which]))
            x, y = beta_x - self.source_x[which], beta_y - self.source_y[which]
        return surface_brightness(x, y, self.shape.take(which), 0.0)

    def on_grid(self, run: slice, x: Any, y: Any) -> tuple[Any, tuple[Any, Any] | None, Any]:
        """Surface brightness of a run of components at the same places, (1, 1, nx) and (1, ny, 1), of each.

        Returns
        -------
        tuple
            (K, ny, nx); the rays (U, ny, nx) of their systems, which the components of a system share, or None; and which of
            them each component is behind.
        """
        shape = self.shape.take(run)
        if self.sightline is None:
            return surface_brightness(self.x[run] + x, self.y[run] + y, shape, 0.0), None, None
        systems, leader, member = np.unique(self.numbers[run], return_index=True, return_inverse=True)
        leader += run.start
        rays = trace(self.x[leader] + x, self.y[leader] + y, self.sightline.take(systems))
        dx, dy = rays[0][member] - self.source_x[run], rays[1][member] - self.source_y[run]
        return surface_brightness(dx, dy, shape, 0.0), rays, member


def _gathered(lines: list[Sightline], column: Callable[[Any], Any]) -> Sightline:
    """Sightlines of one number of planes as one of arrays."""
    lenses = tuple(
        Lens(**{name: column([getattr(line.lenses[plane], name) for line in lines]) for name in vars(lines[0].lenses[0])})
        for plane in range(len(lines[0].lenses))
    )
    return Sightline(lenses, tuple(column(values) for values in zip(*(line.couplings for line in lines), strict=True)))
