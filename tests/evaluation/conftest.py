import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from damage import resealed
from made_dataset import write_dataset
from scans import quick_bundle

from scanner.ensemble import bundles
from scanner.evaluation.scores import score
from scanner.labelled_set import Truth
from scanner.records import MEMBERS

CLASSES = ("spiral", "companion", "near_lens", "elliptical")


@pytest.fixture(scope="session")
def make_truth():
    """A truth table of lenses first, then non-lenses of four classes in turn."""

    def make(n_lenses, n_others):
        n = n_lenses + n_others
        is_lens = np.arange(n) < n_lenses
        names = np.where(is_lens, "lens", np.array(CLASSES)[np.arange(n) % len(CLASSES)])
        return Truth(
            target_id=np.arange(n),
            is_lens=is_lens,
            class_name=names,
            arc_snr=np.where(is_lens, 10.0 + np.arange(n) % 90, np.nan).astype(np.float32),
            visible=is_lens & (np.arange(n) % 3 > 0),
            position=np.zeros((n, 2), np.float32),
        )

    return make


@pytest.fixture(scope="session")
def make_logits():
    """Log-odds of seven members that agree in part; lenses are ``signal`` above the others."""

    def make(truth, signal=2.0, seed=0):
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=(len(truth), 1)) + signal * truth.is_lens[:, None]
        return (2 * (shared - 2) + rng.normal(size=(len(truth), len(MEMBERS)))).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def bundle():
    return bundles.load(None)


@pytest.fixture(scope="session")
def light():
    """Folder of a bundle whose networks take no time."""
    return quick_bundle()


@pytest.fixture(scope="session")
def other_bundle(light, tmp_path_factory):
    """Folder of the light bundle under another name, with a calibration that listens to the worst member only."""
    folder = shutil.copytree(light, tmp_path_factory.mktemp("other") / "other")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["name"] = "other"
    manifest["calibration"]["coefficients"] = [1.0, 0, 0, 0, 0, 0, 0]
    resealed(folder / "bundle.json", **manifest)
    return folder


@pytest.fixture(scope="session")
def scored_pair(bundle, other_bundle, make_truth, make_logits):
    """Two bundles on made-up log-odds of two sets: truths by set, and the scored bundles."""
    truths = {"eval": make_truth(300, 400), "challenge": make_truth(0, 3000)}
    logits = {name: make_logits(truth, seed=number) for number, (name, truth) in enumerate(truths.items())}
    worse = {name: make_logits(truth, signal=1.0, seed=number) for number, (name, truth) in enumerate(truths.items())}
    return truths, (score(bundle, "good", logits), score(bundles.load(other_bundle), "bad", worse))


def _write(folder: Path, truth: Truth, preset: str, seed: int, lacking: slice = slice(0)) -> Path:
    """A dataset folder as the simulator writes it: noise, in lenses with a ring; rows ``lacking`` have no NISP."""
    rng = np.random.default_rng(seed)
    n = len(truth)
    radius = np.hypot(*(np.mgrid[:200, :200] - 99.5))
    vis = rng.normal(5, 1, (n, 200, 200)).astype(np.float32) + 30 * np.exp(-((radius / 6) ** 2)).astype(np.float32)
    nisp = rng.normal(5, 1, (n, 3, 66, 66)).astype(np.float32)
    ring = 12 * np.exp(-(((radius - 14) / 3) ** 2)).astype(np.float32)
    vis[truth.is_lens] += ring
    nisp[truth.is_lens] += ring[1:199, 1:199].reshape(66, 3, 66, 3).mean(axis=(1, 3))
    columns = {name: getattr(truth, name) for name in ("target_id", "is_lens", "arc_snr", "visible")}
    columns |= {
        "class_name": truth.class_name.tolist(),
        "x_arcsec": np.zeros(n),
        "y_arcsec": np.zeros(n),
        "theta_e_arcsec": np.where(truth.is_lens, 1.1, np.nan),
        "red_source": truth.is_lens & (np.arange(n) % 2 == 0),
    }
    nisp[lacking] = np.nan
    bad = np.zeros((n, 4), np.float32)
    bad[lacking, 1:] = 1.0
    sky, sigma = np.full((n, 4), 5, np.float32), np.ones((n, 4), np.float32)
    return write_dataset(folder, columns, vis, nisp, sky, sigma, {"request": {"preset": preset, "seed": seed}}, bad)


@pytest.fixture(scope="session")
def sets(tmp_path_factory, make_truth):
    """Folders of three small sets: both classes, lenses only, and the sky."""
    place = tmp_path_factory.mktemp("sets")
    return {
        "eval": _write(place / "eval", make_truth(12, 8), "eval", 1),
        "double-ring": _write(place / "double-ring", make_truth(4, 0), "double-ring", 2),
        "challenge": _write(place / "challenge", make_truth(0, 8), "challenge", 3),
    }


@pytest.fixture(scope="session")
def unlensed_rings(tmp_path_factory, make_truth):
    """A small set of double rings of which half show no ring."""
    return _write(tmp_path_factory.mktemp("unlensed") / "double-ring", make_truth(3, 3), "double-ring", 4)


@pytest.fixture(scope="session")
def real_set(tmp_path_factory, make_truth):
    """Folder of a set such as real images make: six lenses of grades A and B, ten others; rows 4 to 8 are VIS alone."""
    truth = make_truth(6, 10)
    graded = np.where(truth.is_lens, np.where(truth.target_id < 4, "A", "B"), "X")
    return _write(tmp_path_factory.mktemp("real") / "graded", replace(truth, class_name=graded), "graded", 9, slice(4, 9))
