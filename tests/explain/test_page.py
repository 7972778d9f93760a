"""The page of one object of a real run."""

import json
import re

import numpy as np
import pytest
import torch
import zarr
from astropy.io import fits
from click.testing import CliRunner
from PIL import Image

from scanner.cli.explain import candidate
from scanner.config import StorageConfig
from scanner.ensemble import bundles
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.explain.maps import guided_grad_cam, occlusion
from scanner.explain.networks import network_input, restore, sky_level
from scanner.explain.object_page import ExplainRequest, explain_object
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS
from scanner.report.explanations import METHODS, PageRequest
from scanner.simulation.datasets.dataset import DatasetRequest, draw_dataset
from scanner.sky import tile_list
from scanner.storage import open_store
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.objects import candidate_cutouts, find_object


@pytest.fixture(scope="module")
def best(finished_run):
    with fits.open(finished_run / "candidates.fits") as hdus:
        return hdus[1].data[0]


@pytest.fixture(scope="module")
def made(finished_run, tmp_path_factory):
    """The page of the best candidate, by every method, few steps and random orders."""
    out = tmp_path_factory.mktemp("page") / "new" / "folder"
    page = PageRequest(
        methods=METHODS, members=("OU-66",), random_orders=2, dream_steps=3, dream_learning_rate=0.001, neighbours=5
    )
    told = []
    record = explain_object(ExplainRequest(str(finished_run), "#1", out, page), lambda *words: told.append(words))
    return record, out, told


def test_the_record_says_what_the_catalogue_says(made, best):
    record, out, told = made
    assert record.model_dump_json(indent=2) + "\n" == (out / "explanation.json").read_text()
    assert (record.name, record.tile_id, record.target_id) == (best["name"], best["tile_id"], best["target_id"])
    assert [vote.member for vote in record.votes] == list(MEMBERS)
    for vote in record.votes:
        assert vote.probability == pytest.approx(best[f"p_{vote.member.lower().replace('-', '_')}"], abs=2e-4)
    assert record.n_votes == sum(vote.probability >= 0.5 for vote in record.votes)
    assert [(found.method, found.member) for found in record.maps] == [("occlusion", "OU-66"), ("guided-grad-cam", "OU-66")]
    for found in record.maps:
        assert found.deletion_gain.low <= found.deletion_gain.value <= found.deletion_gain.high
    lens, non_lens = record.dreams
    assert (lens.name, non_lens.name) == ("lens", "non-lens")
    assert lens.reached > lens.before
    assert non_lens.reached > non_lens.before
    assert len(record.neighbours) == 5
    assert [near.distance for near in record.neighbours] == sorted(near.distance for near in record.neighbours)
    assert ("OU-66, towards lens", 3, 3) in told


def test_the_arrays_are_those_of_the_methods(made, finished_run, tmp_path):
    folder = RunFolder(open_store(str(finished_run), StorageConfig()))
    found = find_object(folder, "1", tmp_path)
    run = folder.record()
    tiles = tile_list.read(run.tile_list, run.config.storage).tiles
    cutout = candidate_cutouts(found.row, folder, tiles, run.config)
    bundle = bundles.load(None)
    network, images = restore(bundle)["OU-66"], network_input(bundle, "OU-66", cutout)
    group = zarr.open_group(made[1] / "arrays.zarr", mode="r")["OU-66"]
    assert np.array_equal(group["input"][:], images[0].numpy())
    assert group["occlusion"][:] == pytest.approx(occlusion(network, images, fill=sky_level(images))[0], abs=1e-5)
    assert group["guided_grad_cam"][:] == pytest.approx(guided_grad_cam(network, images)[0], abs=1e-5)
    with torch.inference_mode():
        dreamt, before = (network(torch.from_numpy(array)[None])[0, 1] for array in (group["dream_lens"][:], group["input"][:]))
    assert dreamt > before


def test_the_page_holds_every_picture_and_needs_nothing(made):
    _, out, _ = made
    page = (out / "index.html").read_text()
    pictures = sorted(out.glob("*.png"))
    assert page.count("data:image/png;base64,") == len(pictures) >= 12
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.size == (264, 264)


def test_pictures_of_neighbours_come_from_a_labelled_set(finished_run, tmp_path):
    draw_dataset(DatasetRequest(preset="quick", n_objects=8, seed=2), tmp_path / "set")
    dataset = LabelledSet(tmp_path / "set")
    page = PageRequest(methods=("neighbours",), members=("OU-J",), neighbours=3)
    record = explain_object(
        ExplainRequest(str(finished_run), "#2", tmp_path / "out", page, dataset=dataset, cache=tmp_path / "cache")
    )
    assert record.maps == ()
    known = dict(zip(dataset.truth.target_id.tolist(), dataset.truth.class_name.tolist(), strict=True))
    assert [near.class_name for near in record.neighbours] == [known[near.target_id] for near in record.neighbours]
    assert len(list((tmp_path / "out").glob("neighbour-*.png"))) == 3


def test_stores_and_scratch_are_those_that_are_named_not_those_of_the_run(finished_run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "scanner.explain.object_page.candidate_cutouts", lambda *given: asked.append(given[-1]) or candidate_cutouts(*given)
    )
    page = PageRequest(methods=("votes",), members=("OU-J",))
    elsewhere = StorageConfig(endpoint="http://127.0.0.1:1")
    here = ExplainRequest(str(finished_run), "#1", tmp_path / "out", page, storage=elsewhere, scratch=str(tmp_path / "scratch"))
    explain_object(here)
    explain_object(ExplainRequest(str(finished_run), "#1", tmp_path / "out", page))
    assert [(config.storage, config.engine.scratch) for config in asked] == [
        (elsewhere, str(tmp_path / "scratch")),
        (RunFolder(open_store(str(finished_run), StorageConfig())).record().config.storage, None),
    ]


def test_what_is_refused(finished_run, tmp_path, monkeypatch):
    own = RunFolder.record

    def of_another_bundle(record):
        return record.model_copy(update={"bundle_fingerprint": "0" * 64})

    def ask(wanted="#1", **changes):
        explain_object(ExplainRequest(str(finished_run), wanted, tmp_path / "out", PageRequest(methods=("votes",)), **changes))

    with pytest.raises(InputMissingError, match="no object has rank 99999"):
        ask("99999")
    with pytest.raises(UsageError, match="is no id of an object"):
        ask("nonsense")
    with pytest.raises(InputMissingError, match="no-such-bundle"):
        ask(bundle="no-such-bundle")
    monkeypatch.setattr(RunFolder, "record", lambda folder: of_another_bundle(own(folder)))
    with pytest.raises(ContentError, match=r"no longer the bundle of this run .* --bundle"):
        ask()
    assert not (tmp_path / "out").exists()


def test_the_command_line(finished_run, best, tmp_path):
    words = [str(finished_run), str(best["name"]), "--out", str(tmp_path / "page"), "--method", "votes", "--member", "OU-66"]
    done = CliRunner().invoke(candidate, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{best['name']}: ")
    assert done.stdout.rstrip().endswith("page/index.html")
    assert json.loads((tmp_path / "page" / "explanation.json").read_text())["request"]["methods"] == ["votes"]
