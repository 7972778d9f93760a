import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from damage import flipped, resealed

from scanner.ensemble import bundles
from scanner.ensemble.bundle import content_of
from scanner.ensemble.calibration import BETAS
from scanner.ensemble.embedding_grid import NEAREST_LOG_ODDS, PAPER_RULE
from scanner.errors import ContentError, InputMissingError, OutputError, UsageError
from scanner.evaluation.promotion import make_default
from scanner.storage import open_store


@pytest.fixture
def copy(bundle, tmp_path):
    """A copy of the bundle to tamper with."""
    return shutil.copytree(bundle.path, tmp_path / "untrained")


def _edit(folder, **changes):
    resealed(folder / "bundle.json", **changes)


def _assert_refused(folder, *words):
    with pytest.raises(ContentError) as caught:
        bundles.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    assert "again" in message or "update" in message
    for word in words:
        assert word in message


def test_what_is_written_is_what_is_loaded(bundle):
    again = bundles.load(bundle.path)
    assert again.manifest == bundle.manifest
    assert again.fingerprint == bundle.fingerprint
    assert sorted(again.manifest.sha256) == ["MODEL_CARD.md", "ensemble.onnx", "grid.npz", "operating_curve.npz"]
    assert again.manifest.decides_on == "grid"
    assert again.calibration == bundle.calibration


def test_the_same_ensemble_gives_the_same_bytes(bundle, write_bundle, tmp_path):
    again = write_bundle(tmp_path / "again")
    for name in ("bundle.json", *bundle.manifest.sha256):
        assert (again.path / name).read_bytes() == (bundle.path / name).read_bytes()


def test_thresholds_are_listed_and_any_beta_is_derived(bundle):
    listed = bundle.manifest.thresholds
    assert listed[0].beta == 0.03
    assert bundle.threshold() == bundle.threshold(0.03) == listed[0].threshold
    assert bundle.threshold(0.77) == bundle.curve.best(0.77).threshold
    assert bundle.threshold(1e6) < bundle.threshold(1e-6)


def test_a_bundle_of_the_papers_recipe_has_the_threshold_of_the_highest_f_beta(bundle):
    content = content_of(bundle)
    for rule, exact in ((NEAREST_LOG_ODDS, False), (PAPER_RULE, True)):
        manifest = replace(content, grid=replace(bundle.grid, rule=rule)).manifest(dict(bundle.manifest.sha256))
        assert manifest.thresholds == tuple(bundle.curve.best(beta, exact=exact) for beta in BETAS)
        made = replace(bundle, manifest=manifest)
        assert made.threshold(0.77) == bundle.curve.best(0.77, exact=exact).threshold
    assert bundle.curve.best(0.77, exact=True).threshold > bundle.curve.best(0.77).threshold


def test_a_bundle_without_labels_decides_at_one_half(write_bundle, tmp_path):
    plain = write_bundle(tmp_path / "plain", labelled=False)
    assert plain.manifest.decides_on == "calibrated"
    assert plain.threshold() == 0.5
    assert plain.grid is None
    with pytest.raises(UsageError, match=r"plain: .*beta = 0.1.*--data"):
        plain.threshold(0.1)


@pytest.mark.parametrize("name", ["ensemble.onnx", "grid.npz", "operating_curve.npz", "MODEL_CARD.md"])
def test_every_file_is_guarded(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    _assert_refused(copy, name, "altered")
    (copy / name).unlink()
    _assert_refused(copy, name, "cannot be read")


def test_a_file_that_is_not_listed_is_refused_unless_hidden(copy):
    (copy / ".DS_Store").write_text("")
    bundles.load(copy)
    (copy / "weights.pkl").write_bytes(pickle.dumps([1]))
    _assert_refused(copy, "weights.pkl", "not listed")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_bad_json_is_refused(copy, content):
    (copy / "bundle.json").write_bytes(content)
    _assert_refused(copy, "bundle.json", "JSON")


@pytest.mark.parametrize("version", [2, "1", None])
def test_unknown_formats_are_refused(copy, version):
    _edit(copy, format_version=version)
    _assert_refused(copy, "bundle.json", "unknown", "update scanner")


@pytest.mark.parametrize("content", [b"[]", b"null", b"{}", b'{"format_version": 2}', b'{"format_version": 1}'])
def test_a_manifest_without_its_checksum_is_refused(copy, content):
    (copy / "bundle.json").write_bytes(content)
    _assert_refused(copy, "bundle.json", "it has no checksum")


def test_every_flipped_bit_is_named(copy):
    """In the manifest, the grid and the curve, wherever it is: also in headers, which numpy would believe."""
    for name in ("bundle.json", "grid.npz", "operating_curve.npz", "MODEL_CARD.md"):
        for _ in flipped(copy / name, 1, 20):
            _assert_refused(copy, name)
    bundles.load(copy)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    _assert_refused(tmp_path, "bundle.json", "cannot be read")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"members": []}, ("members", "OU-J, OU-Y")),
        ({"preprocessing": "sqrt"}, ("preprocessing",)),
        ({"calibration": {"kind": "pickle"}}, ("calibration",)),
        ({"calibration": {"kind": "mean", "extra": 1}}, ("calibration.mean.extra",)),
        ({"name": None}, ("name", "string")),
        ({"note": "x"}, ("note",)),
        ({"sha256": {}}, ("sha256", "ensemble.onnx is not listed")),
        ({"sha256": {"../ensemble.onnx": "0" * 64}}, ("sha256",)),
        ({"sha256": {"ensemble.onnx": "abc"}}, ("sha256.ensemble.onnx",)),
    ],
)
def test_bad_manifests_are_refused(copy, changes, words):
    _edit(copy, **changes)
    _assert_refused(copy, "bundle.json", *words)


def test_members_must_see_what_the_paper_says(copy):
    members = json.loads((copy / "bundle.json").read_text())["members"]
    members[6]["bands"] = ["VIS", "J", "Y", "H"]
    _edit(copy, members=members)
    _assert_refused(copy, "OU-200 must see J+Y+H+VIS at 200")


def test_a_missing_folder_is_input_missing(tmp_path):
    with pytest.raises(InputMissingError, match=r"nowhere: no such bundle folder; 'scanner models list'"):
        bundles.load(tmp_path / "nowhere")
    with pytest.raises(InputMissingError, match="no-such-bundle"):
        bundles.load("no-such-bundle")


def test_a_bundle_replaces_a_bundle_and_nothing_else(bundle, write_bundle, tmp_path):
    first = write_bundle(tmp_path / "bundle")
    second = write_bundle(tmp_path / "bundle", version="2")
    assert second.fingerprint != first.fingerprint
    assert bundles.load(tmp_path / "bundle").manifest.version == "2"
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"], "nothing is left beside it"
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="letters: exists and is not a bundle"):
        write_bundle(tmp_path / "letters")
    assert (tmp_path / "letters" / "letter.txt").read_text() == "dear"


def test_a_folder_that_cannot_be_made_is_refused(write_bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="bundle: cannot be written"):
        write_bundle(tmp_path / "file" / "bundle")


def test_a_failed_write_leaves_nothing(write_bundle, tmp_path):
    with pytest.raises(ValueError, match="members"):
        write_bundle(tmp_path / "bundle", members=[])
    assert not list(tmp_path.iterdir())


def test_installed_bundles_are_complete_and_can_be_named():
    found = bundles.installed()
    assert found
    for path in found:
        assert bundles.load(path.name).path == path


def test_the_users_own_bundles_are_found_by_name_and_one_may_be_the_default(tmp_path, monkeypatch):
    shipped = bundles.find(None)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    models = tmp_path / "scanner" / "models"
    assert bundles.user_models_folder() == models
    shutil.copytree(shipped, models / "mine")
    assert bundles.find("mine") == models / "mine"
    assert models / "mine" in bundles.installed()
    assert shipped in bundles.installed()
    assert bundles.find(None) == shipped
    make_default("mine", models)
    assert bundles.find(None) == models / "mine"
    # The default may go back to one that scanner brings.
    make_default(shipped.name, models)
    assert bundles.find(None) == shipped


class TestOnAnObjectStore:
    """Bundles on a real S3 server; the cache is a folder of the test's own."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return tmp_path / "cache" / "scanner" / "bundles"

    @pytest.fixture
    def url(self, s3, bundle):
        location = f"{s3.fresh()}/untrained"
        for file in bundle.path.iterdir():
            open_store(location, s3.config).write(file.name, file.read_bytes())
        return location

    def test_it_is_the_local_one(self, s3, bundle, url, cache):
        loaded = bundles.load(url, s3.config)
        assert loaded.fingerprint == bundle.fingerprint
        assert loaded.manifest == bundle.manifest
        assert loaded.model == bundle.model
        assert loaded.location == url
        assert loaded.path == cache / bundle.fingerprint
        assert bundle.location == str(bundle.path.resolve())
        assert [path.name for path in cache.iterdir()] == [bundle.fingerprint]

    def test_the_copy_is_used_again_and_mended(self, s3, bundle, url):
        copy = bundles.load(url, s3.config).path
        stamp = copy.stat().st_ino
        assert bundles.load(url, s3.config).path.stat().st_ino == stamp
        (copy / "ensemble.onnx").write_bytes(b"damaged")
        assert bundles.load(url, s3.config).model == bundle.model
        (copy / "grid.npz").unlink()
        assert bundles.load(url, s3.config).grid is not None

    def test_many_processes_fetch_it_at_once(self, s3, bundle, url, cache):
        script = "import sys; from scanner.config import StorageConfig; from scanner.ensemble import bundles; "
        script += "print(bundles.load(sys.argv[1], StorageConfig(endpoint=sys.argv[2])).fingerprint)"
        command = [sys.executable, "-c", script, url, s3.endpoint]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        assert {process.communicate()[0].strip() for process in processes} == {bundle.fingerprint}
        assert [path.name for path in cache.iterdir()] == [bundle.fingerprint]

    def test_altered_and_missing_files_are_refused(self, s3, url, cache):
        store = open_store(url, s3.config)
        store.write("ensemble.onnx", b"tampered")
        with pytest.raises(ContentError, match=re.escape(f"{url}/ensemble.onnx: altered")):
            bundles.load(url, s3.config)
        store.delete("ensemble.onnx")
        with pytest.raises(ContentError, match=re.escape(f"{url}/ensemble.onnx: is missing")):
            bundles.load(url, s3.config)
        store.write("bundle.json", b"{")
        with pytest.raises(ContentError, match=re.escape(f"{url}/bundle.json: not valid JSON")):
            bundles.load(url, s3.config)
        assert not cache.exists() or not list(cache.iterdir())

    def test_no_bundle_there(self, s3, url):
        with pytest.raises(InputMissingError, match="no such bundle"):
            bundles.load(f"{url}-2", s3.config)

    def test_a_cache_that_cannot_be_written(self, s3, url, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with pytest.raises(OutputError, match="set XDG_CACHE_HOME"):
            bundles.load(url, s3.config)
