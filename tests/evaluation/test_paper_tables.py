"""Tables 5 to 7 as the paper prints them: what it prints, and what it counts."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from scanner.ensemble.session import open_session
from scanner.errors import UsageError
from scanner.evaluation.compare import compare_bundles
from scanner.evaluation.images import known_lens_cutouts, read_known_lenses
from scanner.evaluation.page import MEASURES, ORDER, TABLE_5, TABLE_6, TABLE_7, lens_of_table_7, outputs_of, paper_tables
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS


def test_what_is_printed_agrees_with_itself():
    for f_beta, precision, recall, auroc, accuracy in TABLE_5.values():
        # Equation 3 with β = 0.03. By equation 6 precision, recall and accuracy tell the share of lenses: 85% in every row,
        # where section 2.1 has 71%.
        weight = 0.03**2
        assert f_beta == pytest.approx((1 + weight) * precision * recall / (weight * precision + recall), abs=2e-4)
        assert (1 - accuracy) / (1 - recall + recall * (1 / precision - 1)) == pytest.approx(0.85, abs=0.003)
        assert 0.5 < auroc < 0.7
    assert TABLE_6["Test data"][ORDER.index("OU-66")] == TABLE_5["OU-66"][MEASURES.index("recall")]
    assert TABLE_6["Test data"][ORDER.index("OU-200")] == TABLE_5["OU-200"][MEASURES.index("recall")]
    # The abstract: "recall scores as high as 76 per cent for compound arcs and 52 per cent for double rings".
    assert TABLE_6["Arcs"][ORDER.index("OU-200")] == pytest.approx(0.76, abs=0.01)
    assert max(TABLE_6["Double rings"]) > 0.52


def test_names_of_known_lenses():
    for name in ("SDSS J1148+1930", "J1148+1930", "Cosmic Horseshoe", "cosmic_horseshoe"):
        assert lens_of_table_7(name) == "J1148+1930"
    assert lens_of_table_7("HSC J142449–005322") == "HSCJ142449-005322"
    assert lens_of_table_7("SL20S J02176–0513") == "SL2SJ02176-0513"
    assert lens_of_table_7("102018665") is None
    assert set(map(lens_of_table_7, TABLE_7)) == set(TABLE_7)


@pytest.fixture(scope="module")
def compared(sets, unlensed_rings):
    # A double ring that is not visibly lensed is a double ring all the same.
    return compare_bundles((None,), [LabelledSet(sets["eval"]), LabelledSet(unlensed_rings)], n_turned=0)


def test_table_5_judges_the_grid_at_a_half_and_at_f_beta(compared):
    (table, _) = paper_tables(compared, lambda bundle: open_session(bundle, "cpu"))
    scored, truth = compared.bundles[0], compared.datasets["eval"].truth
    models = [row[2] for row in table.rows if row[3] == "ours"]
    assert models[:3] == ["OU-66", "OU-200", "OU-T-SNE"]
    assert models[3].startswith("OU-T-SNE at F-beta, ")
    # Counted by hand: grid values of 0.5 and more are lenses.
    selected = scored.scores["eval"]["grid"] >= 0.5
    row = next(row for row in table.rows if row[2] == "OU-T-SNE")
    assert row[4 + MEASURES.index("recall")].startswith(f"{selected[truth.is_lens].mean():.3f} ")
    assert row[4 + MEASURES.index("accuracy")].startswith(f"{(selected == truth.is_lens).mean():.3f} ")
    printed = table.rows[table.rows.index(row) + 1]
    assert printed[3:] == ("paper", "0.9423", "0.9431", "0.4846", "0.6660", "0.5371")
    assert table.rows[-1][3] == "ours"  # nothing is printed at F-beta


def test_table_6_counts_every_system(compared):
    (_, table) = paper_tables(compared, lambda bundle: open_session(bundle, "cpu"))
    scored = compared.bundles[0].scores["double-ring"]
    dataset = compared.datasets["double-ring"]
    assert 0 < dataset.truth.is_lens.sum() < len(dataset)
    assert [row[1] for row in table.rows] == ["Test data", "", "", "Double rings", "", ""]
    ours, paper, difference = table.rows[3:]
    assert ours[2] == f"double-ring, {len(dataset)}"
    for member, own, theirs, change in zip(ORDER, ours[4:], paper[4:], difference[4:], strict=True):
        found = np.mean(scored[member] >= 0.0)
        assert own.startswith(f"{found:.3f} ")
        assert theirs == f"{TABLE_6['Double rings'][ORDER.index(member)]:.4f}"
        assert float(change) == pytest.approx(found - float(theirs), abs=6e-4)


def test_table_7_is_the_softmax_of_the_image_as_it_lies(bundle, tmp_path):
    rng = np.random.default_rng(0)
    fits.PrimaryHDU(rng.normal(size=(260, 260)).astype(np.float32)).writeto(tmp_path / "f814w.fits")
    (tmp_path / "list.txt").write_text("id='SDSS J0946+1006' VIS=f814w.fits scale=0.08\nid=other VIS=f814w.fits scale=0.1\n")
    cutouts = known_lens_cutouts(read_known_lenses(tmp_path / "list.txt"))
    own = SimpleNamespace(name="own", bundle=bundle, scores={})
    comparison = SimpleNamespace(bundles=[own], datasets={}, known_lenses=cutouts)
    session = open_session(bundle, "cpu")
    (table,) = paper_tables(comparison, lambda bundle: session)
    outputs = outputs_of(session, cutouts["SDSS J0946+1006"])
    assert list(outputs) == list(MEMBERS)
    assert [row[1] for row in table.rows] == ["SDSSJ0946+1006", "", ""]
    assert table.rows[0][2:] == ("ours", f"{outputs['OU-66']:.4f}", f"{outputs['OU-200']:.4f}")
    assert table.rows[1][2:] == ("paper", "0.6873", "0.8228")
    with pytest.raises(UsageError, match="none of the paper's tables"):
        paper_tables(SimpleNamespace(bundles=[], datasets={}, known_lenses={}), lambda bundle: session)
