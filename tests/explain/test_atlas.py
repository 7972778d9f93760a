import json

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from scanner.errors import ContentError, UsageError
from scanner.explain.ascent import strongest
from scanner.explain.atlas import AS_IN_THE_PAPER, explain_bundle
from scanner.explain.networks import network_input, restore
from scanner.labelled_set import LabelledSet
from scanner.networks import LENS
from scanner.report.explanations import AtlasRecord
from scanner.simulation.datasets.dataset import DatasetRequest, draw_dataset

FEW = {"class_steps": 4, "noises": 3, "kernel_steps": 2, "kernels": 2, "objects": 10, "examples": 2}
REQUEST = AS_IN_THE_PAPER.model_copy(update={"members": ("OU-66",), **FEW})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "set"
    draw_dataset(DatasetRequest(preset="train", n_objects=12, seed=2), folder)
    return LabelledSet(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory, shipped, dataset):
    """Folder of an atlas with a labelled set, its record, and what was reported."""
    out, told = tmp_path_factory.mktemp("atlas"), []
    record = explain_bundle(shipped, out, REQUEST, dataset=dataset, report=lambda *what: told.append(what))
    return out, record, told


def test_the_numbers_are_the_papers():
    asked = AS_IN_THE_PAPER
    assert (asked.class_learning_rate, asked.class_steps) == (0.1, 5000)
    assert (asked.kernel_learning_rate, asked.kernel_steps) == (0.001, 1000)


def test_the_record_says_what_the_arrays_hold(made, shipped, dataset):
    out, record, _ = made
    assert AtlasRecord.model_validate_json((out / "explanation.json").read_bytes()) == record
    assert (record.bundle_fingerprint, record.dataset_sha256) == (shipped.fingerprint, dataset.fingerprint)
    group = zarr.open_group(out / "arrays.zarr", mode="r")
    network = restore(shipped)["OU-66"]
    (member,) = record.members
    assert [layer.layer for layer in member.layers] == ["0", "4", "7", "10", "13", "17", "20", "23", "26"]
    lens = member.classes[1]
    reached = np.asarray(group["OU-66/classes/lens-reached"])
    assert (lens.name, lens.before, lens.reached) == ("lens", reached[0], reached[-1])
    image = np.asarray(group["OU-66/classes/lens"])
    assert lens.reached == pytest.approx(float(network(torch.from_numpy(image[None]))[0, LENS]), abs=1e-4)
    assert lens.reached > max(lens.before, lens.best_of_noise)
    assert lens.falls == (np.diff(reached) < 0).sum()
    for layer in member.layers:
        kernels = np.asarray(group[f"OU-66/layers/{layer.layer}/kernels"])
        assert kernels.tolist() == [kernel.kernel for kernel in layer.kernels]
        assert all(kernel.reached > kernel.before for kernel in layer.kernels)


def test_kernels_and_objects_are_those_of_the_set(made, shipped, dataset):
    out, record, _ = made
    group = zarr.open_group(out / "arrays.zarr", mode="r")
    rows = np.asarray(group["rows"])
    assert len(rows) == 10
    assert (np.diff(rows) > 0).all()
    images = network_input(shipped, "OU-66", dataset.store.read(rows))
    expected = restore(shipped)["OU-66"][:1](images).mean(dim=(2, 3)).numpy()
    activation = np.asarray(group["OU-66/layers/0/activation"])
    np.testing.assert_allclose(activation, expected, atol=1e-5)
    layer = record.members[0].layers[0]
    is_lens = dataset.truth.is_lens[rows]
    telling = [abs(_auroc(values, is_lens) - 0.5) for values in activation.T]
    assert [abs(kernel.auroc - 0.5) for kernel in layer.kernels] == pytest.approx(sorted(telling, reverse=True)[:2])
    for kernel in layer.kernels:
        best = rows[strongest(activation[:, [kernel.kernel]], 2)[0]]
        assert kernel.strongest == tuple(dataset.truth.target_id[best])


def test_the_page_needs_no_other_file_and_the_sheets_lie_beside_it(made):
    out, _, _ = made
    text = (out / "index.html").read_text()
    sheets = sorted(path.name for path in out.glob("*.png"))
    assert len(sheets) == 10
    assert text.count('src="data:image/png;base64,') == 10
    assert "http" not in text.replace("http-equiv", "")
    assert all(name in text for name in sheets)
    assert "up to 10 objects went through the networks" in text
    # Two panels of the kernel and two for each of two objects, 132 pixels each, 4 apart; two kernels, one above the other.
    with Image.open(out / "OU-66-layer-17.png") as sheet:
        assert sheet.size == (6 * 132 + 5 * 4, 2 * (132 + 40) + 16)


def test_the_same_call_makes_nothing_twice_and_gives_the_same_files(made, shipped, dataset):
    out, record, _ = made
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    told = []
    assert explain_bundle(shipped, out, REQUEST, dataset=dataset, report=lambda *what: told.append(what)) == record
    assert {what for what, _, _ in told} == {"OU-66 activation by the set"}
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_other_settings_in_the_same_folder_are_refused(made, shipped, dataset):
    with pytest.raises(UsageError, match=r"OU-66-non-lens\.pt: an image that is being made with other settings"):
        explain_bundle(shipped, made[0], REQUEST.model_copy(update={"class_steps": 5}), dataset=dataset)


def test_progress_is_told_by_what_is_made(made):
    told = made[2]
    assert told[:4] == [("OU-66 non-lens image", step, 4) for step in (1, 2, 3, 4)]
    assert ("OU-66 activation by the set", 10, 10) in told
    assert sum(what.startswith("OU-66 layer ") for what, _, _ in told) == 9 * 2


def test_refuses_a_set_of_one_class(shipped, tmp_path):
    draw_dataset(DatasetRequest(preset="double-ring", n_objects=4, seed=2), tmp_path / "set")
    with pytest.raises(ContentError, match="must be lenses and non-lenses"):
        explain_bundle(shipped, tmp_path / "out", REQUEST, dataset=LabelledSet(tmp_path / "set"))


def _auroc(values, is_lens):
    wins = values[is_lens][:, None] - values[~is_lens][None]
    return ((wins > 0) + 0.5 * (wins == 0)).mean()


def test_json_is_for_people_too(made):
    assert json.loads((made[0] / "explanation.json").read_text())["members"][0]["classes"][0]["name"] == "non-lens"
