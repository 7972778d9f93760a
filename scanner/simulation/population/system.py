"""What stands in the middle of a cutout: light that is not lensed, and systems of a source behind deflectors.

Lengths in arcsec, angles in radians, redshifts in the cosmology of :mod:`~scanner.simulation.lensing.cosmology`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scanner.simulation.lensing.lens import Lens
from scanner.simulation.lensing.sightline import Sightline
from scanner.simulation.light.components import Component, Flux, total_flux


@dataclass(frozen=True)
class System:
    """One source and what it is seen through.

    ``source``: its light, every component seen through ``sightline``. ``z_lens``, ``sigma_v_kms``: the last deflector.
    ``lens_magnitude``: VIS magnitude of its galaxy; NaN where nobody says.
    ``source_magnitude``: VIS, unlensed. ``source_x, source_y``: the source's centre, unlensed.

    A point in the source's centre (a quasar) comes as ``point_images``, stars in the image plane that are magnified already,
    and ``point_flux``, its flux before lensing; ``source`` is then its host galaxy, and ``source_magnitude`` both together.
    """

    source: tuple[Component, ...]
    sightline: Sightline
    z_lens: float
    z_source: float
    sigma_v_kms: float
    source_magnitude: float
    source_x: float
    source_y: float
    red_source: bool
    point_images: tuple[Component, ...] = ()
    point_flux: Flux = (0.0, 0.0, 0.0, 0.0)
    lens_magnitude: float = math.nan

    @property
    def unlensed_flux(self) -> Flux:
        """Everything of the source that is lensed, before lensing, per band."""
        vis, y, j, h = (sum(parts) for parts in zip(total_flux(self.source), self.point_flux, strict=True))
        return vis, y, j, h

    @property
    def lens(self) -> Lens:
        """The heaviest deflector of the last plane before the source; the only one of a single lens."""
        return max(self.sightline.last_plane, key=lambda lens: float(lens.theta_e))

    @property
    def source_offset(self) -> float:
        """Angle between source and lens, arcsec; in a group, from where the other masses move what is behind the lens."""
        x, y = self.sightline.middle
        return math.hypot(self.source_x - x, self.source_y - y)

    def moved(self, dx: float, dy: float) -> System:
        """The same system elsewhere."""
        return replace(
            self,
            source=tuple(moved(self.source, dx, dy)),
            sightline=self.sightline.moved(dx, dy),
            source_x=self.source_x + dx,
            source_y=self.source_y + dy,
            point_images=tuple(moved(self.point_images, dx, dy)),
        )


@dataclass(frozen=True)
class LabelledObject:
    """An object of a class about the origin.

    ``components``: everything that is not lensed. ``systems``: none for most non-lenses, one for a lens or a near-lens, one per
    source for a compound lens, nearest source first. ``off_centre``: the systems belong to a galaxy beside the object, which
    is no lens for them.
    """

    class_name: str
    components: list[Component]
    systems: tuple[System, ...] = ()
    off_centre: bool = False


def moved(components: Sequence[Component], dx: float, dy: float) -> list[Component]:
    """All components shifted."""
    return [component.moved(dx, dy) for component in components]
