"""Networks trained and put together from Python: the command's own code."""

import pytest
import torch

import scanner
from scanner.errors import InputMissingError, UsageError
from scanner.training.presets import BEST, PAPER
from scanner.training.trainer import fastest_precision

#: One network of the smallest images, a fifth of a pass a stage.
BRIEF = BEST.model_copy(
    update={
        "copies": {},
        "stages_66": tuple(stage.model_copy(update={"passes": 0.2, "batch": 8, "validations": 1}) for stage in BEST.stages_66),
    }
)


@pytest.fixture(scope="module")
def data(write_dataset, tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("train") / "set", 80)


def test_one_network_is_trained_and_no_bundle_without_the_others(data, tmp_path):
    (record,) = scanner.train(data, tmp_path, members=["OU-J"], preset=BRIEF, jobs=1, progress=False)
    assert record.plan.member == "OU-J"
    assert [row.stage for row in record.history] == ["crop", "full", "dense"]
    assert (tmp_path / "OU-J" / "member.npz").is_file()
    with pytest.raises(InputMissingError, match="no finished training run"):
        scanner.make_bundle(tmp_path, data, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data": ()}, "Give the training set"),
        ({"draw": 100}, "Give the training set"),
        ({"mirror": "runs"}, "is the folder of the runs itself"),
        ({"time_budget": "soon"}, "soon"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(data, tmp_path, monkeypatch, settings, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        scanner.train(**{"data": data, "out": "runs", "progress": False, **settings})
    assert said in str(caught.value)


def test_precision_given_beside_a_preset_wins(data, tmp_path):
    paper = PAPER.model_copy(
        update={"stages_66": tuple(stage.model_copy(update={"passes": 0.2, "batch": 8}) for stage in PAPER.stages_66)}
    )
    plans = []
    for preset, precision in ((paper, None), (paper, "fastest"), (BRIEF, "float32")):
        out = tmp_path / str(precision)
        (record,) = scanner.train(data, out, members=["OU-H"], preset=preset, precision=precision, progress=False)
        plans.append(record.plan)
    assert [plan.preset.precision for plan in plans] == ["float32", "fastest", "float32"]
    assert [plan.precision for plan in plans] == ["float32", fastest_precision(torch.device("cpu")), "float32"]
