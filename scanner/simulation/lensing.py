"""Where light is bent: isothermal ellipsoids with shear in one plane or two, all images of a source, and distances."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import ArrayLike

from scanner.records import Float64

#: Smallest ellipticity √(1 - q²) of the closed form: it is 0/0 at q = 1, and this close to it the sphere's to 1e-9 of θ_E.
_ROUNDEST = 1.0e-4
_FLATTEST_Q = 0.05
_CENTRE = 1.0e-12  # arcsec: a sample on the singular centre is deflected by nothing, and no 0/0


@dataclass(frozen=True)
class Lens:
    """Parameters of one lens, or of a batch: each a float or an array that broadcasts (arcsec, radians)."""

    theta_e: Any
    q: Any
    angle: Any
    x: Any
    y: Any
    gamma1: Any
    gamma2: Any

    def take(self, index: Any) -> Lens:
        """Rows of a batch."""
        return Lens(**{name: values[index] for name, values in vars(self).items()})


def deflection(x: Any, y: Any, lens: Lens) -> tuple[Any, Any]:
    """Deflection angle of SIE and shear at ``(x, y)``, arcsec (Kormann, Schneider & Bartelmann 1994, equation 27a).

    Parameters
    ----------
    x, y
        Image-plane positions, arcsec, floating arrays.
    lens
        Parameters that broadcast against them.

    Returns
    -------
    tuple
        ``(alpha_x, alpha_y)``, the shape of the broadcast.
    """
    dx, dy, cosine, sine, along, across, q, radius = _frame(x, y, lens)
    xp = array_namespace(x, y)
    e = xp.sqrt(xp.maximum(1.0 - q * q, 0.0 * q + _ROUNDEST**2))
    scale = _like(lens.theta_e, dx) * xp.sqrt(q) / e
    stretch = e / radius
    alpha_along = scale * xp.atan(stretch * along)
    alpha_across = scale * xp.atanh(stretch * across)
    gamma1, gamma2 = _like(lens.gamma1, dx), _like(lens.gamma2, dx)
    return (
        cosine * alpha_along - sine * alpha_across + gamma1 * dx + gamma2 * dy,
        sine * alpha_along + cosine * alpha_across + gamma2 * dx - gamma1 * dy,
    )


def hessian(x: Any, y: Any, lens: Lens) -> tuple[Any, Any, Any]:
    """Derivatives ``(∂α_x/∂x, ∂α_x/∂y = ∂α_y/∂x, ∂α_y/∂y)`` of :func:`deflection`.

    The potential of an isothermal lens is linear in the radius, so that its Hessian is ``2κ`` times the projection across the
    direction φ to the lens: ``ψ_xx = 2κ sin²φ``, ``ψ_xy = -2κ sinφ cosφ``, ``ψ_yy = 2κ cos²φ``.

    Parameters
    ----------
    x, y, lens
        As for :func:`deflection`. On the lens' centre itself the derivatives diverge, and what comes out means nothing.
    """
    dx, dy, _, _, _, _, q, radius = _frame(x, y, lens)
    xp = array_namespace(x, y)
    slope = _like(lens.theta_e, dx) * xp.sqrt(q) / radius / (dx * dx + dy * dy + _CENTRE)
    gamma1, gamma2 = _like(lens.gamma1, dx), _like(lens.gamma2, dx)
    return slope * dy * dy + gamma1, gamma2 - slope * dx * dy, slope * dx * dx - gamma1


def _like(value: Any, x: Any) -> Any:
    """A parameter as an array of the library, type and device of ``x``, in its own shape."""
    return array_namespace(x).asarray(value, dtype=x.dtype, device=device(x))


def _frame(x: Any, y: Any, lens: Lens) -> tuple[Any, Any, Any, Any, Any, Any, Any, Any]:
    """Offsets from the lens on the sky, the turn to its axes, offsets along them, axis ratio and elliptical radius."""
    xp = array_namespace(x, y)
    dx, dy = x - _like(lens.x, x), y - _like(lens.y, x)
    angle = _like(lens.angle, x)
    cosine, sine = xp.cos(angle), xp.sin(angle)
    q = xp.clip(_like(lens.q, x), _FLATTEST_Q, 1.0)
    along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
    return dx, dy, cosine, sine, along, across, q, xp.sqrt(q * q * along * along + across * across) + _CENTRE


@dataclass(frozen=True)
class Sightline:
    """Deflectors in front of one source, nearest first.

    ``lenses``: the θ_E of each is for *this* source. ``couplings``: β_ij, the share of lens i's deflection that is felt at
    plane j, as the rows of a lower triangle: ``(β12, β13, β23, ...)``; empty for one lens. See
    :func:`scanner.simulation.lensing.cosmology.coupling`.

    Raises
    ------
    ValueError
        No lens, or another number of couplings than pairs of planes.
    """

    lenses: tuple[Lens, ...]
    couplings: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        planes = len(self.lenses)
        if not planes or len(self.couplings) != planes * (planes - 1) // 2:
            raise ValueError(
                f"a sightline of {planes} lenses needs {planes * (planes - 1) // 2} couplings, not {len(self.couplings)}"
            )

    def coupling(self, front: int, behind: int) -> Any:
        """β of two planes by number, the nearest being 0."""
        return self.couplings[behind * (behind - 1) // 2 + front]

    @property
    def front(self) -> tuple[Lens, ...]:
        """Deflectors nearer than the last plane."""
        return self.lenses[: len(self.lenses) - len(self.last_plane)]

    @property
    def last_plane(self) -> tuple[Lens, ...]:
        """Deflectors of the plane next to the source: nothing bends light between those of one plane, β = 0."""
        last = len(self.lenses) - 1
        return tuple(lens for i, lens in enumerate(self.lenses) if i == last or self.coupling(i, last) == 0.0)

    @property
    def middle(self) -> tuple[float, float]:
        """Where a source has no offset: behind the first lens, moved as the other masses of its plane bend the light there.

        Isothermal masses bend light by as much at any distance, so that a group's members move all of what is behind.
        """
        first, *others = self.last_plane
        x, y = np.array(first.x, dtype=np.float64), np.array(first.y, dtype=np.float64)
        for alpha_x, alpha_y in [deflection(x, y, lens) for lens in others]:
            x, y = x - alpha_x, y - alpha_y
        return float(x), float(y)

    def moved(self, dx: Any, dy: Any) -> Sightline:
        """The same deflectors elsewhere, shifted by arcsec."""
        return replace(self, lenses=tuple(replace(lens, x=lens.x + dx, y=lens.y + dy) for lens in self.lenses))

    def rotated(self, angle: float) -> Sightline:
        """The same deflectors turned about the origin by ``angle`` radians, their shears turning along."""
        c, s = math.cos(angle), math.sin(angle)
        c2, s2 = math.cos(2.0 * angle), math.sin(2.0 * angle)
        return replace(
            self,
            lenses=tuple(
                Lens(
                    lens.theta_e,
                    lens.q,
                    lens.angle + angle,
                    c * lens.x - s * lens.y,
                    s * lens.x + c * lens.y,
                    c2 * lens.gamma1 - s2 * lens.gamma2,
                    s2 * lens.gamma1 + c2 * lens.gamma2,
                )
                for lens in self.lenses
            ),
        )

    def take(self, index: Any) -> Sightline:
        """Rows of a batch."""
        return Sightline(tuple(lens.take(index) for lens in self.lenses), tuple(values[index] for values in self.couplings))


def trace(x: Any, y: Any, sightline: Sightline) -> tuple[Any, Any]:
    """Follow light rays back from the image plane to the source plane.

    Parameters
    ----------
    x, y
        Image-plane positions, arcsec, floating arrays.
    sightline
        Parameters that broadcast against them.

    Returns
    -------
    tuple
        ``(beta_x, beta_y)``, arcsec, the shape of the broadcast.
    """
    deflections: list[tuple[Any, Any]] = []
    for plane, lens in enumerate(sightline.lenses):
        here_x, here_y = x, y
        for front, (alpha_x, alpha_y) in enumerate(deflections):
            share = sightline.coupling(front, plane)
            here_x, here_y = here_x - share * alpha_x, here_y - share * alpha_y
        deflections.append(deflection(here_x, here_y, lens))
    for alpha_x, alpha_y in deflections:
        x, y = x - alpha_x, y - alpha_y
    return x, y


@dataclass(frozen=True)
class Jacobian:
    """Derivatives of source-plane with respect to image-plane positions: ``xy`` is ∂β_x/∂θ_y. Asymmetric behind two planes."""

    xx: Any
    xy: Any
    yx: Any
    yy: Any

    @property
    def determinant(self) -> Any:
        """Its inverse is the signed magnification of a point."""
        return self.xx * self.yy - self.xy * self.yx


def trace_with_jacobian(x: Any, y: Any, sightline: Sightline) -> tuple[Any, Any, Jacobian]:
    """As :func:`trace`, with the exact Jacobian: the planes' Hessians chained, ``A_j = I - Σ_{i<j} β_ij H_i A_i``."""
    planes: list[tuple[Any, Any, Jacobian]] = []

    def arrive(shares: list[Any]) -> tuple[Any, Any, Jacobian]:
        """Where the ray crosses a plane that feels these shares of the deflections so far."""
        here_x, here_y, xx, xy, yx, yy = x, y, 1.0 + 0.0 * x, 0.0 * x, 0.0 * x, 1.0 + 0.0 * x
        for share, (alpha_x, alpha_y, bend) in zip(shares, planes, strict=True):
            here_x, here_y = here_x - share * alpha_x, here_y - share * alpha_y
            xx, xy, yx, yy = xx - share * bend.xx, xy - share * bend.xy, yx - share * bend.yx, yy - share * bend.yy
        return here_x, here_y, Jacobian(xx, xy, yx, yy)

    for plane, lens in enumerate(sightline.lenses):
        here_x, here_y, a = arrive([sightline.coupling(front, plane) for front in range(plane)])
        h_xx, h_xy, h_yy = hessian(here_x, here_y, lens)
        bend = Jacobian(
            h_xx * a.xx + h_xy * a.yx, h_xx * a.xy + h_xy * a.yy, h_xy * a.xx + h_yy * a.yx, h_xy * a.xy + h_yy * a.yy
        )
        planes.append((*deflection(here_x, here_y, lens), bend))
    return arrive([1.0] * len(planes))


def magnification(x: Any, y: Any, sightline: Sightline) -> Any:
    """Signed magnification of a point seen at ``(x, y)``."""
    return 1.0 / trace_with_jacobian(x, y, sightline)[2].determinant


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


HUBBLE_KM_S_MPC = 70.0
OMEGA_MATTER = 0.3
SPEED_OF_LIGHT_KM_S = 299_792.458
ARCSEC_PER_RADIAN = 648_000.0 / np.pi
MAX_REDSHIFT = 12.0

# The integrand is smooth, so a cumulative Simpson rule on this step is exact to 1e-9 and linear look-up to 1e-6.
_STEPS = 12_000
_Z = np.linspace(0.0, MAX_REDSHIFT, 2 * _STEPS + 1)
_INTEGRAND = 1.0 / np.sqrt(OMEGA_MATTER * (1.0 + _Z) ** 3 + 1.0 - OMEGA_MATTER)
_COMOVING = np.concatenate(
    [[0.0], np.cumsum((_INTEGRAND[:-2:2] + 4.0 * _INTEGRAND[1::2] + _INTEGRAND[2::2]) * (_Z[2] - _Z[0]) / 6.0)]
) * (SPEED_OF_LIGHT_KM_S / HUBBLE_KM_S_MPC)


def comoving_distance_mpc(z: ArrayLike) -> Float64:
    """Line-of-sight comoving distance in Mpc.

    Raises
    ------
    ValueError
        A redshift below 0 or above ``MAX_REDSHIFT``.
    """
    redshift = np.asarray(z, dtype=np.float64)
    if np.any(redshift < 0.0) or np.any(redshift > MAX_REDSHIFT):
        raise ValueError(f"redshifts must lie between 0 and {MAX_REDSHIFT}")
    return np.asarray(np.interp(redshift, _Z[::2], _COMOVING), dtype=np.float64)


def distance_modulus(z: ArrayLike) -> Float64:
    """M - M without K-correction, mag."""
    redshift = np.asarray(z, dtype=np.float64)
    return np.asarray(5.0 * np.log10((1.0 + redshift) * comoving_distance_mpc(redshift)) + 25.0, dtype=np.float64)


def arcsec_per_kpc(z: ArrayLike) -> Float64:
    """Angle that one proper kpc subtends, arcsec."""
    redshift = np.asarray(z, dtype=np.float64)
    return np.asarray(ARCSEC_PER_RADIAN * (1.0 + redshift) / comoving_distance_mpc(redshift) / 1000.0, dtype=np.float64)


def einstein_radius_arcsec(sigma_v_kms: ArrayLike, z_lens: ArrayLike, z_source: ArrayLike) -> Float64:
    """Einstein radius of a singular isothermal sphere, ``4π (σ_v/c)² D_ls/D_s`` (Wilde et al. 2022, equation 1), arcsec.

    Zero where the source is not behind the lens. In a flat universe D_ls/D_s = 1 - χ_l/χ_s.
    """
    chi_lens, chi_source = comoving_distance_mpc(z_lens), comoving_distance_mpc(z_source)
    ratio = np.clip(1.0 - chi_lens / np.maximum(chi_source, 1e-9), 0.0, None)
    speed = np.asarray(sigma_v_kms, dtype=np.float64) / SPEED_OF_LIGHT_KM_S
    return np.asarray(4.0 * np.pi * speed**2 * ratio * ARCSEC_PER_RADIAN, dtype=np.float64)


def coupling(z_front: ArrayLike, z_behind: ArrayLike, z_source: ArrayLike) -> Float64:
    """Share β of the front deflector's deflection that is felt at a plane behind it (Schneider et al. 1992, equation 9.21).

    ``β = D_fb D_s / (D_b D_fs)``: 0 where both planes coincide, 1 where the second is the source's. In a flat universe
    ``β = (1 - χ_f/χ_b) / (1 - χ_f/χ_s)``.

    Raises
    ------
    ValueError
        The planes are not in the order ``z_front <= z_behind <= z_source`` with ``z_front < z_source``.
    """
    front, behind, source = (comoving_distance_mpc(z) for z in (z_front, z_behind, z_source))
    if np.any(front > behind) or np.any(behind > source) or np.any(front >= source):
        raise ValueError("redshifts must rise from the front deflector to the one behind it to the source")
    return np.asarray((1.0 - front / behind) / (1.0 - front / source), dtype=np.float64)
