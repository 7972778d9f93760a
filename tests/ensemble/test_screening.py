"""A screen: few members choose what all members score, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from scanner.ensemble.bundle import Metric, Screen, SecondStage, lost_at
from scanner.ensemble.preprocessing import SecondLook
from scanner.ensemble.session import BATCH, Scorer, _Part, open_session
from scanner.errors import ContentError
from scanner.records import MEMBERS, Flag, Scores
from scanner.training.cascade import member_graph

OU_66 = MEMBERS.index("OU-66")
N = 6


def screened(write_bundle, models, out, members=("OU-66",), limit=0.0, **changed):
    screen = Screen(members=members, log_odds_above=limit, share=0.5)
    return write_bundle(out, screen=screen, screen_model=member_graph(models["asinh_mad"], members), **changed)


@pytest.fixture(scope="module")
def half(write_bundle, models, cutouts, tmp_path_factory):
    """A bundle whose screen three of the six cutouts pass, and which of them do."""
    place = tmp_path_factory.mktemp("bundles")
    unset = screened(write_bundle, models, place / "unset")
    screening = unset.screening("bundle")
    level = screening.calibration.log_odds(open_session(unset, "cpu", screens=True).screen_logits(*cutouts[:4]))
    limit = float(np.median(level))
    return screened(write_bundle, models, place / "half", limit=limit), level >= limit


def equal(found, expected, rows=slice(None)):
    for name in ("logits", "tsne", "grid_value", "cell_count", "calibrated", "decision", "flags"):
        np.testing.assert_array_equal(getattr(found, name)[rows], getattr(expected, name)[rows], err_msg=name)


def test_what_passes_is_scored_to_the_bit_as_without_a_screen(half, cutouts):
    bundle, passes = half
    found, whole = (Scorer(bundle, "cpu", screen=choice).score(*cutouts) for choice in ("bundle", "none"))
    assert passes.sum() == N // 2
    equal(found, whole, passes)
    assert not (found.flags[passes] & Flag.SCREENED).any()


def test_what_does_not_pass_has_the_scores_of_the_screen_alone(half, cutouts):
    bundle, passes = half
    found, whole = (Scorer(bundle, "cpu", screen=choice).score(*cutouts) for choice in ("bundle", "none"))
    out = ~passes
    np.testing.assert_array_equal(np.isfinite(found.logits[out]), [[name == "OU-66" for name in MEMBERS]] * 3)
    np.testing.assert_array_equal(found.logits[out, OU_66], whole.logits[out, OU_66])
    alone = bundle.calibration.distilled(np.array([name == "OU-66" for name in MEMBERS]), bundle.grid.logits)
    expected = alone.apply(np.nan_to_num(found.logits[out]))
    np.testing.assert_array_equal(found.calibrated[out], expected)
    assert np.isnan(found.grid_value[out]).all()
    assert np.isnan(found.tsne[out]).all()
    np.testing.assert_array_equal(found.flags[out], np.uint32(Flag.SCREENED))
    assert not (found.decision[out] & (expected < bundle.threshold())).any()


@pytest.fixture(scope="module")
def staged(half, write_bundle, models, cutouts, tmp_path_factory):
    """A bundle in whose second stage OU-VIS and OU-66 let the best of the three pass, and log-odds of these two of all six."""
    bundle, turning = half[0], ("OU-VIS", "OU-66")
    graph = member_graph(models["asinh_mad"], turning)
    rule = SecondLook(log_odds_above=1e9, share=0.1, members=turning)
    chosen = np.isin(MEMBERS, turning)
    alone = bundle.calibration.distilled(chosen, bundle.grid.logits)
    level = alone.log_odds(np.where(chosen, Scorer(bundle, "cpu").score(*cutouts).logits, 0.0))
    stage = SecondStage(log_odds_above=float(level[half[1]].max()), share=0.2)
    screen = bundle.manifest.screen.model_copy(update={"second_stage": stage})
    parts = {"screen": screen, "screen_model": bundle.screen_model, "second_look": rule, "augmentation_model": graph}
    return write_bundle(tmp_path_factory.mktemp("bundles") / "staged", **parts), level, alone


def test_of_what_passes_the_second_stage_chooses_what_all_members_score(half, staged, cutouts):
    bundle, level, alone = staged
    found, whole = (Scorer(bundle, "cpu", screen=choice).score(*cutouts) for choice in ("bundle", "none"))
    first = Scorer(half[0], "cpu", screen="bundle").score(*cutouts)
    both = half[1] & (level >= bundle.manifest.screen.second_stage.log_odds_above)
    between = half[1] & ~both
    assert (both.sum(), between.sum()) == (1, 2)
    equal(found, whole, both)
    equal(found, first, ~half[1])
    chosen = np.isin(MEMBERS, ("OU-VIS", "OU-66"))
    np.testing.assert_array_equal(np.isfinite(found.logits[between]), [chosen] * 2)
    np.testing.assert_array_equal(found.logits[np.ix_(between, chosen)], whole.logits[np.ix_(between, chosen)])
    np.testing.assert_array_equal(found.calibrated[between], alone.apply(np.nan_to_num(found.logits[between])))
    np.testing.assert_array_equal(found.flags[between], np.uint32(Flag.SCREENED))


def test_a_second_stage_without_members_that_turn_is_refused(half, staged):
    manifest = staged[0].manifest
    for members in (None, ("OU-VIS",)):
        rule = manifest.second_look.model_copy(update={"members": members})
        with pytest.raises(ValidationError, match="the screen has a second stage, so second_look must name its members"):
            type(manifest).model_validate(manifest.model_copy(update={"second_look": rule}).model_dump())


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_bit_depends_on_the_batch(staged, cutouts, parallel):
    scorer = Scorer(staged[0], "cpu", parallel=parallel, screen="bundle")
    together = scorer.score(*cutouts)
    for row in range(N):
        alone = scorer.score(*(values[row : row + 1] for values in cutouts))
        equal(alone, Scores(**{name: values[row : row + 1] for name, values in vars(together).items()}))


def test_what_passes_is_gathered_into_full_calls(half, cutouts, monkeypatch):
    """As on a GPU: 4 objects a call; of 48, of which every second one passes, all members score 24 in 6 calls."""
    many = [np.concatenate([values] * 8) for values in cutouts]
    alone = Scorer(half[0], "cpu", screen="bundle").score(*many)
    monkeypatch.setitem(BATCH, "cpu", 4)
    sizes = {"screen": [], "all": []}
    plain = _Part.run

    def counted(part, feed):
        sizes["screen" if len(np.arange(7)[part.columns]) == 1 else "all"].append(len(feed["vis"]))
        return plain(part, feed)

    monkeypatch.setattr(_Part, "run", counted)
    gathered = Scorer(half[0], "cpu", screen="bundle").score(*many)
    assert sizes == {"screen": [4] * 12, "all": [4] * 6}
    np.testing.assert_allclose(gathered.logits, alone.logits, atol=1e-4)
    np.testing.assert_array_equal(gathered.flags, alone.flags)
    np.testing.assert_array_equal(gathered.decision, alone.decision)


@pytest.mark.parametrize("members", [("OU-66",), ("OU-J", "OU-Y", "OU-H"), ("OU-VIS",)])
def test_a_screen_computes_its_members_to_the_bit(write_bundle, models, cutouts, tmp_path, members):
    session = open_session(screened(write_bundle, models, tmp_path / "some", members), "cpu", screens=True)
    found, whole = session.screen_logits(*cutouts[:4]), session.plain_logits(*cutouts[:4])
    chosen = np.array([name in members for name in MEMBERS])
    np.testing.assert_array_equal(found[:, chosen], whole[:, chosen])
    assert not found[:, ~chosen].any()


def test_what_a_member_of_the_screen_does_not_see_passes(half, write_bundle, models, cutouts, tmp_path):
    bad = np.zeros((N, 4), dtype=np.float32)
    bad[:, 3] = 1.0
    nisp = screened(write_bundle, models, tmp_path / "nisp", ("OU-J", "OU-Y", "OU-H"), limit=1e6)
    for bundle in (half[0], nisp):
        found, whole = (Scorer(bundle, "cpu", screen=one).score(*cutouts[:4], bad, cutouts[5]) for one in ("bundle", "none"))
        equal(found, whole)
        assert (found.flags == Flag.BANDS_MISSING).all()


def test_a_screen_of_members_that_see_it_screens_what_lacks_a_band(write_bundle, models, cutouts, tmp_path):
    bad = np.zeros((N, 4), dtype=np.float32)
    bad[:3, 3] = 1.0
    bundle = screened(write_bundle, models, tmp_path / "vis", ("OU-VIS",), limit=1e6)
    found = Scorer(bundle, "cpu", screen="bundle").score(*cutouts[:4], bad, cutouts[5])
    assert found.flags.tolist() == [Flag.BANDS_MISSING | Flag.SCREENED] * 3 + [Flag.SCREENED] * 3
    np.testing.assert_array_equal(np.isfinite(found.logits), [[name == "OU-VIS" for name in MEMBERS]] * N)


def test_what_overflows_is_not_scored_and_not_called_screened(write_bundle, models, cutouts, tmp_path):
    vis = cutouts[0].copy()
    vis[0, 0, 0], vis[0, 1, 1] = 3e38, -3e38
    screen = Screen(members=("OU-66",), log_odds_above=1e6, share=0.5)
    graph = member_graph(models["minmax"], ("OU-66",))
    bundle = write_bundle(tmp_path / "minmax", preprocessing="minmax", screen=screen, screen_model=graph)
    found = Scorer(bundle, "cpu", screen="bundle").score(vis, *cutouts[1:])
    assert found.flags.tolist() == [Flag.TOO_MANY_BAD_PIXELS, *[Flag.SCREENED] * 5]
    assert np.isnan(found.logits[0]).all()


@pytest.mark.parametrize(("lost", "used"), [(None, False), (0.0, True), (0.005, True), (0.0051, False)])
def test_a_screen_is_used_by_default_if_it_was_measured_to_lose_little(half, lost, used):
    bundle, _ = half
    figures = () if lost is None else (
        Metric(set="all", member="screen", metric=lost_at(1e-3), value=lost, low=0.0, high=1.0, n_pos=500, n_neg=9000),
        Metric(set="all", member="screen", metric=lost_at(1e-2), value=0.3, low=0.0, high=1.0, n_pos=500, n_neg=9000),
    )  # fmt: skip
    screen = bundle.manifest.screen.model_copy(update={"lost": figures})
    changed = replace(bundle, manifest=bundle.manifest.model_copy(update={"screen": screen}))
    assert (changed.screening("auto") is not None) == used
    assert changed.screening("bundle") is not None
    assert changed.screening("none") is None


def test_a_bundle_without_a_screen_scores_everything(bundle, cutouts):
    scorer = Scorer(bundle, "cpu", screen="bundle")
    assert scorer.screening is None
    assert np.isfinite(scorer.score(*cutouts).logits).all()


@pytest.mark.parametrize(
    ("members", "says"), [(("OU-66", "OU-J"), "in the order"), (("OU-66", "OU-66"), "in the order"), (MEMBERS, "at most 6")]
)
def test_members_of_a_screen_that_make_no_sense_are_refused(write_bundle, models, tmp_path, members, says):
    with pytest.raises((ContentError, ValidationError), match=says):
        screened(write_bundle, models, tmp_path / "wrong", members)


def test_a_screen_needs_its_graph_and_a_calibration(write_bundle, models, tmp_path):
    with pytest.raises((ContentError, ValidationError), match=r"screen\.onnx is not listed"):
        write_bundle(tmp_path / "graphless", screen=Screen(members=("OU-66",), log_odds_above=0.0, share=0.1))
    with pytest.raises((ContentError, ValidationError), match="screen goes by calibrated log-odds"):
        screened(write_bundle, models, tmp_path / "plain", labelled=False)


def test_the_graph_of_other_members_is_refused(write_bundle, models, tmp_path):
    bundle = write_bundle(
        tmp_path / "other",
        screen=Screen(members=("OU-66",), log_odds_above=0.0, share=0.1),
        screen_model=member_graph(models["asinh_mad"], ("OU-J", "OU-Y")),
    )
    with pytest.raises(ContentError, match=r"screen\.onnx: its inputs .* are not those of OU-66"):
        Scorer(bundle, "cpu", screen="bundle")
