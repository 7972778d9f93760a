"""Setting a cascade: the limits of screen and test-time augmentation, what they lose, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from scans import plain_bundle
from tiny_network import ALL, light_bundle, write_network, write_rings

import scanner
from scanner.cli.main import main
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Screen, content_of, lost_at, write_bundle
from scanner.ensemble.calibration import Calibration, fit, sigmoid
from scanner.ensemble.preprocessing import Augmentation
from scanner.ensemble.session import Scorer, open_session
from scanner.errors import ContentError, UsageError
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS, Flag
from scanner.training.added_member import NewMember, add_member
from scanner.training.cascade import change_at, changes, losses, member_graph, second_look_rule, with_means
from scanner.training.data import TrainingData


def test_a_loss_is_counted_among_the_lenses_that_are_found_without_a_screen():
    score = np.concatenate([np.arange(100.0), np.arange(1000.0) / 1000 * 50])
    is_lens = np.arange(1100) < 100
    passes = np.ones(1100, bool)
    # Of the lenses from 50 upwards, which no non-lens reaches, the screen loses two; of those beneath, ten.
    passes[[70, 90, *range(10)]] = False
    passes[100:] = np.arange(1000) % 10 == 0
    found = {metric.metric: metric for metric in losses("set", score, passes, is_lens)}
    assert found.keys() == {lost_at(1e-2), lost_at(1e-3)}
    # Ten non-lenses may pass, down to 49.45: the lenses from 50 upwards stand above. One may: the same fifty.
    for metric in found.values():
        assert metric.value == pytest.approx(2 / 50)
        assert 0 <= metric.low < 2 / 50 < metric.high < 0.2
        assert (metric.n_pos, metric.n_neg, metric.set, metric.member) == (100, 1000, "set", "screen")
    (first, _) = losses("set", score, np.ones(1100, bool), is_lens)
    assert (first.value, first.low) == (0.0, 0.0)
    assert first.high == pytest.approx(0.0713, abs=0.01)


def test_nothing_is_measured_without_lenses_or_where_too_few_non_lenses_may_pass():
    assert losses("set", np.arange(50.0), np.ones(50, bool), np.zeros(50, bool)) == ()
    assert losses("set", np.arange(50.0), np.ones(50, bool), np.arange(50) > 25) == ()


def test_changes_of_recall_are_counted_at_the_thresholds_of_each():
    lenses, others = np.arange(100.0), np.arange(1000.0) / 20
    after = lenses.copy()
    after[60:64] = -np.inf
    found = {metric.metric: metric for metric in changes("set", (lenses, others), (after, others))}
    assert found.keys() == {change_at(1e-2), change_at(1e-3)}
    for metric in found.values():
        # The non-lenses reach 49.95: of 50 lenses above them, four are gone.
        assert metric.value == pytest.approx(-0.04)
        assert -0.1 < metric.low < -0.04 < metric.high <= 0.0
        assert (metric.n_pos, metric.n_neg, metric.member) == (100, 1000, "calibrated")
    better = np.where(others > 45, 0.0, others)
    (first, _) = changes("set", (lenses, others), (lenses, better))
    # Ten non-lenses may pass: once down to 49.45, then down to 44.5; five lenses stand between.
    assert first.value == pytest.approx(0.05)


def test_means_become_what_they_are_worth():
    """Labels drawn from log-odds of 1.6 x mean + 0.3 for two members: the fit finds both, and the calibration becomes right."""
    rng = np.random.default_rng(3)
    n, columns, prevalence = 40_000, np.array([4, 5]), 0.5
    calibration = Calibration(
        coefficients=(0.1, 0.0, -0.1, 0.0, 0.5, 0.4, 0.2), intercept=0.2, training_prevalence=prevalence, sky_prevalence=1e-4
    )
    once = rng.normal(0.5, 1.5, (n, 7)).astype(np.float32)
    means = once[:, columns] + rng.normal(0, 0.3, (n, 2))
    worth = once.copy()
    worth[:, columns] = 1.6 * means + 0.3
    is_lens = rng.random(n) < sigmoid(calibration.log_odds(worth, prevalence))
    rule = second_look_rule(calibration, once[~is_lens], 0.05, ("OU-VIS", "OU-66"))
    assert rule.log_odds_above == pytest.approx(np.quantile(calibration.log_odds(once[~is_lens]), 0.95))
    assert (rule.members, rule.slope, rule.intercept) == (("OU-VIS", "OU-66"), 1.0, 0.0)
    # Which objects get it goes by their log-odds: that changes neither of the two.
    again = calibration.log_odds(once) >= rule.log_odds_above
    found = with_means(Augmentation(rule, calibration, columns), once[again], means[again], is_lens[again], prevalence)
    assert found.slope == pytest.approx(1.6, abs=0.1)
    assert found.intercept == pytest.approx(0.3, abs=0.15)
    told = once[again].copy()
    told[:, columns] = found.log_odds(means[again])
    assert sigmoid(calibration.log_odds(told, prevalence)).mean() == pytest.approx(is_lens[again].mean(), abs=1e-3)
    few = np.flatnonzero(again)[:30]
    same = with_means(Augmentation(rule, calibration, columns), once[few], means[few], np.arange(30) < 19, prevalence)
    assert same == rule


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    return write_rings(tmp_path_factory.mktemp("rings") / "rings")


def test_a_finished_bundle_gets_a_screen(rings, tmp_path, capsys):
    words = ["models", "cascade", plain_bundle(), "--data", rings, "--share", 0.25, "--version", "next", "--provider", "cpu"]
    words += ["--member", "OU-66", "--member", "OU-J", "--cache", tmp_path / "cache", "--out", tmp_path / "screened"]
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert stopped.value.code == 0
    assert "used where a scan asks for it; lenses lost: not measured" in " ".join(capsys.readouterr().out.split())
    before, made = bundles.load(plain_bundle()), bundles.load(tmp_path / "screened")
    assert (made.manifest.version, made.model) == ("next", before.model)
    screen = made.manifest.screen
    assert (screen.members, screen.share, screen.lost) == (("OU-J", "OU-66"), 0.25, ())
    data = LabelledSet(rings)
    (batch, vis, nisp) = next(data.batches(np.arange(len(data)), len(data)))
    first = open_session(made, "cpu", screens=True).screen_logits(vis, nisp, batch.sky, batch.sigma)
    level = made.screening("bundle").calibration.log_odds(first)
    assert screen.log_odds_above == pytest.approx(np.quantile(level[~data.truth.is_lens], 0.75))
    card = (tmp_path / "screened" / "MODEL_CARD.md").read_text()
    assert card.startswith(f"# {before.manifest.name} next\n")
    assert "OU-J, OU-66 score every object" in card
    assert card.rstrip().endswith("Not measured: there were too few lenses or non-lenses.")
    again = scanner.set_cascade(made, rings, tmp_path / "again", cache=tmp_path / "cache", provider="cpu")
    assert (again.manifest.version, again.manifest.screen.members) == ("next+cascade", ("OU-66",))
    assert (tmp_path / "again" / "MODEL_CARD.md").read_text().count("## Screening") == 1


def test_a_finished_bundle_gets_test_time_augmentation(rings, tmp_path, capsys):
    words = ["models", "cascade", plain_bundle(), "--data", rings, "--calibration", rings, "--turn", "OU-66", "--turn", "OU-J"]
    words += [
        "--turn-share",
        "0.5",
        "--share",
        "0.5",
        "--second-share",
        "0.25",
        "--provider",
        "cpu",
        "--out",
        tmp_path / "turning",
    ]
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert stopped.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "OU-J, OU-66 eight ways round, mean" in told
    assert "alone as the best 50% of non-lenses, and then by the members that turn as the best 25.0% (" in told
    before, made = bundles.load(plain_bundle()), bundles.load(tmp_path / "turning")
    rule = made.manifest.second_look
    assert (made.manifest.version, rule.members, rule.share) == (f"{before.manifest.version}+cascade", ("OU-J", "OU-66"), 0.5)
    data = TrainingData([rings])
    rows = data.split.calibration
    ((batch, vis, nisp),) = data.batches(rows, len(rows))
    cutouts = vis, nisp, batch.sky, batch.sigma
    once = open_session(before, "cpu").logits(*cutouts)
    level, is_lens = made.calibration.log_odds(once), data.labels.is_lens[rows]
    assert made.calibration == fit(once, is_lens, sky_prevalence=before.calibration.sky_prevalence) != before.calibration
    assert rule.log_odds_above == pytest.approx(np.quantile(level[~is_lens], 0.5))
    changed = open_session(made, "cpu").logits(*cutouts) != once
    np.testing.assert_array_equal(changed.any(axis=1), level >= rule.log_odds_above)
    assert changed.any(axis=0)[[MEMBERS.index("OU-J"), MEMBERS.index("OU-66")]].all()
    assert changed.any(axis=0).sum() == 2
    whole, others = LabelledSet(rings), ~LabelledSet(rings).truth.is_lens
    ((batch, vis, nisp),) = whole.batches(np.arange(len(whole)), len(whole))
    scores = scanner_scores(made, vis, nisp, batch)
    second = (scores.flags[others] & Flag.SCREENED) == 0
    assert second.sum() == round(0.25 * others.sum())
    assert np.isfinite(scores.logits[others][~second]).sum(axis=1).max() == 2
    card = (tmp_path / "turning" / "MODEL_CARD.md").read_text()
    assert "and then by the members that turn as high as the best 25.0%" in " ".join(card.split())
    assert f"less that of {before.manifest.name} {before.manifest.version} without a screen" in " ".join(card.split())
    assert "OU-J and OU-66 in all eight orientations" in " ".join(card.split())


def scanner_scores(bundle, vis, nisp, batch):
    return Scorer(bundle, "cpu", screen="bundle").score(vis, nisp, batch.sky, batch.sigma, batch.bad_fraction, batch.flags)


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"second_share": 0.1}, UsageError, "--second-share 0.1 must be below --share 0.1"),
        (
            {"second_share": 0.05},
            UsageError,
            "a second stage asks the members that turn, among which OU-66 of the first must be",
        ),
        ({"version": "same"}, UsageError, "is untrained same already"),
        ({"trained_on": "itself"}, UsageError, "was trained on it"),
        ({"few": True}, ContentError, "20 lenses and as many others are needed"),
    ],
)
def test_what_makes_no_screen_is_refused(rings, tmp_path, changed, error, says):
    content = content_of(bundles.load(plain_bundle()))
    trained_on = (LabelledSet(rings).fingerprint,) if "trained_on" in changed else ()
    bundle = write_bundle(tmp_path / "old", replace(content, name="untrained", version="same", trained_on=trained_on))
    data = write_rings(tmp_path / "few", 12) if "few" in changed else rings
    version, second = changed.get("version", "new"), changed.get("second_share")
    with pytest.raises(error, match=says):
        scanner.set_cascade(bundle, data, tmp_path / "new", version=version, second_share=second, provider="cpu")
    assert not (tmp_path / "new").exists()


def test_a_graph_of_somebody_else_gives_no_members(tmp_path):
    with pytest.raises(ContentError, match="was not exported by scanner"):
        member_graph(light_bundle(tmp_path / "light").model, ("OU-66",))
    with pytest.raises(ContentError, match="no ONNX file"):
        member_graph(b"\x00nothing", ("OU-66",))


def test_a_further_member_renews_the_screen(rings, tmp_path):
    content = content_of(light_bundle(tmp_path / "light"))
    old = Screen(members=("OU-66",), log_odds_above=123.0, share=0.25)
    bundle = write_bundle(tmp_path / "old", replace(content, screen=old, screen_model=b"graph"))
    member = NewMember(write_network(tmp_path / "ring.onnx"), "ring", ALL, 100)
    made = add_member(bundle, member, LabelledSet(rings), tmp_path / "new", provider="cpu").bundle
    chosen = np.array([name == "OU-66" for name in (*MEMBERS, "ring")])
    alone = made.calibration.distilled(chosen, made.calibration_set.logits)
    level = alone.log_odds(made.calibration_set.logits[~LabelledSet(rings).truth.is_lens])
    assert made.manifest.screen.log_odds_above == pytest.approx(np.quantile(level, 0.75))
    assert made.screen_model == b"graph"
