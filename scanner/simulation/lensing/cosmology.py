"""Distances in a flat ΛCDM universe (H0 = 70 km/s/Mpc, Ωm = 0.3; redshifts 0 to 12), and Einstein radii."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from scanner.records import Float64

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
