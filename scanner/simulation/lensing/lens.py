"""The singular isothermal ellipsoid with external shear: deflections and magnifications.

In: positions and parameters in arcsec and radians as arrays of any array-API library (numpy, torch ...), broadcast against
each other. Out: arrays of the same library.

Convention: ``theta_e`` is the Einstein radius of the sphere that holds the same mass within the (elliptical) critical
curve, ``q`` the minor-to-major axis ratio of the isodensity contours, ``angle`` the position angle of the major axis from
+x towards +y. Shear: ``α = Γθ`` with Γ = [[γ1, γ2], [γ2, -γ1]] about the lens' centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from scanner.records import Float64

#: Rounder than this the closed form loses digits (0/0 at q = 1), and the difference from a sphere is below 1e-4 of θ_E.
ROUNDEST = 0.999


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
    xp = array_namespace(x, y)
    dx, dy = x - lens.x, y - lens.y
    # Parameters may be plain floats: 0·x makes them arrays of the right library and type.
    zero = 0.0 * dx
    cosine, sine = xp.cos(lens.angle + zero), xp.sin(lens.angle + zero)
    q = xp.clip(lens.q + zero, 0.05, ROUNDEST)
    along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
    e = xp.sqrt(1.0 - q * q)
    radius = xp.sqrt(q * q * along * along + across * across) + 1e-12
    scale = lens.theta_e * xp.sqrt(q) / e
    alpha_along = scale * xp.atan(e * along / radius)
    alpha_across = scale * xp.atanh(e * across / radius)
    return (
        cosine * alpha_along - sine * alpha_across + lens.gamma1 * dx + lens.gamma2 * dy,
        sine * alpha_along + cosine * alpha_across + lens.gamma2 * dx - lens.gamma1 * dy,
    )


def magnification(x: Float64, y: Float64, lens: Lens) -> Float64:
    """Signed point magnification ``1/det(I - ∂α/∂θ)`` at ``(x, y)``.

    For an isothermal lens the Hessian is ``(b/2m)·[…]``; its determinant with shear follows from the closed form
    ``ψ_xx = 2κ sin²φ`` of a potential that is linear in the radius, with φ the polar angle about the lens.
    """
    dx, dy = np.asarray(x - lens.x), np.asarray(y - lens.y)
    cosine, sine = np.cos(lens.angle), np.sin(lens.angle)
    along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
    q = np.clip(lens.q, 0.05, ROUNDEST)
    twice_kappa = lens.theta_e * np.sqrt(q) / np.sqrt(q * q * along**2 + across**2)
    r2 = dx**2 + dy**2
    xx = 1.0 - twice_kappa * dy**2 / r2 - lens.gamma1
    yy = 1.0 - twice_kappa * dx**2 / r2 + lens.gamma1
    xy = twice_kappa * dx * dy / r2 - lens.gamma2
    return np.asarray(1.0 / (xx * yy - xy * xy), dtype=np.float64)
