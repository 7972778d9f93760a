from __future__ import annotations

import base64
import hashlib
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from scanner.errors import OutputError
from scanner.records import FailedTile, Flag
from scanner.report import contact_sheet
from scanner.report.contact_sheet import write_contact_sheet

from .conftest import REPOSITORY, make_batch, make_candidates, make_summary
from .test_picture import decode

SERVICES = r"https://(sky\.esa\.int/esasky/|aladin\.cds\.unistra\.fr/AladinLite/|www\.legacysurvey\.org/viewer)\?"
VOID = {"meta", "img", "input", "link", "br", "hr"}


class Page(HTMLParser):
    """Parses a page, fails on tags that do not close where they should, and remembers what is in it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "tags left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def prose(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> str:
    batch = make_batch(4)
    flags = np.array([0, Flag.EMPTY_CELL, Flag.OUTSIDE_MOSAIC | Flag.FAR_FROM_TRAINING, 0], np.uint32)
    path = tmp_path_factory.mktemp("sheet") / "candidates.html"
    write_contact_sheet(path, make_candidates(batch, flags=flags), batch, make_summary(last_candidate_rank=3))
    return path.read_text(encoding="utf-8")


def test_page_is_self_contained(sheet: str) -> None:
    page = Page(sheet)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "srcset", "poster", "data", "action"):
            assert attributes.get(name, "data:").startswith("data:")
        if "href" in attributes and not attributes["href"].startswith("#"):
            assert tag == "a"
            assert re.match(SERVICES, attributes["href"])
    style = re.search(r"<style>(.*?)</style>", sheet, re.DOTALL)
    script = re.search(r"<script>(.*?)</script>", sheet, re.DOTALL)
    assert style is not None
    assert script is not None
    assert not re.search(r"url\(|@import|https?:", style[1] + script[1])
    policy = next(meta["content"] for meta in page.of("meta") if "content-security" in meta.get("http-equiv", "").lower())
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_ids_are_unique_and_links_lead_somewhere(sheet: str) -> None:
    page = Page(sheet)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.of("a") if link["href"].startswith("#")} <= set(ids)
    assert {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes} <= set(ids)
    # Every element that the script asks for by id is there.
    assert set(re.findall(r'(?:tool|getElementById)\("([a-z-]+)"\)', sheet)) <= set(ids)


def test_every_candidate_has_its_card_in_order(sheet: str) -> None:
    page = Page(sheet)
    candidates = make_candidates(make_batch(4)).to_pylist()
    cards = page.of("article")
    marks = [tag["title"] for tag in page.of("span") if tag.get("class") == "candidate" and "title" in tag]
    assert marks == ["Its grid value reaches the threshold"] * 4
    assert "higher than 99.98% of 9,900 objects , 9,000 × as likely as an average object what p means" in page.prose
    assert [card["data-rank"] for card in cards] == ["1", "2", "3", "4"]
    assert [card["data-name"] for card in cards] == [row["name"] for row in candidates]
    assert [float(card["data-grid"]) for card in cards] == pytest.approx([row["grid_value"] for row in candidates])
    assert [float(card["data-ou-200"]) for card in cards] == pytest.approx([row["p_ou_200"] for row in candidates])
    assert [card["data-flags"] for card in cards] == ["", "empty cell|", "at the edge|unlike training|", ""]
    for row in candidates:
        for text in (row["name"], str(row["target_id"]), row["tile_id"], f"{row['ra']:.6f} {row['dec']:+.6f}"):
            assert text in page.prose
    for text in (
        "0.980",
        "of 1,234 training objects",
        "0.900",
        "0.119",
        "0.791",
        "> 0.999",
        "03h31m12.00s",
        "−28°06′00.0″",
        "19.00 mag",
    ):
        assert text in page.prose
    explained = {tag["title"] for tag in page.of("span") if tag.get("class") == "flag"}
    assert any("do not go together as those of any training object do" in sentence for sentence in explained)


def test_pictures_are_those_of_the_row_and_described(sheet: str) -> None:
    images = Page(sheet).of("img")
    assert len(images) == 12
    assert all(image["loading"] == "lazy" and len(image["alt"]) > 20 for image in images)
    shapes = [decode(image["src"]).shape[:2] for image in images]
    assert shapes == [(200, 200), (200, 200), (66, 66)] * 4
    vis = decode(images[0]["src"]).astype(float).mean(axis=-1)
    assert vis[95:105, 95:105].mean() > 200 > 60 > vis[:30, :30].mean()


def test_header_states_the_run(sheet: str) -> None:
    prose = Page(sheet).prose
    for text in (
        "4 candidates",
        "9,900 objects",
        "9,822 scored in 2 tiles",
        "10,012 listed",
        "0.284 deg²",
        "0.625",
        "β = 0.03",
        "demo 1.2.0",
        "Bundle demo 1.2.0, weights under CC-BY-4.0.",
    ):
        assert text in prose
    assert "1 tile of 3 could not be scanned" in prose
    assert "T3/VIS.fits: truncated; fetch it again." in prose
    assert "how many of these objects are lenses is not known" in prose
    assert "8 grade A or B lenses per deg², that is about 2 in an area like this one" in prose
    assert "more are in candidates.fits , all in catalogue/ ." in prose


@pytest.mark.parametrize(("last", "before", "words"), [
    (0, "1", "No object reaches the threshold, a grid value of 0.625. These are the best by rank (β = 0.03;"),
    (2, "3", "Threshold: from here on no object reaches a grid value of 0.625"),
    (3, "4", "Threshold: from here on"),
    (40, None, ""),
])  # fmt: skip
def test_the_threshold_is_a_line_below_the_last_candidate(tmp_path: Path, last: int, before: str | None, words: str) -> None:
    batch = make_batch(4)
    rows = make_candidates(batch, decision=np.arange(4) < last)
    write_contact_sheet(tmp_path / "c.html", rows, batch, make_summary(n_candidates=last, last_candidate_rank=last))
    page = Page((tmp_path / "c.html").read_text())
    drawn = [(tag, attributes) for tag, attributes in page.tags if tag == "article" or attributes.get("id") == "threshold"]
    places = [number for number, (tag, _) in enumerate(drawn) if tag == "p"]
    assert [drawn[number + 1][1]["data-rank"] for number in places] == ([] if before is None else [before])
    assert words in page.prose
    assert sum("data-candidate" in card for card in page.of("article")) == min(last, 4)


def test_a_candidate_costs_less_than_27_kilobytes_even_in_white_noise(tmp_path: Path) -> None:
    sizes = []
    for n in (2, 6):
        batch = make_batch(n)
        write_contact_sheet(tmp_path / "c.html", make_candidates(batch), batch, make_summary())
        sizes.append((tmp_path / "c.html").stat().st_size)
    assert (sizes[1] - sizes[0]) / 4 < 27_000


def test_everything_from_outside_is_escaped(tmp_path: Path) -> None:
    batch = make_batch(1)
    nasty = """<script>alert("x")</script> & 'quoted' </style> {{ 7 * 7 }}"""
    rows = make_candidates(batch)
    for name in ("name", "tile_id"):
        position = rows.column_names.index(name)
        rows = rows.set_column(position, name, [[nasty]])
    summary = make_summary(
        title=nasty, command=nasty, bundle_name=nasty, failed_tiles=(FailedTile(tile_id=nasty, reason=nasty),), n_candidates=1
    )
    write_contact_sheet(tmp_path / "c.html", rows, batch, summary)
    text = (tmp_path / "c.html").read_text(encoding="utf-8")
    page = Page(text)
    assert text.count("<script>") == 1
    assert page.prose.count(re.sub(r"\s+", " ", nasty)) >= 6
    assert page.of("article")[0]["data-name"] == nasty
    assert [button["data-copy"] for button in page.of("button") if "data-copy" in button][:2] == [nasty, nasty]


def test_same_input_same_bytes(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        batch = make_batch(3)
        write_contact_sheet(tmp_path / name, make_candidates(batch), batch, make_summary())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


@pytest.mark.parametrize(
    ("replaced", "advice"),
    [
        ({"n_scored": 0}, "No object was scored , although 10,012 were listed"),
        ({"n_scored": 0}, "Mend the tiles that failed"),
        (
            {"n_scored": 0, "n_targets": 0, "n_objects": 0, "n_failed": 0, "failed_tiles": ()},
            "Lift the limits on what is looked at",
        ),
    ],
)
def test_nothing_scored_says_what_to_do(tmp_path: Path, replaced: dict[str, object], advice: str) -> None:
    rows = make_candidates(make_batch(1)).slice(0, 0)
    write_contact_sheet(
        tmp_path / "c.html", rows, None, make_summary(**{"n_candidates": 0, "last_candidate_rank": 0, "n_scored": 0} | replaced)
    )
    page = Page((tmp_path / "c.html").read_text())
    assert "0 candidates are marked" in page.prose
    assert advice in page.prose
    assert page.of("article") == page.of("script") == []


def test_a_bundle_without_a_grid_is_shown_without_one(tmp_path: Path) -> None:
    batch = make_batch(2)
    rows = make_candidates(batch, grid_value=np.full(2, np.nan, np.float32), cell_count=np.zeros(2, np.int64))
    write_contact_sheet(tmp_path / "c.html", rows, batch, make_summary(decides_on="calibrated", beta=None, threshold=0.5))
    page = Page((tmp_path / "c.html").read_text())
    assert "whose calibrated probability reaches 0.500 , the default (no labelled objects chose it)" in page.prose
    assert "grid" not in page.prose
    assert "training objects" not in page.prose
    assert [mark["style"] for mark in page.of("b")] == ["left:50.0%"] * 2


def test_rows_and_cutouts_must_be_the_same_objects(tmp_path: Path) -> None:
    batch = make_batch(3)
    rows = make_candidates(batch)
    for wrong in (batch.take(np.array([0, 1])), batch.take(np.array([0, 2, 1])), None):
        with pytest.raises(ValueError, match="not the same objects"):
            write_contact_sheet(tmp_path / "c.html", rows, wrong, make_summary())
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "c.html"
    with pytest.raises(OutputError, match=re.escape(f"{path}: cannot be written (No such file or directory)")):
        write_contact_sheet(path, make_candidates(make_batch(1)).slice(0, 0), None, make_summary(n_candidates=0))


def test_templates_are_shipped() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["scanner.report"]
    folder = Path(contact_sheet.__file__).parent
    shipped = {path for pattern in patterns for path in folder.glob(pattern)}
    assert {path for path in (folder / "templates").iterdir() if path.is_file()} == shipped
