"""The page of one candidate in a browser: pictures and their stretch, scores, neighbours, steps, downloads, grades."""

import io

import numpy as np
import pytest
from astropy.io import fits, votable
from PIL import Image
from playwright.sync_api import expect

from scanner.catalogue.columns import MEMBER_COLUMNS
from scanner.records import MEMBERS
from scanner.report.contact_sheet import sexagesimal
from scanner.service.settings import load


@pytest.fixture(name="address", scope="module")
def address_fixture(server):
    (collection,) = server.context.collections
    return f"{server.url}/c/{collection.slug}/candidates"


@pytest.fixture(name="best", scope="module")
def best_fixture(rows):
    return rows.to_pylist()


def opened(page, address, candidate_id):
    page.goto(f"{address}/{candidate_id}")
    page.wait_for_selector("main[data-ready]")
    return page


def drawn(page, band):
    """Pixels of a picture as it is shown now, from the address that the page took it from."""
    picture = page.locator(f"#pictures img[data-band={band}]")
    answer = page.request.get(page.evaluate("(image) => image.src", picture.element_handle()))
    return np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB"), dtype=float)


def drawn_after(page, act):
    """Do something that changes the look, and wait until the pictures are those that the controls then ask for."""
    page.evaluate("() => { window.asked = new Promise((done) => addEventListener('scanner:look', done, { once: true })); }")
    act()
    page.evaluate("() => window.asked.then(() => null)")
    expect(page.locator("figure.loading")).to_have_count(0)


def test_facts_scores_and_bands(page, address, best, listed_ids):
    opened(page, address, listed_ids[0])
    row = best[0]
    assert page.locator("h1").inner_text() == row["name"]
    facts = page.locator("#facts").inner_text()
    for text in (
        *sexagesimal(row["ra"], row["dec"]),
        f"{row['magnitude_vis']:.2f} mag",
        row["tile_id"],
        str(row["target_id"]),
        row["bundle"],
    ):
        assert text in facts
    bars = page.locator("#scores .score")
    labels, values = bars.locator(".label").all_inner_texts(), bars.locator(".value").all_inner_texts()
    assert labels == [*MEMBERS, "grid", "calibrated"]
    for value, column in zip(values[:-2], MEMBER_COLUMNS.values(), strict=False):
        # What rounds to one is said to be above .999.
        assert float(value.strip("> ")) == pytest.approx(min(row[column.name], 0.999), abs=6e-4)
    share = bars.nth(0).locator("i").evaluate("(bar) => parseFloat(bar.style.width)")
    assert share == pytest.approx(100 * row[next(iter(MEMBER_COLUMNS.values())).name], abs=0.1)
    for picture in page.locator("#pictures img").all():
        assert picture.evaluate("(image) => image.complete && image.naturalWidth > 20")
    links = page.locator("#links a")
    assert links.all_inner_texts() == ["ESASky", "Aladin", "Legacy"]
    assert f"{row['ra']:.4f}" in links.first.get_attribute("href")


def test_stretch_acts_at_once_and_is_reset(page, address, listed_ids):
    opened(page, address, listed_ids[0])
    usual = drawn(page, "VIS")
    # From 100 sigma for white to 10: brighter.
    drawn_after(page, lambda: page.locator("#white").fill("1"))
    assert page.locator("output[for=white]").inner_text() == "10 σ"
    assert drawn(page, "VIS").mean() > usual.mean() + 10
    drawn_after(page, lambda: page.keyboard.press("i"))
    brighter_inverted = drawn(page, "VIS")
    drawn_after(page, lambda: page.locator("#stretch button[type=reset]").click())
    np.testing.assert_array_equal(drawn(page, "VIS"), usual)
    assert brighter_inverted.mean() < 255 - usual.mean()
    drawn_after(page, lambda: page.keyboard.press("f"))
    assert drawn(page, "VIS").shape == (200, 200, 3)
    drawn_after(page, lambda: page.locator("#saturation").fill("0"))
    grey = drawn(page, "colour")
    assert np.abs(grey[..., 0] - grey[..., 2]).mean() < 2
    page.locator("[name=stretch]").select_option("linear")
    expect(page.locator("#softening")).to_be_disabled()


def test_keys_step_through_the_ranking_and_enlarge(page, address, listed_ids, best):
    opened(page, address, listed_ids[1])
    page.keyboard.press("j")
    expect(page.locator("h1")).to_have_text(best[2]["name"])
    page.wait_for_selector("main[data-ready]")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("h1")).to_have_text(best[1]["name"])
    page.wait_for_selector("main[data-ready]")
    page.keyboard.press("z")
    expect(page.locator("#large")).to_be_visible()
    assert "VIS image" in page.locator("#large h2").inner_text()
    page.keyboard.press("ArrowRight")
    assert "Colour composite" in page.locator("#large h2").inner_text()
    page.keyboard.press("Escape")
    expect(page.locator("#large")).to_be_hidden()
    assert page.locator("h1").inner_text() == best[1]["name"]


def test_arcs_without_the_galaxy_in_the_middle(page, address, listed_ids):
    opened(page, address, listed_ids[0])
    before = {band: drawn(page, band) for band in ("VIS", "colour")}
    drawn_after(page, lambda: page.keyboard.press("s"))
    assert not page.locator("#stretch [name=deflector]").is_checked()
    for band, whole in before.items():
        without = drawn(page, band)
        assert without.shape == whole.shape
        assert without[40:60, 40:60].mean() < 0.8 * whole[40:60, 40:60].mean()
    drawn_after(page, lambda: page.keyboard.press("0"))
    np.testing.assert_array_equal(drawn(page, "VIS"), before["VIS"])


def test_neighbours_in_the_map_are_the_nearest(page, address, listed_ids, best):
    opened(page, address, listed_ids[0])
    place = np.array([[row["tsne_x"], row["tsne_y"]] for row in best], dtype=float)
    order = np.argsort(np.hypot(*(place - place[0]).T), kind="stable")
    nearest = [best[i]["name"] for i in order if i != 0][:12]
    found = page.locator("#neighbours a")
    assert [title.split(",")[0] for title in found.evaluate_all("(all) => all.map((one) => one.title)")] == nearest
    found.first.click()
    expect(page.locator("h1")).to_have_text(nearest[0])


def test_downloads(page, address, listed_ids, best, tmp_path):
    opened(page, address, listed_ids[0])
    with page.expect_download() as started:
        page.keyboard.press("d")
    started.value.save_as(tmp_path / "cutout.fits")
    with fits.open(tmp_path / "cutout.fits") as file:
        shapes = [hdu.data.shape for hdu in file if hdu.data is not None]
    assert shapes == [(200, 200), (66, 66), (66, 66), (66, 66)]
    with page.expect_download() as started:
        page.get_by_role("link", name="PNG, colour").click()
    started.value.save_as(tmp_path / "colour.png")
    with Image.open(tmp_path / "colour.png") as picture:
        assert picture.size == (300, 300)
    with page.expect_download() as started:
        page.get_by_role("link", name="VOTable").click()
    started.value.save_as(tmp_path / "row.vot")
    table = votable.parse_single_table(tmp_path / "row.vot").to_table()
    assert best[0]["name"] in list(table["name"])


def test_grades_by_keyboard_go_on_to_the_next(page, make_server, served_run, listed_ids, best, tmp_path):
    with make_server(load(None, {"grading.path": str(tmp_path / "grades.sqlite")}, {}), served_run) as server:
        (collection,) = server.context.collections
        address = f"{server.url}/c/{collection.slug}/candidates"
        opened(page, address, listed_ids[0])
        page.fill("#grading [name=name]", "Ada")
        page.get_by_role("button", name="Grade under this name").click()
        expect(page.locator("#grading h2")).to_have_text("Grade by Ada")
        page.locator("h1").click()
        page.keyboard.press("a")
        expect(page.locator("h1")).to_have_text(best[1]["name"])
        page.wait_for_selector("main[data-ready]")
        page.keyboard.press("x")
        expect(page.locator("h1")).to_have_text(best[2]["name"])
        page.goto(address)
        page.wait_for_selector(".card .grade")
        assert page.locator(".card .grade").all_inner_texts() == ["A", "X"]
        # What is still on its way would find no server.
        page.goto("about:blank")


def test_without_the_rest_of_the_world(page, address, listed_ids):
    """Everything comes from the service itself."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    opened(page, address, listed_ids[0])
    own = address.split("/c/")[0]
    assert asked
    assert all(url.startswith(own) for url in asked)


@pytest.mark.parametrize("wrong", ["no-such-run/1/2", "x/%2e%2e/3", "x/1/%3Cscript%3E"])
def test_what_is_not_there(page, address, wrong, complaints):
    complaints.expected = "404"
    answer = page.goto(f"{address}/{wrong}")
    assert answer.status == 404
    assert page.locator("h1").inner_text() == "Nothing here"
    assert page.locator("script:not([src]):not([type])").count() == 0
