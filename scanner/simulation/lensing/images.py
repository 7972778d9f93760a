"""All images of point sources behind a sightline, with their magnifications."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scanner.records import Float64
from scanner.simulation.lensing.lens import Lens, Sightline, deflection, magnification, trace, trace_with_jacobian

_ANGLES = 720  # grid of the angular search; pairs of images closer than 2π/720 (on a critical curve) can be missed
_BISECTIONS = 16
_CELLS = 40  # a side of the first grid of the general search
_HALVINGS = 4  # of the cells that can hold an image
_NEWTON_STEPS, _PATIENCE = 40, 18  # starts that are far off after the latter circle about a singular centre
_CONVERGED = 1.0e-9  # arcsec in the source plane
_SINGULAR = 3.0  # times as far apart are rays as in the image plane
_SAME_IMAGE = 1.0e-5  # arcsec
_CORNERS = (np.array([-0.5, 0.5, -0.5, 0.5]), np.array([-0.5, -0.5, 0.5, 0.5]))


@dataclass(frozen=True)
class Images:
    """Images of point sources: arrays (N, M), M at least 8, rows padded with NaN; ``count`` (N,) says how many there are."""

    x: Float64
    y: Float64
    magnification: Float64
    count: Any


def find_images(beta_x: Any, beta_y: Any, sightline: Sightline) -> Images:
    """All images of N point sources, each behind its own deflectors.

    In: source positions and a :class:`~scanner.simulation.lensing.lens.Sightline`, numpy. Out: :class:`Images`. Works on
    batches and loops over no object. One plane is solved by a root search over the polar angle, several by refining the cells
    of a grid that can hold an image and Newton's method from each.

    The centre of an isothermal lens is no image: its magnification is zero.

    Parameters
    ----------
    beta_x, beta_y
        (N,) or scalar source positions, arcsec.
    sightline
        Parameters that broadcast against (N,).

    Returns
    -------
    Images
        In no particular order.
    """
    lenses = [Lens(**{name: _column(value) for name, value in vars(lens).items()}) for lens in sightline.lenses]
    columns = [_column(value) for value in (beta_x, beta_y, *sightline.couplings)]
    count = np.broadcast_shapes(
        *(column.shape for column in columns), *(v.shape for lens in lenses for v in vars(lens).values())
    )
    source_x, source_y, *couplings = (np.broadcast_to(column, count) for column in columns)
    whole = Sightline(
        tuple(Lens(**{name: np.broadcast_to(value, count) for name, value in vars(lens).items()}) for lens in lenses),
        tuple(couplings),
    )
    if len(lenses) == 1:
        x, y = _by_angle(source_x, source_y, whole.lenses[0])
    else:
        x, y = _by_refinement(source_x, source_y, whole)
    with np.errstate(divide="ignore", invalid="ignore"):
        mu = magnification(x, y, Sightline(*_as_columns(whole)))
    return Images(x=x, y=y, magnification=mu, count=np.sum(~np.isnan(x), axis=1))


def _column(value: Any) -> Float64:
    return np.atleast_1d(np.asarray(value, dtype=np.float64))


def _as_columns(sightline: Sightline) -> tuple[tuple[Lens, ...], tuple[Any, ...]]:
    line = sightline.take((slice(None), None))
    return line.lenses, line.couplings


def _by_angle(beta_x: Float64, beta_y: Float64, lens: Lens) -> tuple[Float64, Float64]:
    """Images (N, 8) behind one lens each.

    The deflection of an isothermal lens depends on the polar angle alone, so with e the unit vector towards the image the
    lens equation ``r (I - Γ) e = β + α(φ)`` leaves one equation for φ: the cross product of both sides vanishes while
    their dot product is positive. Its sign changes on a grid are refined by bisection and a secant to 1e-12 rad.
    """
    lens = lens.take((slice(None), None))
    source_x, source_y = beta_x[:, None] - lens.x, beta_y[:, None] - lens.y
    isolated = Lens(lens.theta_e, lens.q, lens.angle, 0.0, 0.0, 0.0, 0.0)

    def sides(phi: Float64) -> tuple[Float64, Float64]:
        cosine, sine = np.cos(phi), np.sin(phi)
        alpha_x, alpha_y = deflection(cosine, sine, isolated)
        right_x, right_y = source_x + alpha_x, source_y + alpha_y
        left_x = (1.0 - lens.gamma1) * cosine - lens.gamma2 * sine
        left_y = (1.0 + lens.gamma1) * sine - lens.gamma2 * cosine
        cross = left_x * right_y - left_y * right_x
        radius = (left_x * right_x + left_y * right_y) / (left_x**2 + left_y**2)
        return cross, radius

    # Half a step off zero, so that symmetric sources do not fall on grid points.
    grid = (np.arange(_ANGLES + 1) + 0.5) * (2.0 * np.pi / _ANGLES)
    cross, radius = sides(np.broadcast_to(grid, (source_x.shape[0], _ANGLES + 1)))
    is_root = (cross[:, :-1] * cross[:, 1:] < 0.0) & (radius[:, :-1] + radius[:, 1:] > 0.0)
    # Eight slots: four images at most, and never more roots than four of each sign of the radius.
    order = np.argsort(~is_root, axis=1, kind="stable")[:, :8]
    found = np.take_along_axis(is_root, order, axis=1)
    low, high = grid[order], grid[order + 1]
    side_low, side_high = (np.take_along_axis(cross, places, axis=1) for places in (order, order + 1))
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        side = sides(middle)[0]
        same = side * side_low > 0.0
        low, side_low = np.where(same, middle, low), np.where(same, side, side_low)
        high, side_high = np.where(same, high, middle), np.where(same, side_high, side)
    # A last secant squares the error.
    gap = np.where(side_high == side_low, 1.0, side_high - side_low)
    phi = low - side_low * (high - low) / gap
    r = sides(phi)[1]
    found &= r > 0.0
    rank = np.argsort(~found, axis=1, kind="stable")
    x, y = (np.where(found, value, np.nan) for value in (r * np.cos(phi) + lens.x, r * np.sin(phi) + lens.y))
    return np.take_along_axis(x, rank, axis=1), np.take_along_axis(y, rank, axis=1)


def _by_refinement(beta_x: Float64, beta_y: Float64, sightline: Sightline) -> tuple[Float64, Float64]:
    """Images (N, M) behind any number of planes."""
    # No ray is bent by more than the sum of the Einstein radii, stretched by ellipticity and shear.
    first, shear = sightline.lenses[0], sum(np.hypot(lens.gamma1, lens.gamma2) for lens in sightline.lenses)
    bent = sum(lens.theta_e / np.sqrt(lens.q) + np.hypot(lens.x - first.x, lens.y - first.y) for lens in sightline.lenses)
    half = 1.1 * (np.hypot(beta_x - first.x, beta_y - first.y) + bent) / np.maximum(1.0 - shear, 0.5)

    everyone = np.arange(len(beta_x))
    cells = [_cells(everyone, first.x, first.y, half)]
    # Galaxies of a group lie far apart: cells of a grid over all of them can be wider than the whole of a small one.
    groups = np.flatnonzero(np.all([coupling == 0.0 for coupling in sightline.couplings], axis=0))
    if len(groups):
        cells += [
            _cells(groups, lens.x[groups], lens.y[groups], 2.0 * (lens.theta_e / np.sqrt(lens.q))[groups])
            for lens in sightline.lenses
        ]
    index, x, y, size = (np.concatenate(values) for values in zip(*cells, strict=True))
    for halving in range(_HALVINGS + 1):
        if halving:
            index, size = np.repeat(index, 4), 0.5 * np.repeat(size, 4)
            x = np.repeat(x, 4) + np.tile(_CORNERS[0], len(x)) * size
            y = np.repeat(y, 4) + np.tile(_CORNERS[1], len(y)) * size
        keep = _can_hold_image(x, y, size, index, beta_x, beta_y, sightline)
        index, x, y, size = index[keep], x[keep], y[keep], size[keep]
    x, y, good = _newton(x, y, beta_x[index], beta_y[index], size, sightline.take(index))
    return _distinct(index[good], x[good], y[good], len(beta_x))


def _cells(rows: Any, x: Float64, y: Float64, half: Float64) -> tuple[Any, Float64, Float64, Float64]:
    """Cells of a grid about ``(x, y)`` of each of ``rows``: whose, where their middles are, and their sides."""
    steps = (np.arange(_CELLS) + 0.5) * (2.0 / _CELLS) - 1.0
    place, row, column = (values.ravel() for values in np.indices((len(rows), _CELLS, _CELLS)))
    size = half * (2.0 / _CELLS)
    return rows[place], x[place] + half[place] * steps[column], y[place] + half[place] * steps[row], size[place]


def _can_hold_image(
    x: Float64, y: Float64, size: Float64, index: Any, beta_x: Float64, beta_y: Float64, sightline: Sightline
) -> Any:
    """Whether the source lies in the box about the cell's traced corners, made wider on each side.

    By a quarter, because folds bulge; by its own width about a singular centre, where rays from all sides of the lens arrive
    between two corners.
    """
    side = size[:, None]
    traced = trace(x[:, None] + side * _CORNERS[0], y[:, None] + side * _CORNERS[1], sightline.take((index, None)))
    inside = np.ones(len(x), dtype=bool)
    for corners, beta in zip(traced, (beta_x[index], beta_y[index]), strict=True):
        low, high = corners.min(axis=1), corners.max(axis=1)
        margin = np.where(high - low > _SINGULAR * side[:, 0], 1.0, 0.25) * (high - low)
        inside &= (beta >= low - margin) & (beta <= high + margin)
    return inside


def _newton(
    x: Float64, y: Float64, beta_x: Float64, beta_y: Float64, size: Float64, sightline: Sightline
) -> tuple[Float64, Float64, Any]:
    """Refined positions, and which of them solve the lens equation."""
    longest = 2.0 * size  # an image lies in the cell or next to it; longer steps come from critical curves
    x, y, good = x.copy(), y.copy(), np.zeros(len(x), dtype=bool)
    active = np.arange(len(x))
    for step in range(_NEWTON_STEPS):
        source_x, source_y, a = trace_with_jacobian(x[active], y[active], sightline.take(active))
        miss_x, miss_y = source_x - beta_x[active], source_y - beta_y[active]
        good[active] = np.hypot(miss_x, miss_y) < _CONVERGED
        determinant = np.where(np.abs(a.determinant) < 1e-12, 1e-12, a.determinant)
        step_x, step_y = (a.yy * miss_x - a.xy * miss_y) / determinant, (a.xx * miss_y - a.yx * miss_x) / determinant
        limit = np.minimum(1.0, longest[active] / np.maximum(np.hypot(step_x, step_y), 1e-30))
        x[active], y[active] = x[active] - limit * step_x, y[active] - limit * step_y
        lost = (step >= _PATIENCE) & (np.hypot(miss_x, miss_y) > 10.0 * longest[active])
        active = active[~good[active] & ~lost]
        if not len(active):
            break
    return x, y, good


def _distinct(index: Any, x: Float64, y: Float64, count: int) -> tuple[Float64, Float64]:
    """Solutions as padded rows (N, M), each once."""
    order = np.argsort(index, kind="stable")
    index, x, y = index[order], x[order], y[order]
    slot = np.arange(len(index)) - np.searchsorted(index, index)
    rows = np.full((2, count, max(8, int(slot.max(initial=0)) + 1)), np.nan)
    rows[0, index, slot], rows[1, index, slot] = x, y
    apart = np.hypot(rows[0][:, :, None] - rows[0][:, None, :], rows[1][:, :, None] - rows[1][:, None, :])
    repeated = np.any(np.tril(apart < _SAME_IMAGE, -1), axis=2)
    rows[:, repeated] = np.nan
    rank = np.argsort(np.isnan(rows[0]), axis=1, kind="stable")
    x, y = (np.take_along_axis(values, rank, axis=1) for values in rows)
    widest = max(8, int(np.sum(~np.isnan(x), axis=1).max(initial=0)))
    return x[:, :widest], y[:, :widest]
