import numpy as np

from scanner.catalogue.rank import Systems
from scanner.sphere import unit_vectors

ARCSEC = 1 / 3600


def test_the_best_of_a_system_leads_it() -> None:
    """A row of objects 6″ apart: each leader takes its neighbours, and what only they would reach leads again."""
    dec = 6.0 * ARCSEC * np.arange(5.0)
    ranks = np.array([3, 1, 4, 2, 9])
    order = np.argsort(ranks)[:4]
    systems = Systems(np.full(4, 40.0), dec[order], ranks[order], 8.0)
    assert systems.of(np.full(5, 40.0), dec, ranks).tolist() == [1, 1, 1, 2, 2]


def test_nobody_leads_from_further_away_or_from_nowhere() -> None:
    ra, dec, ranks = np.array([10.0, 10.0]), np.array([0.0, 8.1 * ARCSEC]), np.array([1, 2])
    assert Systems(ra, dec, ranks, 8.0).of(ra, dec, ranks).tolist() == [1, 2]
    assert Systems(ra, dec, ranks, 8.2).of(ra, dec, ranks).tolist() == [1, 1]
    nobody = Systems(ra[:0], dec[:0], ranks[:0], 8.0)
    assert nobody.of(ra, dec, ranks).tolist() == [1, 2]
    assert Systems(ra, dec, ranks, 8.0).of(ra[:0], dec[:0], ranks[:0]).tolist() == []


def test_a_crowd_equals_a_look_at_every_pair() -> None:
    """Sixty objects within a field of 40″, all of which may lead, at a pole and across the beginning of right ascension."""
    rng = np.random.default_rng(5)
    for pole in (0.0, 90.0):
        x, y = rng.normal(0.0, 20.0 * ARCSEC, (2, 60))
        ra, dec = (x % 360.0, y) if pole == 0.0 else (np.degrees(np.arctan2(y, x)) % 360.0, 90.0 - np.hypot(x, y))
        ranks = np.arange(1, 61) * 7
        apart = np.degrees(np.arccos(np.clip(unit_vectors(ra, dec) @ unit_vectors(ra, dec).T, -1, 1))) * 3600
        leaders, expected = [], []
        for i in range(60):
            near = [leader for leader in leaders if apart[i, leader] <= 8.0]
            if not near:
                leaders.append(i)
            expected.append(int(ranks[min([*near, i])]))
        assert 5 < len(leaders) < 40
        assert Systems(ra, dec, ranks, 8.0).of(ra, dec, ranks).tolist() == expected
