import zlib

import pytest
from pydantic import ValidationError

from scanner.simulation import PRESET_NAMES
from scanner.simulation.datasets.presets import EVALUATION_SETS, PRESETS, Preset


def test_every_name_has_its_preset():
    assert tuple(PRESETS) == PRESET_NAMES
    assert all(preset.name == name for name, preset in PRESETS.items())


def test_names_seed_their_objects_apart():
    assert len({zlib.crc32(name.encode()) for name in PRESET_NAMES}) == len(PRESET_NAMES)


def test_shares_of_lenses():
    assert {name: round(preset.lens_share, 9) for name, preset in PRESETS.items()} == {
        "train": 0.5,
        "train-wide": 0.5,
        "quick": 0.5,
        "eval": 0.71,
        "survey": 0.5,
        "hard-negatives": 0.0,
        "compound-arc": 1.0,
        "double-ring": 1.0,
        "red-sources": 1.0,
        "quasars": 1.0,
        "challenge": 0.0,
        "wide-lenses": 1.0,
        "invisible-deflectors": 1.0,
        "bright-deflectors": 1.0,
        "whole-rings": 1.0,
        "other-telescopes": 0.5,
    }


def test_every_evaluation_preset_is_a_set_and_no_training_preset_is():
    assert [item.name for item in EVALUATION_SETS] == [n for n, preset in PRESETS.items() if preset.purpose == "evaluation"]
    assert all(item.preset.purpose == "evaluation" for item in EVALUATION_SETS)
    assert {name for name, preset in PRESETS.items() if preset.purpose == "training"} == {"train", "train-wide", "quick"}
    sizes = {item.name: item.n_objects for item in EVALUATION_SETS}
    assert sizes["challenge"] >= 100_000
    assert sizes["hard-negatives"] >= 20_000


@pytest.mark.parametrize("mix", [{}, {"lens": 0.5}, {"lens": 1.5, "star": -0.5}, {"planet": 1.0}])
def test_impossible_mixes_are_refused(mix):
    with pytest.raises(ValidationError, match=r"mix|shares"):
        Preset(name="train", purpose="training", summary="x", n_objects=1, mix=mix)
