from types import SimpleNamespace

from scanner.evaluation import page
from scanner.evaluation.results import BundleSummary, ClassRate, ClassRates, Evaluation, Pairing, SetSummary
from scanner.interval import Interval

BUNDLE = BundleSummary(
    name="made",
    version="1",
    fingerprint="0",
    model_sha256="0",
    preprocessing="asinh_mad",
    decides_on="grid",
    combined="calibrated",
)


def made_set(name, n_lenses, n_others):
    return SetSummary(
        name=name, preset=name, sha256="0", n_objects=n_lenses + n_others, n_lenses=n_lenses, n_visible=n_lenses, classes={}
    )


def rates(name, fpr):
    passing = ClassRate(class_name="spiral", n=90, passing=Interval(value=fpr, low=0.0, high=2 * fpr), auroc=None)
    pairing = Pairing(lenses="eval", others=name)
    return ClassRates(bundle="made", pairing=pairing, threshold_set=name, fpr=fpr, classes=(passing,))


def drawn(sets, found):
    evaluation = Evaluation(scanner_version="0", sky_prevalence=1e-4, sky=None, sets=sets, bundles=(BUNDLE,), class_rates=found)
    return page.classes(SimpleNamespace(evaluation=evaluation))


def test_classes_are_drawn_at_a_rate_that_the_sets_of_non_lenses_have():
    """The mixed set knows a lower rate than the one of look-alikes, which is all that is drawn."""
    sets = (made_set("eval", 100, 12_000), made_set("hard", 0, 500))
    plot = drawn(sets, (rates("eval", 0.001), rates("eval", 0.01), rates("hard", 0.01)))
    assert "at the threshold of a false-positive rate of 0.01" in plot.caption


def test_without_a_rate_for_the_sets_of_non_lenses_no_class_is_drawn():
    sets = (made_set("eval", 100, 200), made_set("hard", 0, 90))
    assert drawn(sets, (rates("eval", 0.01),)) is None
