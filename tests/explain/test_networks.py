from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_network import ALL, write_network

from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble.bundle import MemberEntry, content_of, write_bundle
from scanner.ensemble.calibration import MeanProbability
from scanner.ensemble.session import open_session
from scanner.explain.networks import disagreement, lens_output, member_log_odds, network_input, restore, sky_level
from scanner.records import MEMBERS
from scanner.training.added_member import NewMember, read_network, wrap
from scanner.training.published import import_published

WEIGHTS = Path(__file__).parents[2].parent / "shared" / "published-weights"


def _assert_same_as_the_session(bundle, cutouts):
    networks = restore(bundle)
    assert tuple(networks) == MEMBERS
    with torch.inference_mode():
        found = [lens_output(networks[member], network_input(bundle, member, cutouts)).numpy() for member in MEMBERS]
    expected = open_session(bundle, "cpu").logits(*fill_bad_pixels(cutouts), cutouts.sky, cutouts.sigma)
    assert np.ptp(expected, axis=0).min() > 1e-2, "the cutouts do not tell the outputs apart"
    np.testing.assert_allclose(np.stack(found, axis=1), expected, atol=2e-4)
    assert not any(weights.requires_grad for network in networks.values() for weights in network.parameters())


def test_networks_of_the_shipped_bundle_say_what_its_graph_says(shipped, cutouts):
    _assert_same_as_the_session(shipped, cutouts)


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"the published weights are not in {WEIGHTS}")
def test_networks_of_an_imported_bundle_say_what_its_graph_says(tmp_path, cutouts):
    bundle = import_published(WEIGHTS, tmp_path / "published")
    assert bundle.manifest.preprocessing == "minmax"
    _assert_same_as_the_session(bundle, cutouts)


def test_the_input_is_scaled_by_the_bundles_own_preprocessing(shipped, cutouts):
    images = network_input(shipped, "OU-66", cutouts)
    assert images.shape == (4, 4, 66, 66)
    # Blank sky of the asinh scaling: asinh(0) + 1.44 over 8.35.
    np.testing.assert_allclose(sky_level(images)[:, 3], 1.44 / 8.35, atol=0.02)


def test_the_probability_is_the_softmax_of_the_lens_class(tiny_network, noise):
    network, images = tiny_network(14), noise(5, 2, 14, 14)
    softmax = torch.softmax(network(images), dim=1)[:, 1]
    torch.testing.assert_close(lens_output(network, images, "probability"), softmax)


def test_of_a_bundle_with_an_eighth_member_the_papers_seven_are_explained(shipped, cutouts, tmp_path):
    member = NewMember(write_network(tmp_path / "ring.onnx"), "ring", ALL, 100)
    entry = MemberEntry(name="ring", bands=ALL, pixels=100, scaling="sigma", file="ring.onnx", parameters=1, source="a test")
    plain = content_of(shipped)
    content = replace(
        plain,
        calibration=MeanProbability(),
        second_look=None,
        screen=None,
        members=(*plain.members, entry),
        further=[wrap(read_network(member), member, "logit")],
    )
    eight = write_bundle(tmp_path / "eight", content)
    found = member_log_odds(eight, restore(eight), cutouts)
    whole = open_session(eight, "cpu").logits(*fill_bad_pixels(cutouts), cutouts.sky, cutouts.sigma)
    assert whole.shape == (4, 8)
    np.testing.assert_array_equal(found, whole[:, :7])
    assert disagreement(found).probabilities.shape == (4, 7)
