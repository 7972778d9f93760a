"""The gallery in a browser: what it shows, filters, the sky, the keyboard."""

import re

import pytest
from playwright.sync_api import expect

from scanner.records import Flag
from scanner.service.settings import load

#: Pixels of the plot's canvas of a position, when all tiles are shown.
WHERE = """async ([ra, dec, slug]) => {
  const folder = document.querySelector('link[rel=stylesheet]').href.replace('base.css', '');
  const { SkyView } = await import(`${folder}sky_view.js`);
  const { bounds, vertices } = await import(`${folder}projection.js`);
  const { items } = await (await fetch(`/api/v1/collections/${slug}/tiles`)).json();
  const view = new SkyView();
  view.setHome(bounds(items.flatMap((tile) => vertices(tile.s_region))));
  const canvas = document.querySelector('#sky canvas');
  return view.frame(canvas.clientWidth, canvas.clientHeight).place(ra, dec);
}"""


@pytest.fixture(name="address", scope="module")
def address_fixture(server):
    (collection,) = server.context.collections
    return f"{server.url}/c/{collection.slug}/candidates"


@pytest.fixture(name="best", scope="module")
def best_fixture(rows):
    """The best object of each system: a row of each list that the page shows by itself."""
    return [row for row in rows.to_pylist() if row["system_id"] == row["rank"]]


def opened(page, address):
    page.goto(address)
    page.wait_for_selector(".card")
    return page


def shows(page, number):
    """Wait until so many cards are shown."""
    expect(page.locator(".card")).to_have_count(number)


def names(page):
    return page.locator(".card .name").all_inner_texts()


def test_candidates_by_rank_with_their_pictures(page, address, best):
    opened(page, address)
    assert names(page) == [row["name"] for row in best]
    assert page.locator("#count").inner_text() == f"{len(best)} objects"
    first = page.locator(".card").first
    assert first.locator(".rank").inner_text() == "1"
    assert f"VIS {best[0]['magnitude_vis']:.2f}" in first.inner_text()
    for picture in first.locator("img").all():
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("(image) => image.naturalWidth") == 100


def test_what_p_means_is_one_click_away(page, address):
    opened(page, address)
    page.locator(".card [data-help]").first.click()
    expect(page.locator("#about-p")).to_be_in_viewport()
    assert "stated for the sky" in page.locator("#about-p").inner_text()


def test_filters_are_in_the_address_and_come_back_with_it(page, address, best):
    opened(page, address)
    limit = (best[0]["magnitude_vis"] + best[1]["magnitude_vis"]) / 2
    brighter = [row["name"] for row in best if row["magnitude_vis"] <= limit]
    page.fill("[name=max_magnitude]", f"{limit:.4f}")
    shows(page, len(brighter))
    assert names(page) == brighter
    assert f"max_magnitude={limit:.4f}" in page.url
    page.reload()
    page.wait_for_selector(".card")
    assert names(page) == brighter
    assert page.input_value("[name=max_magnitude]") == f"{limit:.4f}"
    page.go_back()
    shows(page, len(best))
    assert page.input_value("[name=max_magnitude]") == ""


def test_sorted_by_magnitude(page, address, best):
    opened(page, f"{address}?sort=magnitude_vis")
    assert names(page) == [row["name"] for row in sorted(best, key=lambda row: row["magnitude_vis"])]


def test_flags_tile_and_name(page, address, best):
    flag = next(flag for flag in Flag if 0 < sum(row["flags"] & flag > 0 for row in best) < len(best))
    opened(page, f"{address}?flags={flag.value}")
    assert names(page) == [row["name"] for row in best if row["flags"] & flag]
    tile = best[-1]["tile_id"]
    opened(page, f"{address}?tile={tile}")
    assert names(page) == [row["name"] for row in best if row["tile_id"] == tile]
    opened(page, f"{address}?name={best[3]['name'][-12:].replace('+', '%2B')}")
    assert names(page) == [best[3]["name"]]


def test_what_nothing_passes_and_what_makes_no_sense(page, address, complaints):
    page.goto(f"{address}?min_score=1")
    page.wait_for_selector("#nothing:not([hidden])")
    complaints.expected = "400"
    page.goto(f"{address}?cone=nowhere")
    page.wait_for_selector(".problem")
    assert "cone" in page.locator(".problem").first.inner_text()


def test_a_click_on_the_sky_asks_for_the_candidates_there(page, address, best):
    opened(page, address)
    # Where the plot draws the best candidate, as its own projection says.
    place = page.evaluate(WHERE, [best[0]["ra"], best[0]["dec"], address.split("/")[-2]])
    page.locator("#sky canvas").click(position={"x": place[0], "y": place[1]})
    expect(page.locator("[name=cone]")).not_to_have_value("")
    expect(page.locator("#count")).not_to_have_text(f"{len(best)} objects")
    page.wait_for_selector(".card")
    ra, dec, radius = page.input_value("[name=cone]").split()
    assert (float(ra), float(dec)) == pytest.approx((best[0]["ra"], best[0]["dec"]), abs=3e-4)
    assert radius.endswith("deg")
    assert best[0]["name"] in names(page)


def test_keys_go_through_the_cards_and_open_one(page, address, best):
    opened(page, address)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".card.at .name")).to_have_text(best[1]["name"])
    page.keyboard.press("f")
    assert page.input_value("#field") == "20"
    page.wait_for_selector(".card img[src*='band=VIS']:not([src*='size='])")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    assert "Next object" in page.locator("#help").inner_text()
    page.keyboard.press("?")
    assert page.locator("#help").is_hidden()
    page.keyboard.press("/")
    page.keyboard.type("jf")
    assert page.input_value("[name=name]") == "jf"
    # What is typed is asked a moment later: the whole list is to come back after that, not to be there still.
    page.wait_for_selector("#nothing:not([hidden])")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    shows(page, len(best))
    page.keyboard.press("j")
    expect(page.locator(".card.at .name")).to_have_text(best[0]["name"])
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/candidates/.+/.+/-?\d+$"))
    assert page.locator("h1").inner_text() == best[0]["name"]


def test_back_from_a_candidate_the_list_is_as_it_was(page, address, best):
    opened(page, f"{address}?sort=magnitude_vis")
    faintest_first = sorted(best, key=lambda row: row["magnitude_vis"])
    page.locator(".card .open").nth(2).click()
    page.wait_for_selector("main[data-ready]")
    page.keyboard.press("Escape")
    page.wait_for_selector(".card.at")
    assert "sort=magnitude_vis" in page.url
    assert page.locator(".card.at .name").inner_text() == faintest_first[2]["name"]


def test_where_the_network_ends_the_built_in_map_remains(page, address, complaints):
    complaints.expected = "ERR_FAILED"
    page.context.route(re.compile("aladin.cds.unistra.fr"), lambda route: route.abort())
    opened(page, address)
    page.get_by_role("button", name="Show in Aladin Lite").click()
    expect(page.locator("#aladin")).to_contain_text("cannot be reached")
    assert page.locator("#aladin iframe").count() == 0
    assert page.locator("#sky canvas").is_visible()


def test_what_stands_in_the_address_is_text_and_never_markup(page, address):
    hostile = "%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D1%3E"
    page.goto(f"{address}?name={hostile}&tile={hostile}")
    page.wait_for_selector("#nothing:not([hidden])")
    assert page.input_value("[name=name]").startswith("<img")
    assert page.locator("img[src=x]").count() == 0


def test_who_is_too_fast_gets_everything_a_little_later(page, make_server, served_run, best, tmp_path, complaints):
    """Fewer requests than the page has pictures at once, and two or three a second: slower than machines show them."""
    settings = {"grading.path": str(tmp_path / "grades.sqlite"), "limits.burst": 12, "limits.requests_per_minute": 150}
    complaints.expected = "429"
    with make_server(load(None, settings, {}), served_run) as server:
        (collection,) = server.context.collections
        opened(page, f"{server.url}/c/{collection.slug}/candidates")
        pictures = page.locator(".card img")
        count = pictures.count()
        assert count == 2 * len(best)
        for number in range(count):
            pictures.nth(number).scroll_into_view_if_needed()
            expect(pictures.nth(number)).not_to_have_js_property("naturalWidth", 0)
        assert complaints
        page.goto("about:blank")
