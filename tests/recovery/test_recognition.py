"""Completeness by grade: people whose law is known grade painted lenses, and what follows for others is held to the law."""

import numpy as np
import pytest
from painted import drawn_scores, painted_table, population
from scipy.special import expit, logit

import scanner
from scanner.errors import ContentError, UsageError
from scanner.grading.grade import Place
from scanner.grading.store import GradeStore
from scanner.recovery.completeness import AXES, Cut, PaintedLenses, SmoothModel, completed, given
from scanner.recovery.purity import STATED, GradedLenses, Recognition, graded_bins, graded_shares, recognised

CUTS = (Cut(kind="top", value=1000), Cut(kind="candidates"))


def chance(of, grade):
    """The law of people's grades: the share of lenses that get this one or a better one."""
    odds = logit(np.clip(np.nan_to_num(of["probability"]), 1e-6, 1 - 1e-6))
    clear = 0.4 * (odds - 1) + 2.5 * (np.log10(of["arc_snr"]) - 1.9) + 0.8 * (of["theta_e_arcsec"] - 1.1)
    return expit({"A": -2.0, "B": -0.2, "C": 1.5}[grade] + clear)


def graded_lenses(seed, n):
    """Lenses of the population that were scored, and graded by the law."""
    rng = np.random.default_rng(seed)
    of = population(rng, 5 * n)
    of["probability"] = drawn_scores(rng, of)
    rows = np.flatnonzero(np.isfinite(of["probability"]))[:n]
    of = {name: column[rows] for name, column in of.items()}
    luck = rng.random(n)
    grade = sum((luck >= chance(of, name)).astype(np.int64) for name in STATED)
    return GradedLenses(of["probability"], of["arc_snr"], of["theta_e_arcsec"], grade)


@pytest.fixture(scope="module")
def truth(drawn):
    """So many lenses that their shares are the law's."""
    return painted_table(77, 50_000, drawn)


def expected(truth, lenses, cut, grade, axis=None, low=-np.inf, high=np.inf):
    """Share of the law's lenses, in a range of an axis, that a cut finds and that people would give a grade."""
    of = {name: truth[name].to_numpy() for name in ("probability", "arc_snr", "theta_e_arcsec")}
    column = 0 if axis is None else [one.name for one in AXES].index(axis)
    within = (lenses.values[:, column] >= low) & (lenses.values[:, column] < high)
    return (lenses.found(cut) * chance(of, grade))[within].mean()


@pytest.mark.parametrize("n", [60, 300])
def test_the_intervals_hold_the_law(drawn, truth, n):
    lenses, others = PaintedLenses.of(painted_table(2, 2000, drawn)), PaintedLenses.of(truth)
    inside, widths = [], []
    for seed in range(3):
        recognition = Recognition.fit(graded_lenses(seed, n))
        made = graded_bins(lenses, CUTS, recognition)
        assert len(made) == len({(one.cut, one.grade, one.axis, one.low) for one in made}) > 200
        for one in made:
            share = expected(truth, others, one.cut, one.grade, one.axis, one.low, one.high)
            inside.append(one.completeness_low <= share <= one.completeness_high)
            widths.append(one.completeness_high - one.completeness_low)
    assert np.mean(inside) >= 0.9
    # They are no excuse: three hundred known answers tell more than sixty.
    assert np.mean(widths) < (0.23 if n == 60 else 0.17)


def test_a_better_grade_is_given_to_fewer(drawn):
    lenses = PaintedLenses.of(painted_table(2, 500, drawn))
    shares = graded_shares(lenses, CUTS, Recognition.fit(graded_lenses(1, 40)))
    assert [(one.cut, one.grade) for one in shares] == [(cut, grade) for cut in CUTS for grade in STATED]
    for cut in CUTS:
        a, b, c = (one.completeness.value for one in shares if one.cut == cut)
        assert 0 < a < b < c < lenses.found(cut)[lenses.is_visible].mean()


def test_few_known_answers_say_nothing():
    with pytest.raises(ContentError, match="19 graded painted lenses are too few"):
        Recognition.fit(graded_lenses(1, 19))


def test_all_of_one_mind_are_believed_within_reason():
    found = graded_lenses(1, 30)
    unanimous = Recognition.fit(GradedLenses(found.probability, found.arc_snr, found.theta_e, np.zeros(30, dtype=np.int64)))
    share, slopes = unanimous.shares("A", found.probability, found.arc_snr, found.theta_e)
    assert share.mean() > 0.97
    assert np.isfinite(unanimous.variance(slopes)).all()


def test_completeness_of_a_grade_at_a_point_is_the_laws(drawn, truth):
    lenses, others = PaintedLenses.of(painted_table(2, 2000, drawn)), PaintedLenses.of(truth)
    model, recognition, cut = SmoothModel.fit(lenses, CUTS), Recognition.fit(graded_lenses(4, 400)), CUTS[1]
    radii = np.array([0.7, 1.0, 1.5])
    found = completed(model, cut, given({"theta_e": radii}), lenses)
    of_grades = [recognised(recognition, grade, cut, given({"theta_e": radii}), lenses, found) for grade in STATED]
    for strict, loose in zip(of_grades, [*of_grades[1:], found], strict=True):
        assert (strict.value < loose.value).all()
        assert ((strict.low < strict.value) & (strict.value < strict.high)).all()
    shares = [expected(truth, others, cut, "B", "theta_e", radius - 0.03, radius + 0.03) for radius in radii]
    assert of_grades[1].value == pytest.approx(shares, abs=0.08)
    assert ((of_grades[1].low < shares) & (shares < of_grades[1].high)).all()
    none = given({"theta_e": []})
    assert recognised(recognition, "B", cut, none, lenses, completed(model, cut, none, lenses)).value.shape == (0,)


def test_what_is_not_known_of_grades_is_said_in_a_sentence(finished_run, recovery, tmp_path):
    with pytest.raises(ContentError, match=r"by grade is not known \(no painted lens was graded\); have painted lenses graded"):
        scanner.completeness(recovery=recovery, theta_e=1.0, grade="B")
    assert "Completeness by grade is not known: no painted lens was graded." in (recovery / "card.md").read_text()
    with pytest.raises(UsageError, match="A grade of X"):
        scanner.completeness(recovery=recovery, theta_e=1.0, grade="X")
    known, salt = tmp_path / "bare.csv", [finished_run]
    known.write_text("ra,dec,is_lens\n1,2,1\n")
    GradeStore(tmp_path / "grades.sqlite").give(Place("run/1/1", "", 1.0, 2.0), "Ann", "A")
    with pytest.raises(UsageError, match="give --grades, --known and --salt together"):
        scanner.selection_function(finished_run, recovery, known=known, salt=salt)
    with pytest.raises(ContentError, match=r"bare.csv: has no column arc_snr; give the truth.parquet"):
        scanner.selection_function(finished_run, recovery, grades=tmp_path / "grades.sqlite", known=known, salt=salt)
