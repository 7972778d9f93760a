"""A scan by a bundle with an eighth member: its column in every table, on the pages and in answers, and merged with others."""

import shutil

import numpy as np
import pyarrow.dataset as dataset
import pyarrow.parquet as pq
import pytest
from astropy.io import votable
from astropy.table import Table
from damage import resealed
from scans import in_this_process
from scipy.special import expit
from tiny_network import ALL, answers, with_eighth

import scanner
from scanner.catalogue import columns
from scanner.config import load
from scanner.cutouts.quality import fill_bad_pixels
from scanner.cutouts.store import CutoutStore
from scanner.ensemble import bundles
from scanner.grading.grade import Viewer
from scanner.grading.store import Blindness, GradeStore
from scanner.records import Flag
from scanner.service.settings import load as load_service
from scanner.survey.merge_runs import MergeRequest, merge_runs
from scanner.survey.run import RunRequest, run_survey

SETTINGS = {
    "scoring.beta": 2.0,
    "targets.magnitude_limit": 22.0,
    "cutouts.keep": "all",
    "cutouts.codec": "exact",
    "catalogue.sheet_candidates": 2,
}


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """Without test-time augmentation: what a table has is what the network says of an object as it is."""
    added = with_eighth(tmp_path_factory.mktemp("eighth"), scaling="asinh_mad")
    resealed(added.bundle.path / "bundle.json", second_look=None)
    return bundles.load(added.bundle.path)


@pytest.fixture(scope="module")
def runs(added, sky, tmp_path_factory):
    """A run by the bundle with the eighth member, of three tiles, the first without H; and one by the bundle without."""
    folder = tmp_path_factory.mktemp("runs")
    tiles = shutil.copytree(sky, folder / "sky")
    poor = min(tiles.glob("9*"))
    for path in poor.glob("*NIR-H*"):
        path.unlink()
    with in_this_process():
        for name, bundle in (("eight", added.path), ("seven", added.path.parent / "light")):
            report = run_survey(
                RunRequest(
                    f"{tiles}/tile-list.txt", str(folder / name), load(None, SETTINGS | {"scoring.bundle": str(bundle)}, {})
                )
            )
            assert report.failed == ()
    return folder, poor.name


@pytest.fixture(scope="module")
def rows(runs):
    return dataset.parquet_dataset(runs[0] / "eight/catalogue/dataset/_metadata").to_table()


def test_every_table_has_its_column(runs, rows):
    folder, poor = runs
    expected = columns.with_further(columns.CATALOGUE_SCHEMA, ["ring"])
    assert rows.schema.equals(expected, check_metadata=True)
    assert rows.schema.names.index("p_ring") == rows.schema.names.index("p_ou_200") + 1
    tile = pq.read_table(folder / "eight/tiles" / poor / "scores.parquet")
    assert tile.schema.equals(columns.with_further(columns.SCORE_SCHEMA, ["ring"]), check_metadata=True)
    table = Table.read(folder / "eight/candidates.ecsv")
    assert table["p_ring"].info.description == "Lens probability of member ring"
    assert table["p_ring"].info.meta["ucd"] == "stat.probability;src.class"
    assert "p_ring" in Table.read(folder / "eight/candidates.fits").colnames
    assert "Lens probability of member ring" in (folder / "eight/candidates.html").read_text()


def test_its_numbers_are_the_networks(runs):
    """Those of one tile, from the cutouts that were kept, in float64 and without ONNX; none where a band is missing."""
    folder, poor = runs
    whole = max((folder / "eight/tiles").glob("9*"))
    batch = CutoutStore(whole / "cutouts.zarr").read(slice(None))
    table = pq.read_table(whole / "scores.parquet").to_pandas().set_index("target_id").loc[batch.targets.target_id]
    plain = np.isfinite(table.p_calibrated.to_numpy()) & (table["flags"].to_numpy() & Flag.BANDS_MISSING == 0)
    log_odds = answers(ALL, 100, "asinh_mad", *fill_bad_pixels(batch), batch.sky, batch.sigma)[:, 0]
    assert plain.sum() > 1
    np.testing.assert_allclose(table.p_ring.to_numpy()[plain], expit(log_odds[plain]), rtol=1e-4)
    without = pq.read_table(folder / "eight/tiles" / poor / "scores.parquet").to_pandas()
    assert np.isfinite(without.p_calibrated).sum() > 0
    assert np.isnan(without.p_ring).all()


def test_merged_with_another_bundles_run_it_is_unknown_there(runs, added, tmp_path):
    folder, _ = runs
    bundles_of = [bundles.load(path).manifest for path in (added.path, added.path.parent / "light")]
    preferred = tuple(f"{manifest.name} {manifest.version}" for manifest in bundles_of)
    assert merge_runs(MergeRequest((f"{folder}/eight", f"{folder}/seven"), str(tmp_path / "survey"), preferred)).is_new
    found = scanner.open(str(tmp_path / "survey")).objects.to_table().to_pandas()
    by_ring = found["bundle"].str.contains("ring")
    assert by_ring.any()
    assert np.isnan(found["p_ring"][~by_ring]).all()


def test_scores_of_arrays_have_it(added):
    noise = np.random.default_rng(1)
    found = scanner.score(noise.normal(size=(2, 200, 200)), noise.normal(size=(2, 3, 66, 66)), bundle=added)
    assert np.isfinite(found["p_ring"]).all()
    assert found.colnames.index("p_ring") == found.colnames.index("p_ou_200") + 1
    assert "p_ring" in scanner.score(np.empty((0, 200, 200)), np.empty((0, 3, 66, 66)), bundle=added).colnames


def test_the_service_offers_it_but_not_to_the_blind(runs, rows, make_server, tmp_path):
    folder, _ = runs
    with make_server(load_service(None, {}, {}), folder / "eight") as server:
        ra, dec = rows["ra"][0].as_py(), rows["dec"][0].as_py()
        answer = server.get("/scs", params={"RA": ra, "DEC": dec, "SR": 0.02, "VERB": 3})
        (folder / "cone.vot").write_bytes(answer.content)
        table = votable.parse_single_table(folder / "cone.vot")
        field = table.get_field_by_id_or_name("p_ring")
        assert (field.ucd, field.description) == ("stat.probability;src.class", "Lens probability of member ring")
        found, ids = table.to_table(), rows["target_id"].to_pylist()
        known = rows["p_ring"].to_pylist()[ids.index(int(found["target_id"][0]))]
        np.testing.assert_array_equal(np.float32(found["p_ring"].filled(np.nan)[0]), np.float32(known))
        name = server.context.collections.default.slug
        item = server.get(f"/api/v1/collections/{name}/candidates").json()["items"][0]
        assert "p_ring" in item
        page = server.get(f"/c/{name}/candidates/{item['id']}").text
        assert "Lens probability of member ring" in page
    blind, ann = Blindness(GradeStore(tmp_path / "grades.sqlite"), on=True), Viewer("ann", "grade", is_named_by_token=True)
    assert blind.hides_column(ann, "p_ring")
    assert blind.hide_scores(ann, [item])[0]["p_ring"] is None
