"""The paper's figures of section 5: what is drawn, with whose settings."""

import numpy as np
import pytest
from PIL import Image

from scanner.errors import UsageError
from scanner.explain import figures
from scanner.explain.ascent import convolutions
from scanner.explain.display import overlaid
from scanner.explain.figures import KERNELS, MAKERS, FigureSettings, Objects, chosen, draw_figures
from scanner.explain.maps import guided_grad_cam, occlusion, shown
from scanner.explain.networks import network_input, restore
from scanner.labelled_set import LabelledSet
from scanner.networks import build
from scanner.simulation.datasets.dataset import DatasetRequest, draw_dataset

PAPER = FigureSettings(paper=True, class_steps=1, dream_steps=1, kernel_steps=1)


@pytest.fixture(scope="module")
def objects(cutouts):
    one = [cutouts.take(np.array([row])) for row in range(4)]
    return Objects({"lens": one[0]}, {"other": one[2]}, {"double ring": one[1]}, {"Jackpot": one[3]}, cutouts)


@pytest.fixture(scope="module")
def networks(shipped):
    return restore(shipped)


def test_occlusion_is_the_authors_on_request(shipped, networks, objects):
    # "Model outputs were recorded": probabilities; image[:, :, i:i+4, j:j+4] = 0 in Occlusion_Map_Maker.ipynb.
    caption, rows = MAKERS["13"](shipped, networks, objects, PAPER)
    ((vis, small, large),) = list(rows)
    images = network_input(shipped, "OU-200", objects.known["Jackpot"])
    map_ = occlusion(networks["OU-200"], images, square=4, step=4, fill=0.0, output="probability")[0]
    np.testing.assert_array_equal(large.picture, overlaid(vis.picture, map_))
    assert (vis.title, small.title[:6]) == ("Jackpot", "OU-66:")
    assert "Covered with 0" in caption
    ours, _ = MAKERS["13"](shipped, networks, objects, FigureSettings())
    assert "blank sky" in ours
    assert "the authors: with 0, and the probability" in ours


def test_fig_17_shows_the_pixels_of_the_map_and_no_others(shipped, networks, objects):
    _, rows = MAKERS["17"](shipped, networks, objects, PAPER)
    drawn = list(rows)
    assert [row[0].title.rpartition(":")[0] for row in drawn] == ["lens", "double ring", "Jackpot"]
    mask = shown(guided_grad_cam(networks["OU-200"], network_input(shipped, "OU-200", objects.lenses["lens"])))[0]
    vis, marked = drawn[0]
    assert not marked.picture[~mask].any()
    np.testing.assert_array_equal(marked.picture[mask], vis.picture[mask])


def test_kernels_are_those_of_figs_14_and_15(shipped, networks, objects):
    for number, member in (("14", "OU-66"), ("15", "OU-200")):
        caption, rows = MAKERS[number](shipped, networks, objects, PAPER)
        drawn = list(rows)
        assert [row[0].title for row in drawn] == [f"[{layer}, {kernel}]" for layer, kernel in KERNELS[member]]
        for layer, kernel in KERNELS[member]:
            assert kernel < convolutions(build(member))[layer].out_channels
        # The notebook's 200 pixels.
        assert drawn[0][0].picture.shape == (200, 200, 3)
        assert "of Adam at 0.1 on 200 pixels" in caption
        assert drawn[0][1].title.startswith("object ")
    assert FigureSettings(paper=True).kernels == {"learning_rate": 0.1, "steps": 50}
    assert FigureSettings().kernels == {"learning_rate": 0.001, "steps": 1000}


def test_fig_16_begins_with_noise_a_non_lens_and_a_lens(shipped, networks, objects):
    caption, rows = MAKERS["16"](shipped, networks, objects, FigureSettings(class_steps=1, dream_steps=1))
    titles = [[panel.title for panel in row] for row in rows]
    assert titles[0] == ["OU-66 for non-lens", "OU-200 for non-lens", "OU-66 for lens", "OU-200 for lens"]
    assert [row[0] for row in titles[1:]] == ["other", "lens"]
    assert "(the authors: 5,000 of 0.1)" in caption
    assert (FigureSettings().class_steps, FigureSettings().dream_steps) == (5000, 1000)


def test_files_are_written_and_what_lacks_objects_is_said(shipped, tmp_path):
    said = []
    drawn = draw_figures(shipped, Objects(), tmp_path, PAPER, ("7", "8"), said.append)
    assert [path.name for path in drawn] == ["fig-7.png", "fig-8.png"]
    for path in drawn:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        for colour in ("#f2d64b", "#2a9d8f", "#f4a261", "#d62839"):
            wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
            assert (np.abs(pixels - wanted).max(axis=1) < 8).sum() > 50
    with pytest.raises(UsageError, match=r"Fig\. 13 needs a list of known lenses as --known"):
        draw_figures(shipped, Objects(), tmp_path, PAPER, ("13",))


def test_all_that_there_is_something_for_is_drawn(shipped, objects, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(figures, "PAPER_FIGURES", ("12", "17"))
    some = Objects(lenses=objects.lenses)
    assert [path.name for path in draw_figures(shipped, some, tmp_path, PAPER, (), said.append)] == ["fig-17.png"]
    assert said[0].startswith("Fig. 12 was left out: it needs a set of compound lenses")


def test_the_first_objects_are_chosen_whatever_the_networks_say(tmp_path):
    draw_dataset(DatasetRequest(preset="eval", n_objects=12, seed=2), tmp_path / "eval")
    draw_dataset(DatasetRequest(preset="double-ring", n_objects=3, seed=2), tmp_path / "rings")
    sets = [LabelledSet(tmp_path / name) for name in ("eval", "rings")]
    found = chosen(sets, {})
    truth = sets[0].truth
    rows = np.flatnonzero(truth.is_lens & truth.visible)[:6]
    assert [int(label.rpartition(" ")[2]) for label in found.lenses] == rows.tolist()
    assert all(len(batch) == 1 for batch in found.compound.values())
    assert len(found.compound) > 0
    assert len(found.searched) == 12
