"""Feature vectors of a run's cutouts, and which objects are most like one."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from scanner.cli.main import scanner
from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError
from scanner.grading import similar as kept
from scanner.grading.campaign import choose
from scanner.grading.queue import Mix
from scanner.grading.similar import FeatureTable, read_features
from scanner.interface.opened import Run, features, similar
from scanner.storage import open_store
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.published import open_published
from scanner.training.from_grades import FeatureSession


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    """A copy of a finished run whose cutouts have features."""
    copy = shutil.copytree(finished_run, tmp_path_factory.mktemp("similar") / "run")
    computed = []

    def counted(session, batch):
        computed.append(len(batch))
        return compute(session, batch)

    compute = FeatureSession.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureSession, "__call__", counted)
        # Those that the axes are taken from, too, are computed once.
        assert features(copy, progress=False) == sum(computed)
    return copy


def test_every_stored_cutout_has_a_vector_and_is_most_like_itself(run):
    table = read_features(RunFolder(open_store(str(run), StorageConfig())))
    objects = Run(str(run)).query(arrow=True, columns=["rank", "tile_id", "target_id"])
    assert table.values.dtype == np.float16
    assert table.values.shape[1] <= kept.DIMENSIONS
    assert len(table.values) >= len(objects)
    for row in objects.slice(0, 3).to_pylist():
        found = similar(run, f"#{row['rank']}", top=4)
        assert (found["tile_id"][0].as_py(), found["target_id"][0].as_py()) == (row["tile_id"], row["target_id"])
        assert found["similarity"][0].as_py() == pytest.approx(1.0, abs=1e-3)
        assert (np.diff(found["similarity"].to_numpy()) <= 0).all()
        assert len(found) == 4


def test_again_computes_nothing_and_a_new_tile_alone(run, monkeypatch):
    folder = RunFolder(open_store(str(run), StorageConfig()))
    fingerprint = folder.record().bundle_fingerprint
    files = sorted((run / kept.FEATURES / fingerprint[:16]).glob("*.parquet"))
    before = [file.read_bytes() for file in files]
    files[0].unlink()
    written = []
    monkeypatch.setattr(kept, "write_tile", lambda folder, bundle, commit, *of: written.append((commit.tile_id, *of)))
    features(run, progress=False)
    monkeypatch.undo()
    ((tile_id, target_id, values),) = written
    assert f"{tile_id}.parquet" == files[0].name
    kept.write_tile(folder, fingerprint, folder.commit_of(tile_id), target_id, values)
    assert [file.read_bytes() for file in files] == before


def test_a_cutout_from_elsewhere_finds_its_object(run, tmp_path):
    report = Run(str(run)).replay("#1", out=tmp_path)
    (path,) = (file for file in report.files if file.endswith(".fits"))
    result = CliRunner().invoke(scanner, ["query", str(run), "--like", path, "--top", "1", "--format", "csv"])
    assert result.exit_code == 0, result.output
    header, row = result.output.splitlines()[:2]
    assert header.replace('"', "").split(",")[:2] == ["similarity", "rank"]
    assert row.split(",")[1] == "1"


def test_what_cannot_be_compared_is_said(run, finished_run, tmp_path):
    with pytest.raises(InputMissingError, match="scanner features"):
        similar(finished_run, "#1")
    (tmp_path / "none.fits").write_bytes(b"no image")
    with pytest.raises(ContentError, match="is no cutout"):
        similar(run, tmp_path / "none.fits")
    folder = RunFolder(open_store(str(run), StorageConfig()))
    file = next((run / kept.FEATURES / folder.record().bundle_fingerprint[:16]).glob("*.parquet"))
    content = file.read_bytes()
    file.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    with pytest.raises(ContentError, match="damaged"):
        similar(run, "#1")
    file.write_bytes(content)


def test_a_campaign_shows_what_differs_in_features(run):
    catalogue = Run(str(run)).catalogue
    features = kept.features_if_any(open_published(str(run)))
    n = len(Run(str(run)).query(arrow=True, columns=["rank"]))
    mix = Mix(probable=0.5, different=0.5)
    with_, without = (choose(catalogue, top=n, order="queue", seed=1, features=one, mix=mix) for one in (features, None))
    assert {place.candidate_id for place in with_} == {place.candidate_id for place in without}
    assert [place.candidate_id for place in with_] != [place.candidate_id for place in without]
    assert np.isnan(kept.vectors_of(features, [("nowhere", 1)])).all()


def test_most_like_is_the_cosine_and_of_equals_the_first():
    values = np.array([[1, 0], [0, 2], [3, 3], [0, 1], [-1, 0]], dtype=np.float16)
    table = FeatureTable(np.array(["t"] * 5, dtype=object), np.arange(5), values)
    rows, cosine = table.most_like(np.array([0.0, 5.0], np.float32), 3)
    assert rows.tolist() == [1, 3, 2]
    np.testing.assert_allclose(cosine, [1.0, 1.0, np.sqrt(0.5)], rtol=1e-6)
    assert table.row_of("t", 3) == 3
    assert table.row_of("u", 3) is None
