from __future__ import annotations

import math
import re
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from astropy.coordinates import Angle
from hypothesis import example, given
from hypothesis import strategies as st

from scanner.catalogue.columns import FLAG_WORDS, flag_words
from scanner.records import MEMBERS, Flag
from scanner.report.contact_sheet import DASH, Card, card, likelihood, links, sexagesimal, standing

from .conftest import make_batch, make_candidates


def row(**replaced: object) -> dict[str, object]:
    return make_candidates(make_batch(1)).to_pylist()[0] | replaced


def described(values: dict[str, object]) -> Card:
    return card(values, 9_900, 1e-4)


def test_every_flag_has_a_word_and_a_sentence() -> None:
    assert list(FLAG_WORDS) == list(Flag)
    assert len({word for word, _ in FLAG_WORDS.values()}) == len(Flag)
    assert all(sentence.endswith(".") for _, sentence in FLAG_WORDS.values())


def test_flags_become_words_in_the_order_of_the_bits() -> None:
    said = described(row(flags=int(Flag.EMPTY_CELL | Flag.OUTSIDE_MOSAIC)))
    assert [word for word, _ in said.flags] == ["at the edge", "empty cell"]
    assert described(row(flags=0)).flags == ()


@given(st.floats(0, 360, exclude_max=True), st.floats(-90, 90))
@example(359.99999999, 89.99999999)
@example(15.0 - 1e-9, -1e-9)
def test_sexagesimal_positions_come_back(ra: float, dec: float) -> None:
    right_ascension, declination = sexagesimal(ra, dec)
    assert re.fullmatch(r"\d\dh\d\dm\d\d\.\d\ds", right_ascension)
    assert re.fullmatch(r"[+−]\d\d°\d\d′\d\d\.\d″", declination)
    back = Angle(right_ascension).deg
    assert min(abs(back - ra), 360 - abs(back - ra)) <= 0.005 * 15 / 3600 + 1e-9
    assert Angle(declination.replace("−", "-").replace("′", "m").replace("″", "s").replace("°", "d")).deg == pytest.approx(
        dec, abs=0.05 / 3600 + 1e-9
    )


def test_sexagesimal_of_a_known_position() -> None:
    assert sexagesimal(57.004035, -50.77529) == ("03h48m00.97s", "−50°46′31.0″")
    assert sexagesimal(0.0, -0.00001) == ("00h00m00.00s", "+00°00′00.0″")


def test_links_carry_the_position() -> None:
    addresses = dict(links(53.0167, 2.5))
    assert list(addresses) == ["ESASky", "Aladin", "Legacy"]
    for name in ("ESASky", "Aladin"):
        assert parse_qs(urlparse(addresses[name]).query)["target"] == ["53.016700 +2.500000"]
    query = parse_qs(urlparse(addresses["Legacy"]).query)
    assert (query["ra"], query["dec"]) == (["53.016700"], ["2.500000"])
    assert addresses["ESASky"] == "https://sky.esa.int/esasky/?target=53.016700%20%2B2.500000&fov=0.02&sci=true"


def test_scores_are_rounded_but_never_up_to_certainty() -> None:
    said = described(row(p_ou_j=0.99999, p_ou_y=0.0001, p_ou_h=0.5, p_ou_vis=math.nan, p_calibrated=0.87654, grid_value=1.0))
    shown = {bar.label: bar for bar in said.members}
    assert tuple(shown) == MEMBERS
    assert shown["OU-J"].text == "> 0.999"
    assert shown["OU-Y"].text == "1.0e-04"
    assert (shown["OU-H"].text, shown["OU-H"].percent) == ("0.500", "50.0")
    assert (shown["OU-VIS"].text, shown["OU-VIS"].percent) == (DASH, "0")
    assert shown["OU-66"].title == "Sees VIS, Y, J, H at 66 px"
    assert {label for label, bar in shown.items() if bar.kind == "vis"} == {"OU-VIS", "OU-66", "OU-200"}
    assert said.calibrated.text == "0.877"


def test_the_cell_says_how_much_the_grid_value_is_worth() -> None:
    assert described(row(cell_count=1234)).cell == "of 1,234 training objects"
    assert described(row(cell_count=1)).cell == "of 1 training object"
    assert described(row(flags=int(Flag.EMPTY_CELL), cell_count=0)).cell == "mean of the cells around"
    assert described(row(flags=int(Flag.EMPTY_CELL | Flag.UNDEFINED_NEIGHBOURS), cell_count=0)).cell == "nearest filled cell"


def test_missing_data_and_magnitude() -> None:
    said = described(row(bad_vis=0.25, bad_h=0.0312, magnitude_vis=np.nan))
    assert said.missing == "VIS 25.0%, H 3.1%"
    assert said.magnitude == DASH
    assert dict(said.sort_keys)["magnitude"] == ""
    assert described(row()).missing == ""


def test_a_rank_is_said_among_all_objects_and_never_rounded_up() -> None:
    assert standing(9, 4102) == "higher than 99.7% of 4,102 objects"
    assert standing(1, 4102) == "higher than 99.97% of 4,102 objects"
    assert standing(1, 10_000_000) == "higher than 99.99999% of 10,000,000 objects"
    assert standing(500, 1000) == "higher than 50% of 1,000 objects"
    assert standing(1, 1) == "higher than 0% of 1 object"


def test_a_probability_is_said_beside_an_average_object() -> None:
    assert likelihood(0.019, 1e-4) == "190 × as likely as an average object"
    assert likelihood(0.5, 1e-4) == "5,000 × as likely as an average object"
    assert likelihood(0.0000345, 1e-4) == "0.34 × as likely as an average object"
    assert likelihood(math.nan, 1e-4) == likelihood(None, 1e-4) == likelihood(0.5, None) == ""


def test_flags_are_words_wherever_they_are_printed() -> None:
    assert flag_words(5) == ("at the edge", "not scored")
    assert flag_words(0) == ()
