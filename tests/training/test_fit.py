import itertools

import numpy as np
import pytest
import torch

from scanner.errors import ContentError, UsageError
from scanner.networks import LENS, NON_LENS
from scanner.records import MEMBER_PIXELS
from scanner.training import checkpoint
from scanner.training.batches import Feed
from scanner.training.fit import fit
from scanner.training.presets import PAPER, QUICK, Stage
from scanner.training.trainer import Trainer, class_weights, learning_rate, validation_steps


def brief(preset, passes=2.0, batch=16, validations=2):
    """The preset with next to no passes."""
    change = {"passes": passes, "batch": batch, "validations": validations}
    return preset.model_copy(
        update={
            name: tuple(stage.model_copy(update=change) for stage in getattr(preset, name))
            for name in ("stages_200", "stages_66")
        }
        | {"start_from": {}}
    )


def train(labelled, folder, member="OU-J", preset=None, **settings):
    images, truth, split = labelled
    return fit(
        images,
        truth,
        split,
        member=member,
        preset=preset or brief(QUICK),
        folder=folder,
        dataset_sha256="0" * 64,
        **{"seed": 5, **settings},
    )


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_run_gives_identical_weights(labelled, tmp_path, after):
    whole, record = train(labelled, tmp_path / "whole")
    seen = itertools.count(1)

    def stop(row):
        if next(seen) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(labelled, tmp_path / "parts", report=stop)
    resumed, again = train(labelled, tmp_path / "parts")
    assert again.passes == record.passes
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_another_seed_gives_other_weights(labelled, tmp_path):
    one, _ = train(labelled, tmp_path / "a")
    other, _ = train(labelled, tmp_path / "b", seed=6)
    assert not torch.equal(one.state_dict()["0.weight"], other.state_dict()["0.weight"])


def test_it_learns_rings(labelled, tmp_path):
    images, truth, split = labelled
    network, record = train(labelled, tmp_path, member="OU-66", preset=brief(QUICK, passes=8, batch=8))
    feed = Feed(images, "OU-66", MEMBER_PIXELS["OU-66"])
    with torch.inference_mode():
        logits = network(torch.from_numpy(feed.read(split.calibration)))
    log_odds = (logits[:, LENS] - logits[:, NON_LENS]).numpy()
    is_lens = truth.is_lens[split.calibration]
    assert log_odds[is_lens].min() > log_odds[~is_lens].max()
    assert record.validation_auroc == 1.0


def test_the_folder_tells_what_was_done(labelled, tmp_path):
    network, record = train(labelled, tmp_path)
    again, found = checkpoint.read_member(tmp_path)
    assert found == record
    assert found.plan.member == "OU-J"
    assert found.plan.steps == (13, 13)
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    history = checkpoint.pq.read_table(tmp_path / checkpoint.HISTORY).to_pylist()
    assert [row["stage"] for row in history] == ["crop", "crop", "full", "full"]
    assert [row["step"] for row in history] == [6, 13, 6, 13]
    assert history[-1]["passes"] == pytest.approx(record.passes)


def test_other_settings_are_refused(labelled, tmp_path):
    train(labelled, tmp_path)
    with pytest.raises(UsageError, match="another seed"):
        train(labelled, tmp_path, seed=7)
    with pytest.raises(UsageError, match="another member"):
        train(labelled, tmp_path, member="OU-H")


def test_a_damaged_checkpoint_is_named(labelled, tmp_path):
    train(labelled, tmp_path)
    (tmp_path / checkpoint.CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(ContentError, match=r"checkpoint\.pt"):
        train(labelled, tmp_path)


def test_the_time_budget_only_shortens(labelled, tmp_path):
    _, record = train(labelled, tmp_path / "ample", time_budget=1e6)
    assert record.plan.steps == (13, 13)
    _, record = train(labelled, tmp_path / "scarce", time_budget=1e-6)
    assert record.plan.steps == (1, 1)


def test_the_paper_preset_trains_the_papers_network(labelled, tmp_path):
    network, record = train(labelled, tmp_path, member="OU-H", preset=brief(PAPER))
    assert record.plan.preset.twin is False
    assert not network.training
    assert (PAPER.stages_66[0].batch, PAPER.stages_200[0].batch) == (250, 125)
    assert PAPER.stages_66[0].learning_rate == 3e-4


def test_faint_lenses_are_left_out_of_training_only(labelled):
    images, truth, split = labelled
    faint = truth.arc_snr.copy()
    faint[truth.is_lens] = np.where(np.arange(truth.is_lens.sum()) % 2, 10, 90)
    truth = type(truth)(**{**vars(truth), "arc_snr": faint})
    trainer = Trainer(images, truth, split, "OU-J", QUICK, 0)
    lenses = truth.is_lens[trainer.rows]
    assert (faint[trainer.rows][lenses] >= 25).all()
    assert (~truth.is_lens[trainer.rows]).sum() == (~truth.is_lens[split.train]).sum()
    everything = Trainer(images, truth, split, "OU-J", PAPER, 0)
    assert len(everything.rows) == len(split.train)


def test_class_weights_balance_the_classes():
    is_lens = np.array([True, False, False, False])
    weights = class_weights(is_lens)
    assert weights[LENS] * 1 == pytest.approx(weights[NON_LENS].item() * 3)
    assert weights[np.where(is_lens, LENS, NON_LENS)].mean() == pytest.approx(1.0)


def test_the_cycle_rises_and_falls():
    stage = Stage(name="x", cropped=False, passes=1, batch=2, learning_rate=0.1)
    rates = [learning_rate(stage, step, 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(0.1, rel=1e-3)
    assert rates[0] < 1e-3
    assert rates[-1] < 1e-5
    assert np.argmax(rates) in range(140, 160)
    constant = stage.model_copy(update={"schedule": "constant"})
    assert learning_rate(constant, 0, 10) == learning_rate(constant, 9, 10) == 0.1


def test_validations_are_spread_and_end_at_the_end():
    assert list(validation_steps(10, 3)) == [3, 7, 10]
    assert list(validation_steps(2, 5)) == [1, 2]
