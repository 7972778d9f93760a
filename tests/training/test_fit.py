import copy
import itertools
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from damage import flipped
from PIL import Image
from pydantic import ValidationError

from scanner.errors import ContentError, UsageError
from scanner.networks import LENS, NON_LENS, build
from scanner.records import MEMBER_PIXELS
from scanner.training import checkpoint
from scanner.training.checkpoint import HISTORY, HistoryRow, plot_history, write_history
from scanner.training.data import Labels, split
from scanner.training.fit import FitRequest, Reports, Start, _passed, _validations, best_of_both, fit
from scanner.training.presets import BEST, PAPER, Preset, Stage
from scanner.training.trainer import (
    Feed,
    Trainer,
    calibrated_loss,
    class_weights,
    fastest_precision,
    learning_rate,
    weighted_loss,
)
from scanner.training.twin import mean_of


def brief(preset, passes=2.0, batch=16, validations=2, **change):
    """The preset with next to no passes, and all members beginning at random."""
    change |= {"passes": passes, "batch": batch, "validations": validations}
    return preset.model_copy(
        update={
            name: tuple(stage.model_copy(update=change) for stage in getattr(preset, name))
            for name in ("stages_200", "stages_66", "continued_66")
        }
        | {"copies": {}}
    )


def train(labelled, folder, member="OU-J", preset=None, report=lambda rows: None, **settings):
    request = FitRequest(member=member, preset=preset or brief(BEST), dataset_sha256="0" * 64, **{"seed": 5, **settings})
    return fit(*labelled, request, folder, Reports(validated=report))


@pytest.fixture(scope="module")
def whole(labelled, tmp_path_factory):
    """A network trained without a break, its record and its folder; only to be read."""
    folder = tmp_path_factory.mktemp("whole")
    return *train(labelled, folder), folder


@pytest.fixture(scope="module")
def of_rings(labelled, tmp_path_factory):
    """A network that has learned what a ring is, and its record."""
    return train(labelled, tmp_path_factory.mktemp("rings"), member="OU-66", preset=brief(BEST, passes=8, batch=8))


@pytest.mark.parametrize("after", [2, 3])
def test_a_resumed_run_gives_identical_weights(labelled, whole, tmp_path, after):
    network, record, _ = whole
    seen = itertools.count(1)

    def stop(rows):
        if next(seen) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(labelled, tmp_path / "parts", report=stop)
    resumed, again = train(labelled, tmp_path / "parts")
    assert again.passes == record.passes
    for key, value in network.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_run_goes_on_in_the_precision_it_began_in(labelled, tmp_path, monkeypatch):
    def stop(rows):
        raise KeyboardInterrupt

    monkeypatch.setattr("scanner.training.fit.fastest_precision", lambda device: "bfloat16")
    short = brief(BEST, passes=0.5)
    whole, record = train(labelled, tmp_path / "whole", preset=short)
    with pytest.raises(KeyboardInterrupt):
        train(labelled, tmp_path / "parts", preset=short, report=stop)
    monkeypatch.setattr("scanner.training.fit.fastest_precision", lambda device: "float32")
    resumed, again = train(labelled, tmp_path / "parts", preset=short)
    elsewhere, _ = train(labelled, tmp_path / "elsewhere", preset=short)
    assert record.plan.precision == again.plan.precision == "bfloat16"
    assert torch.equal(whole.state_dict()["0.weight"], resumed.state_dict()["0.weight"])
    assert not torch.equal(whole.state_dict()["0.weight"], elsewhere.state_dict()["0.weight"])


def test_a_processor_that_does_not_multiply_bfloat16_trains_in_float32(monkeypatch):
    cpu = torch.device("cpu")
    neither = {"amx_bf16": False, "avx512_bf16": False}
    in_tiles, in_vectors = neither | {"amx_bf16": True}, neither | {"avx512_bf16": True}
    for capabilities, precision in ((in_tiles, "bfloat16"), (in_vectors, "bfloat16"), (neither, "float32"), ({}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert fastest_precision(cpu) == precision
    assert fastest_precision(torch.device("cuda")) == "bfloat16"


def test_another_seed_gives_other_weights(labelled, whole, tmp_path):
    other, _ = train(labelled, tmp_path, seed=6)
    assert not torch.equal(whole[0].state_dict()["0.weight"], other.state_dict()["0.weight"])


def test_it_learns_rings(labelled, of_rings):
    images, labels, split = labelled
    network, record = of_rings
    feed = Feed(images, "OU-66", MEMBER_PIXELS["OU-66"])
    with torch.inference_mode():
        logits = network(feed.read(split.calibration))
    log_odds = (logits[:, LENS] - logits[:, NON_LENS]).numpy()
    is_lens = labels.is_lens[split.calibration]
    assert log_odds[is_lens].min() > log_odds[~is_lens].max()
    assert record.validation_auroc == 1.0


def test_the_folder_tells_what_was_done(whole):
    network, record, folder = whole
    again, found = checkpoint.read_member(folder)
    assert found == record
    assert found.plan.member == "OU-J"
    assert found.plan.steps == (13, 13, 13)
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert [row.stage for row in found.history] == ["crop", "crop", "full", "full", "dense", "dense"]
    assert [row.step for row in found.history] == [7, 13, 7, 13, 7, 13]
    assert found.history[-1].epoch == pytest.approx(record.passes)
    assert record.validation_loss == min(row.validation_loss for row in found.history if row.stage == "dense")


def test_other_settings_are_refused(labelled, whole):
    folder = whole[2]
    with pytest.raises(UsageError, match="another seed"):
        train(labelled, folder, seed=7)
    with pytest.raises(UsageError, match="another member"):
        train(labelled, folder, member="OU-H")


def test_a_damaged_checkpoint_is_named(labelled, whole, tmp_path):
    folder = shutil.copytree(whole[2], tmp_path / "copy")
    (folder / checkpoint.CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(ContentError, match=r"checkpoint\.pt"):
        train(labelled, folder)


def test_a_flipped_bit_of_a_training_run_is_named(whole, tmp_path):
    shutil.copytree(whole[2], tmp_path, dirs_exist_ok=True)
    readers = {
        checkpoint.CHECKPOINT: checkpoint.load,
        checkpoint.PLAN: checkpoint.read_plan,
        checkpoint.MEMBER: checkpoint.read_member,
        checkpoint.FIT: checkpoint.read_member,
    }
    for name, read in readers.items():
        for _ in flipped(tmp_path / name, 2, 5):
            with pytest.raises(ContentError, match=f"{name}: ") as caught:
                read(tmp_path)
            assert "weights_only" not in str(caught.value)
        read(tmp_path)


def test_the_time_budget_only_shortens(labelled, tmp_path):
    _, record = train(labelled, tmp_path / "ample", time_budget=1e6)
    assert record.plan.steps == (13, 13, 13)
    _, record = train(labelled, tmp_path / "scarce", time_budget=1e-6)
    assert record.plan.steps == (1, 1, 1)


def test_the_paper_preset_trains_the_papers_network(labelled, tmp_path):
    network, record = train(labelled, tmp_path, member="OU-H", preset=brief(PAPER, passes=0.2))
    assert record.plan.preset.twin is False
    assert record.plan.preset.dropout == 0.2
    assert not network.training


def test_the_paper_trains_in_float32_also_where_bfloat16_is_faster(labelled, tmp_path, monkeypatch):
    monkeypatch.setattr("scanner.training.fit.fastest_precision", lambda device: "bfloat16")
    precisions = [
        train(labelled, tmp_path / preset.name, preset=brief(preset, passes=0.2))[1].plan.precision for preset in (PAPER, BEST)
    ]
    assert precisions == ["float32", "bfloat16"]


def test_the_paper_turns_no_image(labelled):
    # "Attempting to balance the non-lens class by rotating images caused the CNN to achieve spurious accuracies" (section 3.2):
    # the paper ended without.
    trainer = Trainer(*labelled, "OU-J", PAPER, 3)
    stage = PAPER.stages_66[0].model_copy(update={"batch": len(trainer.rows)})
    images, *_ = trainer.batch(trainer.feed(stage), 0, stage, 0)
    torch.testing.assert_close(images, trainer.feed(stage).read(np.sort(trainer.rows)))


def test_a_dropout_layer_drops_what_the_preset_says(labelled):
    for preset, share in ((PAPER, 0.2), (PAPER.model_copy(update={"dropout": 0.4}), 0.4)):
        layers = Trainer(*labelled, "OU-66", preset, 3).network
        assert {layer.p for layer in layers.modules() if isinstance(layer, torch.nn.Dropout)} == {share}


def test_the_paper_splits_its_60_000_images_into_45_000_3_000_and_12_000(labelled):
    parts = split(60_000, shares=PAPER.shares)
    assert [len(part) for part in vars(parts).values()] == [45_000, 3_000, 12_000]
    assert len(np.unique(np.concatenate(list(vars(parts).values())))) == 60_000
    assert PAPER.validation_rows == 3_000


def test_the_paper_is_followed_to_the_letter():
    for stages, batch in ((PAPER.stages_66, 250), (PAPER.stages_200, 125)):
        (stage,) = stages
        assert (stage.batch, stage.passes, stage.learning_rate, stage.schedule) == (batch, 250, 3e-4, "constant")
        assert stage.validations == 250
    assert (PAPER.twin, PAPER.preprocessing, PAPER.weight_decay, PAPER.augment) == (False, "minmax", 0.0, False)
    assert PAPER.stages("OU-200", "copy") == PAPER.stages_200


def test_the_paper_trains_with_adam_from_he_initialisation(labelled):
    trainer = Trainer(*labelled, "OU-66", PAPER, 3)
    expected = build("OU-66", seed=3).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in trainer.network.state_dict().items())
    optimiser = trainer.begin(PAPER.stages_66[0])
    # AdamW without decay is Adam.
    assert isinstance(optimiser, torch.optim.AdamW)
    assert {group["weight_decay"] for group in optimiser.param_groups} == {0.0}
    assert {group["lr"] for group in optimiser.param_groups} == {3e-4}


def test_a_member_is_shown_no_object_without_its_bands(labelled):
    images, labels, split = labelled
    missing = np.zeros((len(labels), 4), dtype=bool)
    missing[::3, 2] = missing[::5, 0] = True  # J of every third object, VIS of every fifth
    labels = Labels(**{**vars(labels), "missing": missing})
    for member, gone in (("OU-J", missing[:, 2]), ("OU-VIS", missing[:, 0]), ("OU-66", missing.all(axis=1))):
        trainer = Trainer(images, labels, split, member, PAPER, 0)
        assert set(trainer.rows) == set(split.train[~gone[split.train]])
        assert set(trainer.validation) == set(split.validation[~gone[split.validation]])


def test_faint_lenses_are_left_out_of_training_only(labelled):
    images, labels, split = labelled
    faint = labels.arc_snr.copy()
    # NaN: labelled by people, who measured nothing.
    faint[labels.is_lens] = np.resize([10, 90, np.nan], labels.is_lens.sum())
    labels = Labels(**{**vars(labels), "arc_snr": faint})
    trainer = Trainer(images, labels, split, "OU-J", BEST, 0)
    lenses = labels.is_lens[trainer.rows]
    assert set(np.nan_to_num(faint[trainer.rows][lenses], nan=-1)) == {-1, 90}
    assert (~labels.is_lens[trainer.rows]).sum() == (~labels.is_lens[split.train]).sum()
    assert len(trainer.validation) == len(split.validation)
    everything = Trainer(images, labels, split, "OU-J", PAPER, 0)
    assert len(everything.rows) == len(split.train)


def test_labels_count_by_their_weights(labelled):
    images, labels, split = labelled
    weight = np.ones(len(labels), np.float32)
    weight[::2], weight[::5] = 2.0, 0.0
    trainer = Trainer(images, Labels(**{**vars(labels), "weight": weight}), split, "OU-J", PAPER, 0)
    assert set(trainer.rows) == set(split.train[weight[split.train] > 0])
    stage = PAPER.stages_66[0]
    feed = trainer.feed(stage)
    _, target, of_rows = trainer.batch(feed, 0, stage, 0)
    assert set(of_rows.tolist()) == {1.0, 2.0}
    # A row that counts twice is a row that is there twice.
    logits = torch.randn(len(target), 2, generator=torch.Generator().manual_seed(1))
    twice = torch.repeat_interleave(torch.arange(len(target)), of_rows.long())
    expected = torch.nn.functional.cross_entropy(logits[twice], target[twice], trainer.weights)
    assert weighted_loss(logits, target, trainer.weights, of_rows).item() == pytest.approx(expected.item(), rel=1e-6)
    # The loss of a step is that one.
    batch = trainer.batch(feed, 0, stage, 0)
    trainer.network.eval()
    with torch.no_grad():
        outputs = trainer.network(batch[0])
    loss, _ = trainer.step(trainer.begin(stage), *batch)
    assert loss == pytest.approx(weighted_loss(outputs, target, trainer.weights, of_rows).item(), rel=1e-5)


def test_training_goes_on_from_a_bundle(labelled, of_rings, tmp_path):
    before, _ = of_rings
    short = brief(BEST, passes=0.1, batch=8, validations=1)
    after, record = train(
        labelled, tmp_path / "on", member="OU-66", preset=short, start=Start("f" * 64, network=before), seed=6
    )
    assert (record.plan.beginning, record.plan.begins_as) == ("bundle", "f" * 64)
    assert record.validation_auroc == 1.0
    kernel = [network.state_dict()["0.weight"].flatten() for network in (before, after, build("OU-66", seed=6))]
    assert torch.cosine_similarity(kernel[0], kernel[1], dim=0) > 0.9
    assert abs(torch.cosine_similarity(kernel[0], kernel[2], dim=0)) < 0.9
    again, _ = train(labelled, tmp_path / "on", member="OU-66", preset=short, start=Start("f" * 64, network=before), seed=6)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in after.state_dict().items())


def test_the_best_of_two_networks_and_of_their_mean_is_kept(labelled, tmp_path):
    good, record = train(labelled, tmp_path, preset=brief(BEST, passes=4, batch=8))
    stage, elsewhere = BEST.continued_66[0], build("OU-J", seed=8)
    ended = copy.deepcopy(good)
    with torch.no_grad():
        # good = 0.4 elsewhere + 0.6 ended
        for weight, far in zip(ended.parameters(), elsewhere.parameters(), strict=True):
            weight.copy_((weight - 0.4 * far) / 0.6)
    trainer = Trainer(*labelled, "OU-J", BEST, 5)
    kept, found, name = best_of_both(trainer, stage, elsewhere, ended)
    assert name == "mean"
    for name, value in kept.state_dict().items():
        torch.testing.assert_close(value, good.state_dict()[name], rtol=1e-4, atol=1e-6)
    assert found.loss == pytest.approx(record.validation_loss, abs=1e-3)
    assert found.auroc_visible == pytest.approx(record.validation_auroc_visible, abs=1e-3)
    kept, _, name = best_of_both(trainer, stage, good, good)
    assert (kept, name) == (good, "trained")
    # All log-odds shifted: its loss is worse than that of a network that knows nothing, and a calibration would mend it.
    shifted = copy.deepcopy(good)
    with torch.no_grad():
        list(shifted.parameters())[-1][LENS] += 20.0
    kept, found, name = best_of_both(trainer, stage, shifted, elsewhere)
    assert (kept, name) == (shifted, "bundle")
    assert found.loss > 2.0
    assert found.calibrated_loss < 0.69


def test_the_calibrated_loss_is_that_of_the_best_line():
    rng = np.random.default_rng(2)
    is_lens = np.arange(400) < 100
    log_odds = rng.normal(size=400) + 2.0 * is_lens
    # Both classes count alike: of two Gaussians two apart the log-odds are 2 x - 2.
    best = np.logaddexp(0.0, np.where(is_lens, -1, 1) * (2.0 * log_odds - 2.0))
    exact = 0.5 * (best[is_lens].mean() + best[~is_lens].mean())
    found = [calibrated_loss((a * log_odds + b).astype(np.float32), is_lens) for a, b in ((1.0, 0.0), (0.1, 30.0), (9.0, -4.0))]
    np.testing.assert_allclose(found, found[0], atol=1e-4)
    assert exact - 0.02 < found[0] <= exact


def test_a_bundles_member_ends_as_it_began_as_it_was_trained_or_as_a_mean(labelled, tmp_path):
    first, of_first = train(labelled, tmp_path / "first", preset=brief(BEST, passes=1))
    start = Start("f" * 64, network=first)
    short = brief(BEST, passes=1.0, batch=8, validations=1)
    last, alone = train(labelled, tmp_path / "last", preset=short.model_copy(update={"share_of_bundle": 0.0}), start=start)
    kept, record = train(labelled, tmp_path / "kept", preset=short, start=start)
    assert record.validation_loss <= min(alone.validation_loss, of_first.validation_loss + 1e-6)
    share = {"trained": 0.0, "mean": BEST.share_of_bundle, "bundle": 1.0}[record.kept]
    for name, value in mean_of(first, last, share).state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], value)
    assert {"trained": "as trained", "mean": "mean with", "bundle": "the bundle's"}[record.kept] in record.described()


def test_a_training_that_diverges_stops_and_says_so(labelled, tmp_path):
    # Not one step is survived at this rate, so no loss is ever a number.
    wild = brief(BEST, passes=1, learning_rate=1e30, schedule="constant")
    with pytest.raises(UsageError, match=r"its loss is no number after \d\.\d\d passes"):
        train(labelled, tmp_path, preset=wild)
    assert not (tmp_path / "fit.json").exists()


@pytest.mark.parametrize("lenses", ["none bright enough", "none"])
def test_training_rows_of_one_class_are_refused(labelled, tmp_path, lenses):
    images, labels, parts = labelled
    n = len(labels)
    changed = {"is_lens": np.zeros(n, dtype=bool)} if lenses == "none" else {"arc_snr": np.full(n, 3.0, np.float32)}
    with pytest.raises(UsageError, match=r"120 objects are too few to train on: .* a signal-to-noise ratio of 25; draw more"):
        train((images, replace(labels, **changed), parts), tmp_path)


def test_dense_layers_of_a_bundle_are_trained_on_with_full_images(labelled, tmp_path):
    short, seen = brief(BEST, passes=0.5, validations=3), itertools.count(1)
    start = Start("f" * 64, network=build("OU-J", seed=1))

    def stop(rows):
        if next(seen) == 2:
            raise KeyboardInterrupt

    whole, record = train(labelled, tmp_path / "whole", preset=short, start=start)
    assert [row.stage for row in record.history] == ["full", "full", "full"]
    weights = [key for key in whole.state_dict() if key.endswith("weight")]
    for name in (weights[0], weights[-2]):
        kernel = [network.state_dict()[name].flatten() for network in (start.network, whole)]
        assert torch.cosine_similarity(*kernel, dim=0) > 0.9
    with pytest.raises(KeyboardInterrupt):
        train(labelled, tmp_path / "parts", preset=short, start=start, report=stop)
    resumed, _ = train(labelled, tmp_path / "parts", preset=short, start=start)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())


def test_dense_layers_can_be_shown_no_crops():
    with pytest.raises(ValidationError, match="OU-J of a bundle has dense layers, which can be shown no crops"):
        Preset(name="cropped", preprocessing="asinh_mad", twin=True, stages_200=PAPER.stages_200, stages_66=BEST.stages_66)


def test_the_last_stage_trains_the_head_at_every_position(labelled, tmp_path):
    preset = brief(BEST, passes=0.5)

    def stop(rows):
        if rows[-1].stage == "dense" and len(rows) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(labelled, tmp_path / "parts", preset=preset, report=stop)
    resumed, _ = train(labelled, tmp_path / "parts", preset=preset)
    whole, _ = train(labelled, tmp_path / "whole", preset=preset)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())


def test_history_is_a_table_and_two_pictures(tmp_path):
    numbers = {name: 0.25 for name, item in HistoryRow.model_fields.items() if item.annotation is float}
    rows = [
        HistoryRow(**{**numbers, "stage": stage, "step": step, "epoch": float(step), "validation_loss": 1 / step})
        for stage, step in (("crop", 1), ("crop", 2), ("full", 3))
    ]
    write_history(tmp_path, rows)
    table = pq.read_table(tmp_path / HISTORY)
    assert table.to_pylist() == [row.model_dump() for row in rows]
    assert table.schema.field("seconds").metadata[b"description"].endswith(b"in s")
    plot_history(tmp_path, rows, "OU-J")
    for name in ("accuracy.png", "loss.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (720, 432)


def test_class_weights_balance_the_classes():
    is_lens = np.array([True, False, False, False])
    weights = class_weights(is_lens, np.ones(4, np.float32))
    assert weights[LENS] * 1 == pytest.approx(weights[NON_LENS].item() * 3)
    weighted = class_weights(is_lens, np.array([6, 1, 1, 1], np.float32))
    assert weighted[LENS] * 6 == pytest.approx(weighted[NON_LENS].item() * 3)
    assert weights[np.where(is_lens, LENS, NON_LENS)].mean() == pytest.approx(1.0)


def test_the_cycle_rises_and_falls():
    stage = Stage(name="x", cropped=False, passes=1, batch=2, learning_rate=0.1)
    rates = [learning_rate(stage, (step + 0.5) / 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(0.1, rel=1e-3)
    assert rates[0] < 1e-3
    assert rates[-1] < 1e-5
    assert np.argmax(rates) in range(140, 160)
    constant = stage.model_copy(update={"schedule": "constant"})
    assert learning_rate(constant, 0.0) == learning_rate(constant, 0.9) == 0.1


def test_a_time_budget_leaves_validations_their_share_of_the_time():
    paper = PAPER.stages_66[0]
    assert [_validations(paper, share) for share in (1.0, 0.2, 0.01)] == [250, 50, 10]
    assert [_validations(BEST.stages_66[0], share) for share in (1.0, 0.01)] == [BEST.stages_66[0].validations] * 2


def test_validations_are_spread_evenly_and_the_end_is_left_to_itself():
    steps = np.linspace(0, 1, 13)
    assert [k for k in range(12) if _passed(steps[k], steps[k + 1], 3)] == [3, 7]
