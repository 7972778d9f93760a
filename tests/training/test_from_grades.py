"""Last layers and calibration fitted to grades: the graph computes what was fitted, and a run's grades make a bundle."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scans import plain_bundle
from tiny_network import light_bundle, write_rings

from scanner.cli.main import scanner
from scanner.ensemble import bundles
from scanner.ensemble.bundle import CARD_FILE, write_bundle
from scanner.ensemble.calibration import Calibration, sigmoid
from scanner.errors import ContentError, OutputError, UsageError
from scanner.grading import labels as label_table
from scanner.grading.grade import Place
from scanner.grading.store import GradeStore
from scanner.interface.train import learn
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS
from scanner.training import adaptation
from scanner.training.from_grades import features_of, fit_last_layers, learned, refit_calibration, usable


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    """Discs, half of them with a faint ring, and their features by the bundle that ships."""
    dataset = LabelledSet(write_rings(tmp_path_factory.mktemp("rings") / "set", n=48))
    bundle = bundles.load(plain_bundle())
    return bundle, dataset, features_of(bundle, dataset, np.arange(len(dataset)))


def loss(log_odds, is_lens):
    return float((np.logaddexp(0.0, log_odds) - is_lens * log_odds).mean())


def test_the_new_graph_computes_what_was_fitted_and_finds_more(rings, tmp_path):
    bundle, dataset, features = rings
    is_lens, weight = dataset.truth.is_lens, np.ones(len(dataset))
    fold = np.arange(len(dataset)) // 10
    content, fitted = learned(bundle, features, is_lens, weight, fold, "f" * 64, "graded", "1")
    assert fitted.moved
    made = write_bundle(tmp_path / "made", content)
    assert made.manifest.trained_on[-1] == "f" * 64
    assert (made.manifest.decides_on, made.grid, made.manifest.screen) == ("calibrated", None, None)
    assert made.threshold() == made.curve.best(made.default_beta).threshold
    again = features_of(made, dataset, np.arange(len(dataset)))
    now = again.logits
    for column, name in enumerate(MEMBERS):
        # What enters the last layer is what it was; only those that gained by cross-validation are others now.
        np.testing.assert_array_equal(again.values[name], features.values[name])
        assert (name in fitted.moved) != np.array_equal(now[:, column], features.logits[:, column])
    # Each object is judged by layers that were fitted without it.
    before, after = (
        one.calibration.log_odds(logits, one.calibration.sky_prevalence)
        for one, logits in ((bundle, features.logits), (made, fitted.logits))
    )
    assert loss(after, is_lens) < loss(before, is_lens) - 0.3


def test_a_weight_of_none_changes_nothing(rings):
    bundle, dataset, features = rings
    is_lens, weight = dataset.truth.is_lens.copy(), np.ones(len(dataset))
    fold = np.arange(len(dataset)) // 10
    weight[:6] = 0.0
    turned = is_lens.copy()
    turned[:6] = ~turned[:6]
    one, other = (fit_last_layers(bundle.model, features, labels, weight, fold) for labels in (is_lens, turned))
    assert one.model == other.model


def test_calibration_comes_to_the_share_of_lenses_that_scores_have(rings):
    rng = np.random.default_rng(2)
    old = Calibration(coefficients=(0.1,) * 7, intercept=-1.0, training_prevalence=0.5, sky_prevalence=1e-3)
    logits = rng.normal(0.0, 3.0, (4000, 7))
    truth = old.log_odds(logits) + 5.0 + 0.5 * logits[:, 2]
    is_lens = rng.random(4000) < sigmoid(truth)
    new = refit_calibration(old, logits.astype(np.float32), logits, is_lens, np.ones(4000))
    assert new.coefficients[2] == pytest.approx(0.6, abs=0.06)
    assert all(value >= 0.0 for value in new.coefficients)
    assert sigmoid(new.log_odds(logits)).mean() == pytest.approx(is_lens.mean(), abs=0.005)
    # Without grades it is what it was.
    same = refit_calibration(old, logits.astype(np.float32), logits, is_lens, np.zeros(4000))
    assert same == old


def test_what_cannot_learn_is_refused(rings, tmp_path):
    _, dataset, features = rings
    with pytest.raises(UsageError, match="at least 30"):
        usable(dataset, fewest=30)
    light = light_bundle(tmp_path / "light")
    with pytest.raises(ContentError, match="was not exported by scanner"):
        fit_last_layers(light.model, features, dataset.truth.is_lens, np.ones(48), np.arange(48) // 10)


def test_grades_of_a_run_make_a_bundle_that_is_judged_by_others(finished_run, tmp_path, monkeypatch):
    for module, name, value in (
        (label_table, "FEWEST", 1),
        (label_table, "FEWEST_JUDGES", 1),
        (adaptation, "FEWEST_CELLS", 5),
    ):
        monkeypatch.setattr(module, name, value)
    store = GradeStore(tmp_path / "grades.sqlite")
    rows = pq.read_table(finished_run / "catalogue" / "dataset", partitioning=None).sort_by("rank").to_pylist()[:16]
    for number, row in enumerate(rows):
        place = Place(f"{row['run']}/{row['tile_id']}/{row['target_id']}", row["name"], row["ra"], row["dec"])
        store.give(place, "Ann", "AX"[number % 2])
    out = tmp_path / "learned"
    command = ["train", "from-grades", str(finished_run), "--grades", str(tmp_path / "grades.sqlite"), "--out", str(out)]
    result = CliRunner().invoke(scanner, command)
    assert result.exit_code in (0, 1), result.output
    graded, held_out = LabelledSet(out / "graded"), LabelledSet(out / "held-out")
    assert not set(graded.truth.target_id) & set(held_out.truth.target_id)
    assert len(graded) + len(held_out) == 16
    bundle = bundles.load(out / "bundle")
    assert bundle.manifest.name.endswith("-graded")
    assert bundle.manifest.trained_on[-1] == graded.fingerprint
    card = (bundle.path / CARD_FILE).read_text()
    assert f"{int(graded.truth.is_lens.sum())} graded lenses" in card
    assert "| held-out" in card
    with pytest.raises(OutputError, match="is there already"):
        learn(finished_run, out, grades=tmp_path / "grades.sqlite")
    # Stopped once its labels are written: the second call begins with those, whatever was graded since.
    place = Place(
        f"{rows[0]['run']}/{rows[0]['tile_id']}/{rows[0]['target_id']}", rows[0]["name"], rows[0]["ra"], rows[0]["dec"]
    )
    for _ in range(2):
        with pytest.raises(UsageError, match="--hours"):
            learn(finished_run, tmp_path / "all", grades=tmp_path / "grades.sqlite", all_layers=True, hours=0.0)
        store.give(place, "Ann", "X")
    again = LabelledSet(tmp_path / "all" / "graded"), LabelledSet(tmp_path / "all" / "held-out")
    assert [part.fingerprint for part in again] == [graded.fingerprint, held_out.fingerprint]
