from pathlib import Path

from scanner.catalogue import columns
from scanner.catalogue.columns import TILE_COLUMNS, markdown

PAGE = Path(__file__).parents[2] / "docs" / "catalogue-columns.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run: python -m scanner.catalogue.columns docs/catalogue-columns.md"


def test_every_column_has_its_line() -> None:
    lines = [line for line in markdown().splitlines() if line.startswith("| `")]
    named = [line.split("`")[1] for line in lines]
    expected = [column.name for column in (*columns.all_columns(), *TILE_COLUMNS)]
    assert named[5 : 5 + len(expected)] == expected
    assert all(line.count("|") in (3, 6) for line in lines)
