import numpy as np
import pytest

from scanner.simulation.injection.places import FEWEST_LIKES, choose_deflector, explained, population
from scanner.simulation.population.deflectors import magnitude_of
from scanner.simulation.population.galaxies import TRAINING


def test_the_population_explains_red_bright_galaxies_only():
    likes = explained(np.array([19.5, 20.5, 24.5, 20.0, np.nan]), np.array([1.7, 1.9, 1.8, -0.5, 1.8]), TRAINING)
    assert (likes[:2] > FEWEST_LIKES).all()
    assert (likes[2:] < FEWEST_LIKES).all()


def test_masses_follow_faber_jackson():
    rng = np.random.default_rng(2)
    magnitudes = np.repeat([18.5, 20.0, 21.5], 60)
    chosen = [choose_deflector(rng, float(m), 1.8, 0.8, 0.3, TRAINING) for m in magnitudes]
    miss = np.array([m - magnitude_of(d.sigma_v_kms, d.z_lens) for m, d in zip(magnitudes, chosen, strict=True)])
    # The relation's scatter of 0.35 mag, skewed because lenses with θ_E > 0.5" are heavy.
    assert abs(np.median(miss)) < 0.35
    assert 0.2 < miss.std() < 0.6
    redshift = np.array([d.z_lens for d in chosen]).reshape(3, 60).mean(axis=1)
    assert redshift[0] < redshift[2]
    assert all(0.5 <= d.lens.theta_e <= 3.0 for d in chosen)


def test_the_mass_follows_the_galaxys_shape():
    rng = np.random.default_rng(4)
    lenses = [choose_deflector(rng, 20.0, 1.8, 0.6, 1.1, TRAINING).lens for _ in range(80)]
    assert np.mean([lens.q for lens in lenses]) == pytest.approx(0.6, abs=0.04)
    assert np.mean([lens.angle for lens in lenses]) == pytest.approx(1.1, abs=0.06)


def test_the_population_is_always_the_same():
    first = population(TRAINING)
    assert first.magnitude[:3].tolist() == population.__wrapped__(TRAINING).magnitude[:3].tolist()
