"""What docs/vo-services.md says of the services is what they take."""

import re
from pathlib import Path
from typing import get_args

import pytest

from scanner.report.colour import BLACK_SIGMA, CURVES, SOFTENING_SIGMA, WHITE_SIGMA
from scanner.service.vo import cone as cone_search
from scanner.service.vo import datalink, soda, vosi
from scanner.service.vo.soda import (
    CUTOUT_MEDIA_TYPES,
    LARGEST_SATURATION,
    LARGEST_ZOOM,
    WHOLE_ARCSEC,
    Picture,
)

PAGE = (Path(__file__).parents[3] / "docs" / "vo-services.md").read_text(encoding="utf-8")


def section(title):
    (found,) = re.findall(rf"^## {re.escape(title)}.*?$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return found


def parameters(text):
    """The parameters of a section's table: those of the first cell of each row."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([A-Z]+)`", cell)}


@pytest.mark.parametrize(("title", "taken"), [("Cone search", cone_search.parameters_of(1)), ("Cutouts", soda.PARAMETERS)])
def test_every_parameter_is_told_and_no_other(title, taken):
    assert parameters(section(title)) == {one.name for one in taken}


def test_what_parameters_take_and_their_defaults():
    cutouts = section("Cutouts")
    for words in (get_args(Picture), CURVES, CUTOUT_MEDIA_TYPES):
        for word in words:
            assert f"`{word}`" in cutouts
    assert f"black ({BLACK_SIGMA:g}) and white" in cutouts
    assert "between {:g} and {:g})".format(*WHITE_SIGMA) in cutouts
    assert f"logarithmic ({SOFTENING_SIGMA:g} σ)" in cutouts
    assert f"1 to {WHOLE_ARCSEC:g} |" in cutouts
    assert f"up to {LARGEST_SATURATION:g} |" in cutouts
    assert f"1 to {LARGEST_ZOOM} |" in cutouts
    cone = section("Cone search")
    assert f"{cone_search.DEFAULT_ROWS:,} by default" in cone
    assert f"more than {cone_search.MOST_TEXT_ROWS:,} rows are binary" in cone
    assert f"up to {datalink.MOST_IDS} times" in section("Links")
    assert f"within {round(datalink.NEIGHBOURHOOD_DEG * 3600)}″" in section("Links")
    assert all(f"`{name}`" in section("Coverage") for name in vosi.MEDIA_TYPES)


def test_every_term_of_the_links_is_told(server, candidate_ids, read):
    _, table = read(server.get("/datalink", params={"ID": candidate_ids[0]}).content)
    assert set(re.findall(r"`(#[a-z-]+)`", section("Links"))) == set(table["semantics"])
