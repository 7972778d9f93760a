import json
import re
import shutil

import numpy as np
import pytest
from astropy.io import fits
from damage import resealed
from PIL import Image

from scanner.ensemble.session import open_session
from scanner.errors import UsageError
from scanner.evaluation.compare import Scoring, compare_bundles, named_bundles
from scanner.evaluation.page import write_evaluation
from scanner.evaluation.promotion import card_section
from scanner.evaluation.results import Evaluation
from scanner.evaluation.scores import dataset_logits
from scanner.evaluation.tables import tables
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A list with one lens of one band, 12 arcsec across."""
    folder = tmp_path_factory.mktemp("known")
    radius = np.hypot(*(np.mgrid[:120, :120] - 59.5))
    image = np.random.default_rng(0).normal(0, 1, (120, 120)) + 20 * np.exp(-(((radius - 14) / 3) ** 2))
    fits.writeto(folder / "ring.fits", image.astype(np.float32))
    (folder / "known.txt").write_text("id=ring VIS=ring.fits scale=0.1\n")
    return folder / "known.txt"


@pytest.fixture(scope="module")
def comparison(sets, real_set, light, other_bundle, cache, known):
    counted = []
    datasets = [LabelledSet(path) for path in sets.values()]
    found = compare_bundles(
        (light, other_bundle),
        datasets,
        known=known,
        real=[LabelledSet(real_set)],
        n_turned=4,
        scoring=Scoring(cache=cache, report=lambda name, n: counted.append(n)),
    )
    assert sum(counted) == 2 * (32 + 8 * 4 + 8 * 16)
    return found


def test_everything_is_measured(comparison):
    evaluation = comparison.evaluation
    assert evaluation.sky == "challenge"
    assert [found.name for found in evaluation.sets] == ["eval", "double-ring", "challenge"]
    assert {str(pairing) for pairing in evaluation.pairings} == {
        "eval",
        "eval against challenge",
        "double-ring against challenge",
    }
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation
    assert [table.name for table in tables(evaluation)] == [
        "real",
        "real-lenses",
        "low-fpr",
        "inspected",
        "differences",
        "table-5",
        "table-6",
        "members",
        "hard",
        "grid-loss",
        "calibration",
        "orientations",
        "known-lenses",
    ]
    for table in tables(evaluation):
        assert {len(row) for row in table.rows} == {len(table.header)}


def test_log_odds_are_those_of_the_networks(comparison, sets):
    scored = comparison.bundles[0]
    dataset = LabelledSet(sets["eval"])
    expected = dataset_logits(open_session(scored.bundle, "cpu"), dataset, np.arange(3))
    np.testing.assert_array_equal(scored.logits["eval"][:3], expected)
    np.testing.assert_array_equal(scored.scores["eval"][MEMBERS[2]][:3], expected[:, 2].astype(float))


def test_a_second_call_runs_no_network(comparison, sets, light, other_bundle, cache):
    """With a model that cannot be run in place of the first, all figures are the same."""
    datasets = [LabelledSet(path) for path in sets.values()]
    again = compare_bundles((light, other_bundle), datasets, n_turned=4, scoring=Scoring("no-such-provider", cache=cache))
    assert again.evaluation == comparison.evaluation.model_copy(update={"known_lenses": (), "real_sets": (), "real": ()})


def test_other_pixels_of_the_same_truth_are_scored_anew(sets, tmp_path):
    first, copy = LabelledSet(sets["challenge"]), shutil.copytree(sets["challenge"], tmp_path / "challenge")
    assert LabelledSet(copy).content_key == first.content_key
    chunk = max((path for path in (copy / "cutouts.zarr").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    chunk.write_bytes(chunk.read_bytes() + b"0")
    assert LabelledSet(copy).content_key != first.content_key
    assert LabelledSet(copy).fingerprint == first.fingerprint


def test_the_page_holds_everything_and_needs_nothing(comparison, tmp_path):
    written = write_evaluation(comparison, tmp_path / "new" / "folder")
    assert {path.name for path in written} >= {
        "evaluation.json",
        "evaluation.html",
        "low-fpr.png",
        "roc.png",
        "calibration.png",
    }
    page = (tmp_path / "new" / "folder" / "evaluation.html").read_text()
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    for table in tables(comparison.evaluation):
        assert f'id="{table.name}"' in page
    assert (
        page.index("Real images")
        < page.index("Lenses found where few non-lenses pass")
        < page.index("Inspecting the best")
        < page.index("Table 5")
    )
    assert 'alt="VIS image of ring"' in page
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert np.asarray(picture.convert("L")).std() > 5
    tree = json.loads((tmp_path / "new" / "folder" / "evaluation.json").read_text())
    assert tree["format_version"] == 6
    assert [found["bundle"] for found in tree["real"]] == [found["name"] for found in tree["bundles"]]


def test_the_card_leads_with_low_false_positive_rates(comparison):
    text = card_section(comparison.evaluation)
    headings = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert headings[0] == "Real images"
    assert "- `graded` (preset graded" in text
    assert "- `challenge` (preset challenge" in text
    assert "Its non-lenses stand for the sky." in text
    assert not re.search(r"(?<!\\)\*(?!\*)(?<!\*\*)\s", text)


def test_known_lenses_tell_their_padding(comparison):
    ring = comparison.evaluation.known_lenses[0]
    assert ring.bad_fraction[0] == pytest.approx(1 - 0.6**2)
    assert len(ring.above) == 8
    assert (ring.compared_with, ring.n_compared) == ("challenge", 8)


def test_a_lens_of_one_band_is_ranked_by_who_sees_that_band(comparison):
    ring, scored = comparison.evaluation.known_lenses[0], comparison.bundles[0]
    challenge = scored.logits["challenge"][:, MEMBERS.index("OU-VIS")]
    assert ring.judge == "OU-VIS"
    assert ring.above == tuple(np.mean(challenge > own) for own in ring.log_odds)
    chances = 1 / (1 + np.exp(-np.array(ring.log_odds)))
    assert chances.mean() == pytest.approx(ring.probabilities[MEMBERS.index("OU-VIS")])
    (table,) = [table for table in tables(comparison.evaluation) if table.name == "known-lenses"]
    assert table.rows[0][table.header.index("judged by")] == "OU-VIS"
    assert "judged by the member" in table.note


def test_what_makes_no_sense_is_refused(sets, other_bundle):
    eval_, rings = LabelledSet(sets["eval"]), LabelledSet(sets["double-ring"])
    with pytest.raises(UsageError, match="is the same set as"):
        compare_bundles((None,), [eval_, LabelledSet(sets["eval"])])
    with pytest.raises(UsageError, match="no set has non-lenses"):
        compare_bundles((None,), [rings])
    with pytest.raises(UsageError, match="no set has lenses"):
        compare_bundles((None,), [LabelledSet(sets["challenge"])])
    with pytest.raises(UsageError, match="is the same bundle as"):
        named_bundles((None, None))
    assert list(named_bundles((None, other_bundle)))[1] == "other"
    with pytest.raises(UsageError, match=r"--source-colours: .* give two or more, or none"):
        compare_bundles((None,), [eval_], n_recoloured=1)
    # The threshold of one false positive in a hundred needs a hundred: without it there would be neither a table nor a reason.
    with pytest.raises(UsageError, match=r"--source-colours: eval has \d+ non-lenses, too few .* of 100 or more"):
        compare_bundles((None,), [eval_], n_recoloured=6)


def test_a_bundle_that_was_trained_on_a_set_among_others_is_marked(sets, other_bundle, tmp_path):
    folder = shutil.copytree(other_bundle, tmp_path / "seen")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest |= {"name": "seen", "trained_on": ["0" * 64, LabelledSet(sets["eval"]).fingerprint]}
    resealed(folder / "bundle.json", **manifest)
    found = compare_bundles((folder,), [LabelledSet(sets["eval"]), LabelledSet(sets["challenge"])], n_turned=0)
    assert [one.trained_on for one in found.evaluation.sets] == [("seen",), ()]
