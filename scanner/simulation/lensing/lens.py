"""The singular isothermal ellipsoid with external shear: deflections and their derivatives.

In: positions and parameters in arcsec and radians as arrays of any array-API library (numpy, torch ...), broadcast against
each other. Out: arrays of the same library.

Convention: ``theta_e`` is the Einstein radius of the sphere that holds the same mass within the (elliptical) critical
curve, ``q`` the minor-to-major axis ratio of the isodensity contours, ``angle`` the position angle of the major axis from
+x towards +y. Shear: ``α = Γθ`` with Γ = [[γ1, γ2], [γ2, -γ1]] about the lens' centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace, device

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
