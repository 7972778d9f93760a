"""From a published bundle to the one in use, and back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_dataset import write_dataset

from scanner.cli.main import main
from scanner.ensemble.bundle import write_bundle
from scanner.ensemble.calibration import Calibration
from scanner.ensemble.session import open_session
from scanner.errors import InputMissingError
from scanner.evaluation.metrics import auroc
from scanner.labelled_set import LabelledSet, local_datasets
from scanner.networks import build
from scanner.records import MEMBERS
from scanner.storage import open_store
from scanner.training.export import bundle_content

N = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A labelled set in which lenses are brighter: a random network tells the two apart, one way or the other."""
    folder = tmp_path_factory.mktemp("data") / "set"
    rng = np.random.default_rng(3)
    is_lens = np.arange(N) % 2 == 0
    vis = rng.normal(0, 1, (N, 200, 200)).astype(np.float32)
    nisp = rng.normal(0, 1, (N, 3, 66, 66)).astype(np.float32)
    vis[is_lens, 60:140, 60:140] += 20
    nisp[is_lens, :, 20:46, 20:46] += 20
    columns = {
        "target_id": np.arange(N),
        "is_lens": is_lens,
        "class_name": np.where(is_lens, "lens", "elliptical").tolist(),
        "arc_snr": np.where(is_lens, 60.0, np.nan),
        "visible": is_lens,
        "x_arcsec": np.zeros(N),
        "y_arcsec": np.zeros(N),
    }
    sky, sigma = np.zeros((N, 4), np.float32), np.ones((N, 4), np.float32)
    return write_dataset(folder, columns, vis, nisp, sky, sigma, {"preset": "rings", "seed": 3, "n": N})


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, data):
    """Bundles of the same random networks: what the good ones call a lens, the bad one does not."""
    folder = tmp_path_factory.mktemp("bundles")
    networks = {name: build(name, seed=0) for name in MEMBERS}
    for network in networks.values():
        with torch.no_grad():
            network[-1].weight.mul_(10.0)
    content = bundle_content(
        networks,
        "asinh_mad",
        name="mine",
        version="1",
        description="Untrained.",
        sources=dict.fromkeys(MEMBERS, "random numbers"),
    )

    def made(name, version, sign):
        calibration = Calibration(coefficients=(sign, *[0.0] * 6), intercept=0.0, training_prevalence=0.5, sky_prevalence=1e-3)
        return write_bundle(folder / name, replace(content, calibration=calibration, version=version))

    dataset = LabelledSet(data)
    batch, vis, nisp = next(dataset.batches(np.arange(N), N))
    first_member = open_session(made("plain", "0", 1.0)).logits(vis, nisp, batch.sky, batch.sigma)[:, 0]
    sign = 1.0 if auroc(first_member, dataset.truth.is_lens) > 0.5 else -1.0
    assert abs(auroc(first_member, dataset.truth.is_lens) - 0.5) > 0.3
    return {"good": made("good", "1", sign), "bad": made("bad", "2", -sign), "twin": made("twin", "3", sign)}


@pytest.fixture
def run(capsys):
    def _run(*words):
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        return stopped.value.code, *capsys.readouterr()

    return _run


def current(location):
    return json.loads((location / "current.json").read_text())


def test_a_bundle_is_promoted_if_it_is_no_worse_and_rolled_back(bundles, data, tmp_path, run, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = tmp_path / "store"
    good, twin = bundles["good"].fingerprint, bundles["twin"].fingerprint
    promote = ("models", "promote", "--published", store, "--data", data, "--cache", tmp_path / "log-odds")
    code, _, err = run(*promote, "latest")
    assert (code, err) == (66, f"scanner: {store}/latest.json: no such file; publish a bundle first.\n")

    # The first one takes the place of whatever it is judged over.
    code, out, _ = run("models", "publish", bundles["good"].path, "--to", store)
    assert (code, out) == (0, f"{store / good}: published\n")
    code, out, _ = run(*promote, "latest", "--over", bundles["bad"].path)
    assert code == 0
    assert out.endswith(f"\n{store}/current.json: mine 1 ({good[:12]}) is in use now.\n")
    assert (current(store)["bundle"], current(store)["before"]) == (good, None)

    run("models", "publish", bundles["bad"].path, "--to", store)
    code, out, err = run(*promote, "latest")
    assert (code, err) == (1, "")
    assert "WORSE" in out
    assert "mine 2 is worse than mine 1 in" in out
    assert current(store)["bundle"] == good

    # An equal is not worse.
    run("models", "publish", bundles["twin"].path, "--to", store)
    code, out, _ = run(*promote, twin[:12])
    assert code == 0
    moved, back = out.splitlines()[-2:]
    assert moved == f"{store}/current.json: mine 3 ({twin[:12]}) is in use now."
    assert back == f"To go back: scanner models rollback --published {store} --to {good[:12]}"
    assert (current(store)["bundle"], current(store)["before"]) == (twin, good)
    code, out, _ = run(*promote, "latest")
    assert (code, out) == (0, f"{store / twin}: is in use already.\n")
    assert run(*back.removeprefix("To go back: scanner ").split())[0] == 0
    assert (current(store)["bundle"], current(store)["before"]) == (good, twin)


def test_rolling_back_needs_somewhere_to_go(bundles, tmp_path, run):
    code, _, err = run("models", "rollback", "--published", tmp_path)
    assert (code, err) == (64, f"scanner: {tmp_path}: no bundle was in use before; name one with --to.\n")
    for name in ("good", "bad"):
        run("models", "publish", bundles[name].path, "--to", tmp_path)
        run("models", "rollback", "--published", tmp_path, "--to", bundles[name].fingerprint)
    assert run("models", "rollback", "--published", tmp_path)[0] == 0
    assert current(tmp_path)["bundle"] == bundles["good"].fingerprint
    # Once more: forward again.
    assert run("models", "rollback", "--published", tmp_path)[0] == 0
    assert current(tmp_path)["bundle"] == bundles["bad"].fingerprint


def test_published_bundles_are_listed_with_what_they_are_for(bundles, s3, tmp_path, run):
    place = s3.fresh()
    for name in ("good", "bad"):
        assert run("models", "publish", bundles[name].path, "--to", place, "--endpoint", s3.endpoint)[0] == 0
    run("models", "rollback", "--published", place, "--to", bundles["good"].fingerprint, "--endpoint", s3.endpoint)
    code, out, _ = run("models", "list", "--published", place, "--endpoint", s3.endpoint)
    lines = {line.split()[1]: line for line in out.splitlines()[1:]}
    assert code == 0
    assert lines[bundles["good"].fingerprint[:12]].startswith("current ")
    assert lines[bundles["bad"].fingerprint[:12]].startswith("latest ")


def test_a_dataset_on_an_object_store_judges_too(bundles, data, s3, tmp_path, run):
    place = s3.fresh()
    remote = open_store(f"{place}/set", s3.config)
    for file in data.rglob("*"):
        if file.is_file():
            remote.write(file.relative_to(data).as_posix(), file.read_bytes())
    run("models", "publish", bundles["good"].path, "--to", tmp_path / "store")
    words = ("models", "promote", "latest", "--published", tmp_path / "store", "--over", bundles["twin"].path)
    where = ("--data", f"{place}/set", "--cache", tmp_path / "log-odds", "--endpoint", s3.endpoint)
    assert run(*words, *where)[0] == 0
    (copy,) = (tmp_path / "log-odds" / "datasets").iterdir()
    assert copy.name.startswith("set-")
    assert (copy / "truth.parquet").read_bytes() == (data / "truth.parquet").read_bytes()
    remote.delete("truth.parquet")
    with pytest.raises(InputMissingError, match=r"set: not a dataset, truth\.parquet is missing"):
        local_datasets([f"{place}/set"], tmp_path, s3.config)
