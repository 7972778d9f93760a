"""Runs and surveys in Python: tables with units, questions, cutouts with WCS, pictures, replay."""

import io
import json
import re

import astropy.units as u
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import Latitude, Longitude, SkyCoord
from astropy.io import fits
from astropy.table import Table
from damage import resealed
from PIL import Image

import scanner
from scanner.errors import InputMissingError, UsageError
from scanner.interface.objects import region_of


@pytest.fixture(scope="module")
def run(finished_run):
    return scanner.open(finished_run)


@pytest.fixture(scope="module")
def survey(finished_run, tmp_path_factory):
    return scanner.merge(finished_run, tmp_path_factory.mktemp("survey") / "s")


def test_a_run_says_what_it_is(run, finished_run):
    status = run.status
    found = f"{status.totals.n_unique:,} objects, {status.totals.n_candidates:,} candidates"
    assert repr(run) == f"<Run {finished_run}: done, 3 of 3 tiles, {found}>"
    assert run.record.config.cutouts.codec == "exact"
    assert run.sheet == str(finished_run / "candidates.html")


def test_candidates_have_units_descriptions_and_ucds(run, finished_run):
    written = Table.read(finished_run / "candidates.fits")
    candidates = run.candidates
    assert isinstance(candidates, scanner.interface.objects.ObjectTable)
    assert candidates.colnames == written.colnames
    assert candidates["ra"].unit == u.deg
    assert candidates["magnitude_vis"].unit == u.mag
    assert np.array_equal(candidates["ra"].value, written["ra"])
    assert list(candidates["name"]) == [name.strip() for name in written["name"].astype(str)]
    assert candidates["ra"].info.description == "Right ascension (ICRS)"
    assert candidates["ra"].info.meta["ucd"] == "pos.eq.ra;meta.main"


def test_a_table_is_shown_with_thumbnails(run):
    text = run.candidates._repr_html_()
    n = min(len(run.candidates), 10)
    assert text.count("data:image/webp;base64,") == n
    assert f"{n} of {len(run.candidates):,} rows" in text
    assert run.candidates[:2]._repr_html_().count("<img") == 2
    assert "<img" not in run.candidates["rank", "name"]._repr_html_()
    assert "<img" not in run.candidates[:0]._repr_html_()


def test_objects_are_a_dataset(run, finished_run):
    assert run.objects.count_rows() == pq.read_table(finished_run / "catalogue" / "dataset").num_rows
    assert run.objects.schema.field("ra").metadata[b"unit"] == b"deg"


def test_a_cone_may_be_said_in_many_ways(run):
    best = run.candidates[0]
    ra, dec = best["ra"], best["dec"]
    place = SkyCoord(ra, dec)
    cones = [
        f"{ra.value} {dec.value} 20arcsec",
        (ra, dec, 20 * u.arcsec),
        (ra.value, dec.value, 20 / 3600),
        (place, "20arcsec"),
        (place.galactic, 20 * u.arcsec),
    ]
    answers = [run.query(cone=cone, order="separation") for cone in cones]
    assert len({tuple(answer["target_id"]) for answer in answers}) == 1
    assert answers[0]["target_id"][0] == best["target_id"]
    assert answers[0]["separation"].unit == u.arcsec
    assert answers[0]["separation"].max() <= 20 * u.arcsec


def test_other_questions(run):
    everything = run.query()
    assert list(everything["rank"]) == list(range(1, len(everything) + 1))
    assert len(run.query(top=3)) == 3
    assert run.query(top=0).colnames == everything.colnames
    assert run.query(candidates=True, columns=["rank", "name"]).colnames == ["rank", "name"]
    table = run.query(sql="SELECT count(*) AS n FROM candidates", arrow=True)
    assert table["n"].to_pylist() == [len(run.query(candidates=True))]
    ra, dec = everything["ra"], everything["dec"]
    corners = SkyCoord([ra.min(), ra.max(), ra.max(), ra.min()], [dec.min(), dec.min(), dec.max(), dec.max()])
    assert 0 < len(run.query(polygon=corners)) <= len(everything)
    named = run.query(name=str(everything["name"][4]))
    assert list(named["rank"]) == [5]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"cone": "1 2 3", "polygon": "1 2, 3 4, 5 6"}, "Give one of cone, polygon and moc."),
        ({"sql": "SELECT 1", "top": 3, "order": "ra"}, "leave out order, top"),
        ({"max_rows": 2}, "More than 2 objects were found"),
        ({"columns": ["ranq"]}, "did you mean rank"),
        ({"cone": (1, 2, 3, 4)}, "A cone is a position and a radius"),
        ({"nearby": 3}, "There is no question nearby"),
    ],
)
def test_questions_that_make_no_sense_are_one_sentence(run, question, said):
    with pytest.raises(UsageError) as caught:
        run.query(**question)
    assert said in str(caught.value)


def test_a_moc_of_mocpy_is_a_region(run):
    from mocpy import MOC

    best = run.candidates[0]
    moc = MOC.from_cone(Longitude(best["ra"]), Latitude(best["dec"]), max_depth=16, radius=30 * u.arcsec)
    assert best["target_id"] in run.query(moc=moc)["target_id"]
    assert region_of(None, None, None, None) is None


def test_an_object_is_found_by_rank_name_place_position_and_row(run):
    row = run.query(top=3)[2]
    place = SkyCoord(row["ra"], row["dec"])
    asked = [3, np.int64(3), "#3", "3", str(row["name"]), f"{row['tile_id']}/{row['target_id']}", place, row]
    assert {run.find(which)["rank"][0].as_py() for which in asked} == {3}
    with pytest.raises(InputMissingError, match="no object 10000000"):
        run.find(10_000_000)
    with pytest.raises(InputMissingError, match=r"no object within 2 arcsec of 00h00m00s"):
        run.find(SkyCoord(0 * u.deg, 80 * u.deg))
    with pytest.raises(UsageError, match="objects are called EUCL J; give the rank of one: #1, #2"):
        run.find("EUCL J")


def test_a_cutout_is_what_was_kept_and_lies_where_its_object_is(run, tmp_path):
    row = run.query(top=1)[0]
    cutout = run.cutout(1)
    assert cutout.vis.shape == (200, 200)
    assert cutout.nisp.shape == (3, 66, 66)
    assert np.array_equal(cutout["H"].pixels, cutout.nisp[2], equal_nan=True)
    centre = cutout.wcs.pixel_to_world(99.5, 99.5)
    assert centre.separation(SkyCoord(row["ra"], row["dec"])) < 0.2 * u.arcsec
    nisp = cutout["Y"].wcs.pixel_to_world(32.5, 32.5)
    assert centre.separation(nisp) < 0.05 * u.arcsec
    cutout.write(tmp_path / "one.fits")
    with fits.open(tmp_path / "one.fits") as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ["VIS", "Y", "J", "H"]
        assert hdus[0].header["OBJECT"] == row["name"]
    assert Image.open(io.BytesIO(cutout._repr_png_())).size == (600, 200)


def test_a_cutout_that_was_not_kept_is_cut_again(finished_run, tmp_path):
    """A copy of the run whose tiles say that they kept nothing."""
    import shutil

    shutil.copytree(finished_run, tmp_path / "out")
    for path in (tmp_path / "out" / "tiles").glob("*/commit.json"):
        commit = json.loads(path.read_text())
        resealed(path, sha256={name: value for name, value in commit["sha256"].items() if "cutouts.zarr" not in name})
    kept, again = scanner.open(finished_run).cutout(1), scanner.open(tmp_path / "out").cutout(1)
    for band in ("VIS", "Y", "J", "H"):
        assert np.array_equal(kept[band].pixels, again[band].pixels, equal_nan=True)
    assert "<img" not in scanner.open(tmp_path / "out").candidates._repr_html_()


def test_show_draws_the_best(run):
    figure = run.show(5)
    assert len(figure.axes) == 5
    assert re.fullmatch(r"#1(, candidate)?\np = [\d.e-]+, [\d.,]+ × an average object's", figure.axes[0].get_title())
    assert Image.open(io.BytesIO(figure._repr_png_())).size[0] == 960


def test_replay_from_python_is_the_command_s(run):
    report = run.replay(1)
    assert report.agreement == "equal"
    row = run.query(top=1)[0]
    assert run.replay(row).values == report.values


def test_a_survey_is_opened_alike(survey, run):
    assert isinstance(survey, scanner.Survey)
    assert repr(survey).startswith(f"<Survey {survey.location}: version 1 of 1 run, 3 tiles, ")
    assert [version.number for version in survey.versions] == [1]
    assert list(survey.candidates["name"]) == list(run.candidates["name"])
    assert np.array_equal(survey.cutout(1).vis, run.cutout(1).vis, equal_nan=True)
    row = survey.query(top=1)[0]
    assert survey.find(f"{row['run']}/{row['tile_id']}/{row['target_id']}")["rank"].to_pylist() == [1]
    assert survey.replay(1).agreement == "equal"


def test_runs_that_were_merged_are_merged_once(survey, run):
    again = scanner.merge([run], survey.location)
    assert again.record == survey.record == scanner.open(survey.location).record
    assert len(again.index.versions) == 1


def test_what_is_no_run_is_one_sentence(tmp_path, finished_run):
    with pytest.raises(InputMissingError, match="neither a run folder"):
        scanner.open(tmp_path)
    with pytest.raises(InputMissingError, match="a single run, which has no versions"):
        scanner.open(finished_run, version=2)


def test_a_run_that_is_not_finished_has_a_status_and_no_catalogue(finished_run, tmp_path):
    for name in ("run.json", "status.json"):
        (tmp_path / name).write_bytes((finished_run / name).read_bytes())
    resealed(tmp_path / "run.json", sha256={})
    run = scanner.open(tmp_path)
    assert run.status.n_tiles == 3
    with pytest.raises(InputMissingError, match="have not been merged yet"):
        _ = run.candidates
