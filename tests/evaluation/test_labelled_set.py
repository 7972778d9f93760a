import pytest

from scanner.labelled_set import LabelledSet


@pytest.mark.parametrize(
    ("trained_on", "seen"),
    [
        ((), False),
        (("0" * 64, "drawn:eval:2:5000", "drawn:eval:11:5", "drawn:train:1:5000"), False),
        (("0" * 64, "drawn:eval:1:5000"), True),
    ],
)
def test_a_set_that_was_drawn_where_it_was_trained_on_is_known_by_preset_and_seed(sets, trained_on, seen):
    dataset = LabelledSet(sets["eval"])
    assert dataset.drawn_from == "drawn:eval:1"
    assert dataset.was_seen_by(trained_on) == seen
    assert dataset.was_seen_by((*trained_on, dataset.fingerprint))
