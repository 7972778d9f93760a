import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM

from scanner.simulation import lensing

REFEREE = FlatLambdaCDM(H0=70.0, Om0=0.3, Tcmb0=0.0)
Z = np.array([0.01, 0.05, 0.3, 0.77, 1.0, 2.31, 5.0, 9.9])


def test_distances_agree_with_astropy():
    np.testing.assert_allclose(lensing.comoving_distance_mpc(Z), REFEREE.comoving_distance(Z).value, rtol=2e-6)
    np.testing.assert_allclose(lensing.distance_modulus(Z), REFEREE.distmod(Z).value, atol=5e-6)
    np.testing.assert_allclose(lensing.arcsec_per_kpc(Z), REFEREE.arcsec_per_kpc_proper(Z).value, rtol=2e-6)


def test_einstein_radius_is_the_isothermal_sphere_s():
    z_lens, z_source = np.array([0.2, 0.5, 1.0]), np.array([1.0, 2.0, 3.0])
    near, far = REFEREE.comoving_distance(z_lens).value, REFEREE.comoving_distance(z_source).value
    expected = 4 * np.pi * (220 / 299_792.458) ** 2 * (far - near) / far * 206_264.806
    np.testing.assert_allclose(lensing.einstein_radius_arcsec(220.0, z_lens, z_source), expected, rtol=1e-5)


def test_nothing_is_lensed_by_what_lies_behind_it():
    assert lensing.einstein_radius_arcsec(300.0, 1.0, 0.5) == 0.0


@pytest.mark.parametrize("z", [-0.1, 12.5])
def test_redshifts_out_of_range_are_refused(z):
    with pytest.raises(ValueError, match="redshifts"):
        lensing.comoving_distance_mpc(z)
