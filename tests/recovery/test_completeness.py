"""Completeness of painted lenses whose law is known."""

from dataclasses import replace

import numpy as np
import pytest
from painted import completeness_above, drawn_sky, painted_table, population

from scanner.errors import ContentError, UsageError
from scanner.recovery.completeness import (
    AXES,
    Cut,
    PaintedLenses,
    SmoothModel,
    bins,
    completed,
    edges_of,
    given,
    ladder,
)

THRESHOLDS = tuple(Cut(kind="threshold", value=value) for value in (0.05, 0.3, 0.5, 0.8))
CANDIDATES, SCORED = Cut(kind="candidates"), Cut(kind="scored")
CUTS = (Cut(kind="top", value=50), Cut(kind="top", value=1000), *THRESHOLDS, CANDIDATES, SCORED)


@pytest.fixture(scope="module")
def sky():
    return drawn_sky(1)


@pytest.fixture(scope="module")
def lenses(sky):
    return PaintedLenses.of(painted_table(2, 5000, sky))


@pytest.fixture(scope="module")
def model(lenses):
    return SmoothModel.fit(lenses, CUTS)


def _values(of):
    return np.stack([of["arc_snr" if axis.name == "arc_snr" else axis.column] for axis in AXES], axis=1)


def test_what_one_recovery_predicts_another_measures(sky, model):
    others = PaintedLenses.of(painted_table(3, 3000, sky))
    measured = bins(others, CUTS, model)
    assert len(measured) > 400
    within = [one.completeness_low <= one.predicted <= one.completeness_high for one in measured]
    assert np.mean(within) >= 0.9
    # Of each cut by itself, too.
    for cut in CUTS:
        assert np.mean([ok for one, ok in zip(measured, within, strict=True) if one.cut == cut]) >= 0.85


def test_the_interval_of_a_population_holds_the_law(model):
    # Means over 50 lenses of like Einstein radius each: the law that they were painted by is known.
    of = population(np.random.default_rng(5), 5000)
    order = np.argsort(of["theta_e_arcsec"])
    truth = np.mean(
        [
            share * completeness_above(of | {"is_compound": np.full(5000, flag)}, 0.5)
            for share, flag in ((2 * 0.85, False), (2 * 0.15, True))
        ],
        axis=0,
    )
    found = model.mean(Cut(kind="threshold", value=0.5), _values(of)[order], np.full(100, 50))
    truth = truth[order].reshape(100, 50).mean(axis=1)
    assert np.mean((found.low <= truth) & (truth <= found.high)) >= 0.85
    assert np.abs(found.value - truth).max() < 0.08
    assert np.median(found.high - found.low) < 0.08


def test_a_looser_cut_finds_no_fewer(model, lenses):
    rows = lenses.values[:200]
    for kind, values in (("top", (10, 50, 200, 1000, 5000)), ("threshold", (0.95, 0.8, 0.4, 0.1, 0.01))):
        shares = [model.at(Cut(kind=kind, value=value), rows).value for value in values]
        assert (np.diff(shares, axis=0) >= 0).all()
        assert (shares[-1] <= model.at(SCORED, rows).value).all()


def test_between_two_cuts_completeness_lies_between_theirs(model, lenses):
    low, middle, high = (model.at(Cut(kind="top", value=value), lenses.values[:100]).value for value in (50, 224, 1000))
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert middle.mean() == pytest.approx(lenses.found(Cut(kind="top", value=224))[:100].mean(), abs=0.08)


def test_the_file_gives_the_same_completeness_without_a_fit(model, lenses):
    again = SmoothModel.from_bytes(model.to_bytes(), "model.json", "fit it again")
    assert again == model
    for cut in CUTS:
        first, second = model.at(cut, lenses.values[:50]), again.at(cut, lenses.values[:50])
        assert first.value.tobytes() == second.value.tobytes()
        assert first.low.tobytes() == second.low.tobytes()


def test_the_same_lenses_give_the_same_bytes(sky):
    few = PaintedLenses.of(painted_table(7, 400, sky))
    assert SmoothModel.fit(few, CUTS[:3]).to_bytes() == SmoothModel.fit(few, CUTS[:3]).to_bytes()


def test_held_out_lenses_are_predicted_better_than_by_one_share(model):
    held_out = model.held_out
    assert held_out.log_loss < 0.6 * held_out.log_loss_of_share
    assert held_out.slope == pytest.approx(1.0, abs=0.1)
    assert held_out.offset == pytest.approx(0.0, abs=0.1)


def test_lenses_that_vary_together_widen_the_interval(lenses):
    # Each lens four times: as much is known as of a quarter of the lenses, whatever their number.
    few = np.arange(700)
    once = _rows(lenses, few)
    fourfold = _rows(lenses, np.repeat(few, 4))
    fourfold = replace(fourfold, group=np.repeat(few, 4))
    alone = SmoothModel.fit(replace(once, group=few), (CANDIDATES,))
    together = SmoothModel.fit(fourfold, (CANDIDATES,))
    assert alone.scatter < 1.3
    assert together.scatter == pytest.approx(4.0, rel=0.3)


def _rows(lenses, rows):
    return PaintedLenses(**{name: getattr(lenses, name)[rows] for name in PaintedLenses.__dataclass_fields__})


def test_what_is_not_given_follows_the_painted_population(model, lenses):
    # Larger rings have brighter deflectors here: the others' mean would be too low for large rings.
    radii = np.array([0.5, 0.9, 1.5, 2.2])
    found = completed(model, CANDIDATES, given({"theta_e": radii}), lenses)
    is_candidate, painted = lenses.found(CANDIDATES), lenses.values[:, 0]
    for radius, value in zip(radii, found.value, strict=True):
        near = np.argsort(np.abs(painted - radius))[:200]
        assert value == pytest.approx(is_candidate[near].mean(), abs=0.1)
    assert (found.low < found.value).all()
    assert (found.value < found.high).all()


def test_lenses_beyond_what_was_painted_are_marked(model):
    found = model.at(CANDIDATES, given({"theta_e": [1.0, 30.0], "arc_snr": 100.0}))
    assert found.is_outside.tolist() == [False, True]
    assert np.isfinite(found.value).all()


def test_many_lenses_are_asked_in_parts(model, lenses):
    radii = np.linspace(0.5, 2.0, 1100)
    found = completed(model, CANDIDATES, given({"theta_e": radii}), lenses)
    again = [completed(model, CANDIDATES, given({"theta_e": radii[k]}), lenses) for k in (0, 499, 500, 1099)]
    assert found.value[[0, 499, 500, 1099]] == pytest.approx([one.value[0] for one in again], rel=1e-12)


def test_no_lenses_have_no_completeness(model, lenses):
    for parameters in ({"theta_e": []}, {"theta_e": [], "arc_snr": 50.0}):
        found = completed(model, CANDIDATES, given(parameters), lenses)
        assert found.value.shape == found.low.shape == found.is_outside.shape == (0,)


def test_an_axis_that_does_not_vary_is_left_out(lenses):
    values = lenses.values.copy()
    values[:, 5] = 0.006
    model = SmoothModel.fit(_rows(replace(lenses, values=values), np.arange(500)), (CANDIDATES,))
    assert "sky_sigma" not in [axis.name for axis in model.axes]
    assert "psf_fwhm" in [axis.name for axis in model.axes]


def test_bins_count_each_lens_once(lenses):
    made = bins(lenses, (CANDIDATES,))
    for axis in ("theta_e", "sky_sigma", "psf_fwhm"):
        of_axis = [one for one in made if one.axis == axis and one.second is None]
        assert sum(one.n_painted for one in of_axis) == len(lenses)
        assert sum(one.n_found for one in of_axis) == lenses.is_candidate.sum()
    both = [one for one in made if one.second == "arc_snr"]
    assert sum(one.n_painted for one in both) == len(lenses)


def test_two_depths_are_two_bins(lenses):
    axis = next(axis for axis in AXES if axis.name == "sky_sigma")
    assert edges_of(axis, lenses) == pytest.approx((0.006, 0.009, 0.012))


def test_a_painted_object_that_is_no_lens_does_not_count(sky):
    table = painted_table(8, 300, sky)
    column = table.column_names.index("is_lens")
    flags = np.arange(300) < 120
    assert len(PaintedLenses.of(table.set_column(column, "is_lens", [flags]))) == 120
    with pytest.raises(ContentError, match="none of the painted objects is a lens"):
        PaintedLenses.of(table.set_column(column, "is_lens", [np.zeros(300, dtype=bool)]))


def test_too_few_lenses_are_refused(lenses):
    with pytest.raises(ContentError, match="99 painted lenses are too few"):
        SmoothModel.fit(_rows(lenses, np.arange(99)), (CANDIDATES,))


def test_nonsense_is_refused(model, lenses):
    with pytest.raises(UsageError, match="at least one of theta_e"):
        given({})
    with pytest.raises(UsageError, match=r"do not go together: theta_e \(2,\), arc_snr \(3,\)"):
        given({"theta_e": np.ones(2), "arc_snr": np.ones(3)})
    with pytest.raises(UsageError, match="arc_snr: 1 of its 2 values is not a finite number"):
        given({"theta_e": 1.0, "arc_snr": [50.0, np.nan]})
    few = SmoothModel.fit(_rows(lenses, np.arange(200)), (CANDIDATES,))
    with pytest.raises(UsageError, match="was not fitted by top"):
        few.at(Cut(kind="top", value=10), lenses.values[:1])


def test_the_ladder_reaches_all_objects(lenses):
    cuts = ladder(40_000, lenses)
    assert [cut.value for cut in cuts if cut.kind == "top"] == [
        10,
        20,
        50,
        100,
        200,
        500,
        1000,
        2000,
        5000,
        10_000,
        20_000,
        40_000,
    ]
    assert {cut.kind for cut in cuts} == {"top", "threshold", "candidates", "scored"}
