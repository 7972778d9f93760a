"""Training of the network of Einstein radii: it learns, goes on to the same bytes, is exported, says what cannot be."""

import hashlib

import made_dataset
import numpy as np
import pytest
import torch

from scanner.cli.main import main
from scanner.errors import ContentError, UsageError
from scanner.labelled_set import LabelledSet
from scanner.modelling.radius_network import CARD, MANIFEST, NETWORK, RadiusManifest, RadiusNetwork, RadiusPosterior
from scanner.training import radius
from scanner.training.checkpoint import read_tensors
from scanner.training.data import TrainingData, scale_data
from scanner.training.radius import EDGES, PIXELS, WINDOW, radii_of, targets, train_radius, zoomed

N = 150


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    """Galaxies with rings of 0.5 to 2.2 arcsec about them, every fifth without; one ring too small, one of two deflectors."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:200, :200] - 99.5
    distance = np.hypot(y, x)
    is_lens = np.arange(N) % 5 > 0
    theta_e = np.where(is_lens, np.exp(rng.uniform(np.log(0.5), np.log(2.2), N)), np.nan)
    rings = np.array([np.exp(-(((distance - 10 * one) / 2) ** 2)) for one in np.nan_to_num(theta_e, nan=99.0)])
    vis = (rng.normal(5, 1, (N, 200, 200)) + 30 * np.exp(-((distance / 6) ** 2)) + 12 * rings).astype(np.float32)
    nisp = rng.normal(5, 1, (N, 3, 66, 66)) + 8 * rings[:, None, 1:199, 1:199].reshape(N, 1, 66, 3, 66, 3).mean(axis=(3, 5))
    theta_e[1] = 0.29
    columns = {
        "target_id": np.arange(N),
        "is_lens": is_lens,
        "class_name": np.where(is_lens, "lens", "elliptical").tolist(),
        "arc_snr": np.where(is_lens, 60, np.nan).astype(np.float32),
        "visible": is_lens,
        "x_arcsec": np.zeros(N, np.float32),
        "y_arcsec": np.zeros(N, np.float32),
        "theta_e_arcsec": theta_e.astype(np.float32),
        "n_deflectors": np.where(np.arange(N) == 2, 2, 1).astype(np.int32),
    }
    flat = np.full((N, 4), 5, np.float32), np.ones((N, 4), np.float32)
    folder = tmp_path_factory.mktemp("rings") / "set"
    return made_dataset.write_dataset(
        folder, columns, vis, nisp.astype(np.float32), *flat, {"preset": "rings", "seed": 4, "n": N}
    )


@pytest.fixture(scope="module", autouse=True)
def short():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radius, "BATCH", 16)
        patch.setattr(radius, "MEAN_STEPS", 5)
        yield


@pytest.fixture(scope="module")
def trained(rings, tmp_path_factory):
    """The folder of a network that was trained without a break, its manifest, and what was told."""
    out, told = tmp_path_factory.mktemp("radius"), []
    manifest = train_radius(TrainingData((rings,)), out, passes=12.0, on_progress=lambda *of: told.append(of))
    return out, manifest, told


def test_visible_lenses_of_one_deflector_within_range_count(rings):
    found = radii_of(TrainingData((rings,)))
    assert np.flatnonzero(np.isfinite(found)).tolist() == [row for row in range(N) if row % 5 and row not in (1, 2)]
    assert found[3] == pytest.approx(LabelledSet(rings).column("theta_e_arcsec")[3])


def test_a_zoomed_ring_has_the_radius_that_is_said():
    y, x = np.mgrid[:WINDOW, :WINDOW] - (WINDOW - 1) / 2
    distance = np.hypot(y, x)
    one = np.exp(-(((distance - 30.0) / 2) ** 2)).astype(np.float32)
    zoom = np.array([-0.15, 0.0, 0.1, 0.15])
    shown = zoomed(torch.from_numpy(np.broadcast_to(one, (4, 4, WINDOW, WINDOW)).copy()), zoom).numpy()
    assert shown.shape == (4, 4, PIXELS, PIXELS)
    # The ring's radius, pixels: where its profile along the middle row is highest, by the parabola through three pixels.
    row = shown[:, 3, PIXELS // 2, PIXELS // 2 :].astype(np.float64)
    peak = row.argmax(axis=1)
    before, at, after = (np.take_along_axis(row, (peak + step)[:, None], 1)[:, 0] for step in (-1, 0, 1))
    radius_pixels = peak + 0.5 + 0.5 * (before - after) / (before - 2 * at + after)
    assert radius_pixels == pytest.approx(30.0 * np.exp(zoom), abs=0.1)
    # What is not zoomed is not interpolated.
    margin = (WINDOW - PIXELS) // 2
    assert np.array_equal(shown[1, 0], one[margin:-margin, margin:-margin])


def test_targets_lie_around_the_radius():
    said = targets(np.log([0.3, 1.0, 4.5])).numpy().astype(np.float64)
    middle = 0.5 * (EDGES[1:] + EDGES[:-1])
    assert said.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    assert np.exp(said @ middle) == pytest.approx([0.3, 1.0, 4.5], rel=0.02)


def test_it_learns_how_wide_rings_are(rings, trained):
    out, manifest, told = trained
    assert [figures.set for figures in manifest.figures] == ["set"]
    figures = manifest.figures[0]
    # Among radii from 0.5 to 2.2 arcsec the best single guess is off by 40 % in the median.
    assert figures.median_error < 0.15
    assert figures.n + manifest.lenses <= N
    shares = [share for share, _ in told]
    assert (shares[-1], shares == sorted(shares), told[-1][1][:5]) == (1.0, True, "loss ")
    card = (out / CARD).read_text()
    assert f"| set | {figures.n} | {figures.median_error:.1%} |" in card
    assert "It began as random weights." in card


def test_a_resumed_training_gives_the_same_bytes(rings, trained, tmp_path):
    data, steps = TrainingData((rings,)), []

    def stop(share, note):
        steps.append(share)
        if len(steps) == 5:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radius, "SAVE_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            train_radius(data, tmp_path, passes=12.0, on_progress=stop)
    assert not (tmp_path / MANIFEST).exists()
    went_on = train_radius(data, tmp_path, passes=12.0, on_progress=lambda share, note: steps.append(share))
    assert steps[5] > steps[4]
    assert (tmp_path / NETWORK).read_bytes() == (trained[0] / NETWORK).read_bytes()
    assert went_on.figures == trained[1].figures
    with pytest.raises(ContentError, match=r"checkpoint\.pt: is of a training on other sets, or with other settings"):
        train_radius(data, tmp_path, passes=9.0)
    (tmp_path / radius.CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(ContentError, match=r"checkpoint\.pt: damaged"):
        train_radius(data, tmp_path, passes=12.0)


def test_what_is_written_answers_as_what_was_trained(rings, trained, tmp_path):
    """The graph with weights of 8 bits against torch, on rows that it judged itself by."""
    out, manifest, _ = trained
    data, dataset = TrainingData((rings,)), LabelledSet(rings)
    images = scale_data(data, out / "scaled-asinh_mad", "asinh_mad")
    network = radius.ResidualNetwork(1, radius.BINS)
    state = read_tensors(out / radius.CHECKPOINT, torch.device("cpu"))
    network.load_state_dict(state["mean"])
    rows = np.array([3, 8, 104])
    wanted = radius.posteriors(network.eval(), images, rows)
    opened = RadiusNetwork(out)
    assert opened.manifest == manifest
    for row, histogram in zip(rows, wanted, strict=True):
        found = opened.posterior(dataset.store.read(np.array([row])))
        assert np.abs(found.probability - histogram).sum() < 0.05
        assert found.quantile(0.5) == pytest.approx(RadiusPosterior(EDGES, histogram).quantile(0.5), rel=0.02)
        assert found.quantile(0.5) == pytest.approx(dataset.column("theta_e_arcsec")[row], rel=0.3)


def test_it_begins_as_a_residual_network_and_as_no_other(rings, tmp_path):
    network = radius.ResidualNetwork(3)
    first = radius.ResidualNetwork(1, radius.BINS)
    own = first.state_dict()["output.weight"].clone()
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    with pytest.MonkeyPatch.context() as patch:

        class Record:
            member_sha256, plan = "ab" * 32, type("Plan", (), {"member": "OU-66"})

        patch.setattr(radius, "read_weights", lambda run: ({k: torch.from_numpy(v) for k, v in weights.items()}, Record))
        assert radius._begin_as(first, tmp_path) == "ab" * 32
        assert torch.equal(first.state_dict()["hidden.weight"], network.state_dict()["hidden.weight"])
        assert torch.equal(first.state_dict()["output.weight"], own)
        weights.pop("hidden.weight")
        with pytest.raises(UsageError, match="is a run of OU-66, not of residual"):
            radius._begin_as(first, tmp_path)


def test_the_command_trains_and_says_what_it_is_worth(rings, tmp_path, capsys):
    words = ["--data", str(rings), "--passes", "1", "--licence", "CC-BY-4.0", "--name", "mine", "--jobs", "1"]
    with pytest.raises(SystemExit) as stopped:
        main(["train", "radius", *words, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("set ")
    assert lines[-1] == f"{tmp_path / 'out'}: mine 1, 1 passes over {RadiusNetwork(tmp_path / 'out').manifest.lenses} lenses"
    content = (tmp_path / "out" / MANIFEST).read_bytes()
    manifest = RadiusManifest.from_bytes(content, tmp_path / MANIFEST, "")
    assert (manifest.licence, manifest.begins_as) == ("CC-BY-4.0", None)
    assert manifest.network_sha256 == hashlib.sha256((tmp_path / "out" / NETWORK).read_bytes()).hexdigest()


def test_too_few_lenses_teach_nothing(write_dataset, tmp_path, capsys):
    # Rings without a known radius.
    data = write_dataset(tmp_path / "set", 60, 0)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "radius", "--data", str(data), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 78
    assert (
        "0 visible lenses with a known Einstein radius to train on, and 0 to judge by, are too few" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()
