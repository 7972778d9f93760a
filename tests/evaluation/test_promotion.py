import json

import numpy as np
import pytest

from scanner.ensemble.bundles import DefaultBundle
from scanner.errors import UsageError
from scanner.evaluation.decisions import measure
from scanner.evaluation.promotion import installed_name, judge, make_default, reasons
from scanner.evaluation.results import Evaluation, ImageScore, Pairing, SetSummary

PAIRINGS = (Pairing(lenses="eval", others="eval"), Pairing(lenses="eval", others="challenge"))


def _evaluation(truths, bundles, **more):
    figures, differences = measure(bundles, truths, PAIRINGS)
    summaries = [
        SetSummary(
            name=name,
            preset=name,
            sha256="0",
            n_objects=len(t),
            n_lenses=int(t.is_lens.sum()),
            n_visible=int(t.visible.sum()),
            classes={},
        )
        for name, t in truths.items()
    ]
    return Evaluation(
        scanner_version="0",
        sky_prevalence=1e-4,
        sky="challenge",
        sets=tuple(summaries),
        bundles=tuple(scored.summary for scored in bundles),
        figures=figures,
        differences=differences,
        **more,
    )


def _image(bundle, above):
    return ImageScore(
        bundle=bundle, name="ring", bad_fraction=(0, 0, 0, 0), probabilities=(0.5,) * 7, scatter=(0,) * 7, grid_value=None,
        calibrated=0.5, judge=None, log_odds=(0,) * 8, above=tuple(above), compared_with="challenge", n_compared=1000,
    )  # fmt: skip


def test_the_better_bundle_passes_and_the_worse_one_does_not(scored_pair):
    truths, (good, bad) = scored_pair
    forward = judge(_evaluation(truths, (good, bad)))
    assert forward.passed
    assert (forward.new, forward.old) == ("good", "bad")
    # AUROC twice, recall at 1e-2 against the sky; the other rates rest on fewer than ten non-lenses.
    assert sorted(check.figure for check in forward.checks) == [
        "AUROC",
        "AUROC",
        "AUROC of the grid",
        "AUROC of the grid",
        "recall at FPR 0.01",
    ]
    backward = judge(_evaluation(truths, (bad, good)))
    assert not backward.passed
    rows = reasons(backward).rows
    assert rows[0][0] == "WORSE"
    assert rows[0][-1].startswith("-")


def test_a_bundle_is_no_worse_than_itself(scored_pair):
    truths, (good, _) = scored_pair
    twin = type(good)(good.bundle, good.summary.model_copy(update={"name": "twin"}), good.logits, good.scores)
    found = judge(_evaluation(truths, (twin, good)))
    assert found.passed
    assert all(check.difference.value == 0 for check in found.checks)


def test_intervals_are_wider_than_those_of_one_figure(scored_pair):
    truths, (good, bad) = scored_pair
    evaluation = _evaluation(truths, (good, bad))
    check = next(c for c in judge(evaluation).checks if c.figure == "AUROC")
    plain = next(d for d in evaluation.differences if d.difference.value == check.difference.value and d.fpr is None)
    # Five figures: 99% instead of 95%, 2.58 instead of 1.96 standard errors.
    assert check.difference.high - check.difference.value == pytest.approx(2.576 * plain.error, rel=1e-3)


def test_a_grid_that_tells_nothing_is_a_reason(scored_pair):
    truths, (good, _) = scored_pair
    noise = np.random.default_rng(0)
    ruined = {name: {**scores, "grid": noise.random(len(scores["grid"]))} for name, scores in good.scores.items()}
    new = type(good)(good.bundle, good.summary.model_copy(update={"name": "new"}), good.logits, ruined)
    found = judge(_evaluation(truths, (new, good)))
    assert {check.figure for check in found.checks if not check.passed} == {"AUROC of the grid"}


@pytest.mark.parametrize(("new", "passed"), [(0.5, False), (0.011, True), (0.0, True)])
def test_a_real_image_that_sinks_in_the_list_is_a_reason(scored_pair, new, passed):
    truths, (good, bad) = scored_pair
    scatter = 1 + 0.1 * np.arange(8)
    images = (_image("good", new * scatter), _image("bad", 0.01 * scatter[::-1]))
    found = judge(_evaluation(truths, (good, bad), images=images))
    check = next(c for c in found.checks if c.what == "image ring")
    assert check.passed == passed == found.passed
    if new == 0.0:  # as rare as half of a thousand can tell
        assert check.new == pytest.approx(np.log10(0.0005))


def test_a_set_that_was_trained_on_is_no_judge(scored_pair):
    truths, bundles = scored_pair
    evaluation = _evaluation(truths, bundles)
    sets = (evaluation.sets[0].model_copy(update={"trained_on": ("good",)}), *evaluation.sets[1:])
    with pytest.raises(UsageError, match="eval: good was trained on it"):
        judge(evaluation.model_copy(update={"sets": sets}))


def test_the_default_is_written(tmp_path):
    (tmp_path / "new").mkdir()
    name = installed_name(tmp_path / "new", tmp_path)
    assert json.loads(make_default(name, tmp_path).read_text()) == DefaultBundle(bundle="new").model_dump()
    with pytest.raises(UsageError, match=r"copy it there: mkdir -p .* && cp -r "):
        installed_name(tmp_path, tmp_path)
