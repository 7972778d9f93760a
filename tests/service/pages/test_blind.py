"""Blind grading in a browser: nothing tells of the scores until a grade is given, then everything is there."""

import io
import shutil

import pytest
from PIL import Image
from playwright.sync_api import expect

from scanner.config import StorageConfig
from scanner.records import MEMBERS
from scanner.report import explanations
from scanner.report.explanations import Explanation
from scanner.service.settings import load
from scanner.storage import open_store


def explain(run, candidate_id):
    """An explanation of one candidate as the run folder holds it; the picture is a plain one, 300 pixels wide."""
    _, tile_id, target_id = candidate_id.split("/")
    picture = io.BytesIO()
    Image.new("RGB", (300, 100), "teal").save(picture, "PNG")
    record = Explanation(
        tile_id=tile_id,
        target_id=int(target_id),
        input_fingerprint="0" * 64,
        bundle_fingerprint="0" * 64,
        scanner_version="0",
        probabilities=(0.5,) * len(MEMBERS),
        votes=3,
        spread=0.1,
        disagreement_bits=0.0,
        methods=("occlusion",),
    )
    with explanations.staged(open_store(str(run), StorageConfig()), tile_id, int(target_id), None) as staging:
        (staging.path / explanations.STRIP).write_bytes(picture.getvalue())
        (staging.path / explanations.RECORD).write_text(record.model_dump_json())


@pytest.fixture(name="explained", scope="module")
def explained_fixture(served_run, listed_ids, tmp_path_factory):
    """Folder of a run whose best candidate has an explanation."""
    run = shutil.copytree(served_run, tmp_path_factory.mktemp("explained") / "out")
    explain(run, listed_ids[0])
    return run


@pytest.fixture(name="address", scope="module")
def address_fixture(explained, make_server, tmp_path_factory):
    grades = tmp_path_factory.mktemp("blind") / "grades.sqlite"
    with make_server(load(None, {"grading.path": str(grades), "grading.blind": True}, {}), explained) as server:
        (collection,) = server.context.collections
        yield f"{server.url}/c/{collection.slug}/candidates"


def test_scores_appear_with_the_grade(page, address, listed_ids, rows):
    row = rows.to_pylist()[0]
    page.goto(address)
    page.wait_for_selector(".card")
    assert page.locator(".card .rank").count() == 0
    assert page.locator(".card").first.get_by_text("withheld until graded").count() == 1
    page.goto(f"{address}/{listed_ids[0]}")
    page.wait_for_selector("main[data-ready]")
    assert page.locator("h1").inner_text() == row["name"]
    assert "Withheld" in page.locator("#scores").inner_text()
    expect(page.locator("#rank")).to_be_hidden()
    assert page.locator("#neighbourhood, #explanation").count() == 0
    page.fill("#grading [name=name]", "Grace")
    page.get_by_role("button", name="Grade under this name").click()
    expect(page.locator("#grading h2")).to_have_text("Grade by Grace")
    page.uncheck("#grading [name=advance]")
    page.locator("h1").click()
    page.keyboard.press("b")
    expect(page.locator("#scores .label")).to_have_text([*MEMBERS, "grid", "calibrated"])
    expect(page.locator("#rank")).to_have_text("1")
    page.goto("about:blank")


def test_lists_and_plots_have_no_place_for_scores(page, address):
    page.goto(f"{address}?sort=magnitude_vis")
    page.wait_for_selector(".card")
    options = page.locator("[name=sort] option").evaluate_all("(all) => all.map((one) => one.value)")
    assert options == ["place", "magnitude_vis", "ra", "random"]
    assert page.locator("[name=min_score], [name=flags], [name=min_rank]").count() == 0
    page.goto(address.replace("/candidates", "/tiles"))
    page.wait_for_selector("main[data-ready]")
    assert "withheld" in page.locator("[aria-labelledby=blind-title]").inner_text()
    assert page.locator("#calibrated").count() == 0
    assert page.locator("#tiles tbody tr").count() == 3


def test_the_explanation_where_nothing_is_withheld(page, explained, make_server, listed_ids, tmp_path):
    with make_server(load(None, {"grading.path": str(tmp_path / "grades.sqlite")}, {}), explained) as server:
        (collection,) = server.context.collections
        page.goto(f"{server.url}/c/{collection.slug}/candidates/{listed_ids[0]}")
        page.wait_for_selector("main[data-ready]")
        strip = page.locator("#explanation img")
        strip.scroll_into_view_if_needed()
        expect(strip).to_have_js_property("naturalWidth", 300)
        page.goto(f"{server.url}/c/{collection.slug}/candidates/{listed_ids[1]}")
        page.wait_for_selector("main[data-ready]")
        assert page.locator("#explanation").count() == 0
        page.goto("about:blank")
