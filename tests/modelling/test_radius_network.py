"""The network of Einstein radii: what its histogram says, what it sees, which one is used, and files that cannot be."""

import math
import shutil

import numpy as np
import pytest
from drawn_lens import DEFLECTOR, LENS, SOURCE, drawn
from tiny_network import seen

from scanner.ensemble.bundles import models_folder
from scanner.ensemble.preprocessing import turn
from scanner.errors import ContentError, InputMissingError
from scanner.modelling.radius_network import (
    BANDS,
    FOLDER,
    MANIFEST,
    NETWORK,
    PIXELS,
    RadiusNetwork,
    RadiusPosterior,
    in_use,
    radius_input,
)


@pytest.fixture(scope="module")
def network():
    return RadiusNetwork(models_folder() / FOLDER)


@pytest.fixture(scope="module")
def lens():
    return drawn([DEFLECTOR, SOURCE])


def test_a_histogram_answers_for_any_radius():
    # Two bins of ln θ_E, from 1 to e and from e to e squared, with a quarter and three quarters.
    known = RadiusPosterior(np.array([0.0, 1.0, 2.0]), np.array([0.25, 0.75]))
    assert known.quantile(0.25) == pytest.approx(math.e)
    assert known.quantile(0.5) == pytest.approx(math.exp(1.0 + 0.25 / 0.75))
    # All of what is within 10 % of e^1.5 is in the second bin.
    assert known.near(math.exp(1.5)) == pytest.approx(0.75 * math.log(1.1 / 0.9))
    assert known.near(math.e) == pytest.approx(0.75 * math.log(1.1) - 0.25 * math.log(0.9))
    assert known.near(100.0) == 0.0
    assert known.ln_density(math.exp(1.5)) == pytest.approx(math.log(0.7501))
    flat = RadiusPosterior.flat()
    assert flat.ln_density(0.5) == flat.ln_density(3.0)
    assert flat.quantile(0.5) == pytest.approx(math.sqrt(0.28 * 5.0))


def test_a_measurement_and_a_histogram_together_are_as_two_measurements():
    edges = np.linspace(math.log(0.28), math.log(5.0), 401)
    middle = 0.5 * (edges[1:] + edges[:-1])

    def of(*peaks):
        density = sum(share * np.exp(-0.5 * ((middle - math.log(at)) / 0.06) ** 2) for at, share in peaks)
        return RadiusPosterior(edges, density / density.sum())

    # Two Gaussians of ln θ_E: weights are one over their variances. The floor of the histogram is worth half a per cent.
    found, error = of((1.1, 1.0)).together(1.0, 0.03)
    assert found == pytest.approx(math.log(1.1) * 0.03**2 / (0.03**2 + 0.06**2), abs=2e-3)
    assert error == pytest.approx(0.06 * 0.03 / math.hypot(0.06, 0.03), rel=0.02)
    # Nothing that it has not seen is impossible: far from all that it knows, the measurement stays.
    assert of((1.0, 1.0)).together(3.0, 0.06) == pytest.approx((math.log(3.0), 0.02), abs=2e-3)
    # Between two peaks the error grows.
    assert of((0.9, 0.5), (1.2, 0.5)).together(1.04, 0.1)[1] > 0.1
    assert RadiusPosterior.flat().together(1.3, 0.026) == pytest.approx((math.log(1.3), 0.02), abs=1e-3)


def test_it_sees_the_radius_of_a_drawn_lens_whatever_way_it_is_turned(network, lens):
    known = network.posterior(lens)
    assert known.probability.sum() == pytest.approx(1.0, abs=1e-5)
    assert known.quantile(0.5) == pytest.approx(LENS.theta_e, rel=0.15)
    assert known.quantile(0.16) < LENS.theta_e < known.quantile(0.84)
    images = radius_input(lens)
    answers = [network._session.run(None, {"images": np.ascontiguousarray(turn(images, way))})[0][0] for way in range(8)]
    np.testing.assert_allclose(known.probability, np.mean(answers, axis=0), atol=1e-6)
    assert np.ptp([one.max() for one in answers]) > 1e-4


def test_it_is_shown_what_a_member_of_the_ensemble_would_be(lens):
    found = radius_input(lens)
    wanted = seen(BANDS, PIXELS, "asinh_mad", lens.vis, lens.nisp, lens.sky, lens.sigma)
    assert found.shape == wanted.shape == (1, 4, PIXELS, PIXELS)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.fixture
def anew():
    """Which network is used is looked up again, now and afterwards."""
    in_use.cache_clear()
    yield
    in_use.cache_clear()


def test_the_users_own_network_comes_first(network, tmp_path, monkeypatch, anew):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert in_use().fingerprint == network.fingerprint
    own = shutil.copytree(models_folder() / FOLDER, tmp_path / "scanner" / "models" / FOLDER)
    manifest = network.manifest.model_copy(update={"version": "mine"})
    (own / MANIFEST).write_bytes(manifest.to_bytes())
    in_use.cache_clear()
    assert (in_use().manifest.version, in_use().fingerprint == network.fingerprint) == ("mine", False)


def test_what_is_missing_or_altered_is_named(tmp_path):
    folder = shutil.copytree(models_folder() / FOLDER, tmp_path / "mine")
    content = bytearray((folder / NETWORK).read_bytes())
    content[1000] ^= 1
    (folder / NETWORK).write_bytes(content)
    with pytest.raises(ContentError, match=r"mine/network\.onnx: altered"):
        RadiusNetwork(folder)
    (folder / NETWORK).unlink()
    with pytest.raises(InputMissingError, match=r"mine/network\.onnx: cannot be read"):
        RadiusNetwork(folder)
    (folder / MANIFEST).write_text("{}")
    with pytest.raises(ContentError, match=r"mine/radius-network\.json: .*fetch the folder again"):
        RadiusNetwork(folder)


def test_a_worker_with_another_network_is_refused(monkeypatch):
    from scanner.modelling import stage

    class Job:
        bundle_fingerprint, radius_network = "of-the-bundle", in_use().fingerprint

    assert stage._prepare(Job, scores=False) == "of-the-bundle"
    monkeypatch.setattr(Job, "radius_network", "another")
    with pytest.raises(ContentError, match="another network of Einstein radii"):
        stage._prepare(Job, scores=False)
