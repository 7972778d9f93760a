"""What holds for every page: it fits its window, can be read and used without a mouse, and obeys its own policy."""

import math

import pytest
from playwright.sync_api import expect

from scanner.grading.campaign import Plan, Subject
from scanner.grading.grade import Place

WIDTHS = (400, 1600)
#: Least contrast of small text against what it stands on (WCAG 2.2, AA).
LEAST_CONTRAST = 4.5

#: Text with its ink and the first ground behind it that is not see-through.
TEXTS = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest('svg, figure, .unseen, .skip, :disabled, .card a')) continue;
    let behind = element;
    let ground = [0, 0, 0, 0];
    while (behind && (ground[3] ?? 1) < 1) {
      ground = parse(getComputedStyle(behind).backgroundColor);
      behind = behind.parentElement;
    }
    found.push([element.textContent.trim().slice(0, 40), parse(getComputedStyle(element).color), ground]);
  }
  return found;
}"""
#: Controls without a name that a screen reader could say.
NAMELESS = """() => [
  ...document.querySelectorAll('button, a[href], input, select, textarea, img, [role=img]'),
].filter((element) => {
  if (!element.checkVisibility() || element.type === 'hidden') return false;
  const named = element.querySelector('img[alt]:not([alt=""])') || element.getAttribute('aria-label')
    || element.getAttribute('aria-labelledby') || element.hasAttribute('alt');
  return !(named || element.labels?.length || element.textContent.trim());
}).map((element) => element.outerHTML)"""


@pytest.fixture(name="addresses", scope="module")
def addresses_fixture(server, modelled_server, listed_ids):
    (collection,) = server.context.collections
    here = f"{server.url}/c/{collection.slug}"
    modelled = f"{modelled_server.url}/c/{modelled_server.context.collections.default.slug}"
    row = collection.find(listed_ids[0]).to_pylist()[0]
    asked = [Subject(Place(listed_ids[0], row["name"], row["ra"], row["dec"]))]
    server.context.campaigns.create(Plan(name="looks", selection="the best", seed=1), asked)
    return {
        "start": f"{server.url}/",
        "gallery": f"{here}/candidates",
        "candidate": f"{here}/candidates/{listed_ids[0]}",
        "modelled": f"{modelled}/candidates/{listed_ids[0]}",
        "moved": f"{modelled}/moved",
        "tiles": f"{here}/tiles",
        "login": f"{server.url}/login",
        "campaigns": f"{server.url}/campaigns",
        "campaign": f"{server.url}/campaigns/looks",
        "missing": f"{here}/nothing",
    }


def luminance(rgb):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (channel / 255 for channel in rgb[:3])]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    "name", ["start", "gallery", "candidate", "modelled", "moved", "tiles", "login", "missing", "campaigns", "campaign"]
)
def test_fits_and_can_be_read(page, addresses, server, name, complaints):
    complaints.expected = "404" if name == "missing" else None
    if name == "campaign":
        assert page.request.put(f"{server.url}/api/v1/grades/me", data={"name": "Ann"}).ok
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": WIDTHS[0], "height": 800})
        page.goto(addresses[name])
        page.wait_for_selector("main[data-ready], .card, main:has(form[method=post]), main:has(.problem)")
        if name == "campaigns":
            page.locator("#new summary").click()
            page.select_option("#new [name=order]", "queue")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        weak = [(text, ink, ground) for text, ink, ground in page.evaluate(TEXTS) if contrast(ink, ground) < LEAST_CONTRAST]
        assert weak == []
        if name == "campaign":
            page.keyboard.press("g")
            page.wait_for_selector(".stamps button, #single:not([hidden])")
    assert page.evaluate(NAMELESS) == []
    assert page.locator("h1").count() == 1


def test_the_choice_of_colours_stays(page, addresses):
    page.emulate_media(color_scheme="light")
    page.goto(addresses["login"])
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != ground
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_start_page_leads_to_the_candidates(page, addresses, server, rows):
    (collection,) = server.context.collections
    page.goto(addresses["start"])
    page.wait_for_selector("main[data-ready]")
    panel = page.locator(".collection").inner_text()
    assert f"{collection.n_candidates} candidates among {collection.catalogue.n_rows} objects" in panel
    assert f"{server.url}/tap" in page.locator(".addresses").inner_text()
    page.get_by_role("link", name="Look at the best").click()
    systems = [row for row in rows.to_pylist() if row["system_id"] == row["rank"]]
    expect(page.locator(".card")).to_have_count(len(systems))


def test_tiles_with_their_numbers_and_the_scores(page, addresses, server, rows):
    (collection,) = server.context.collections
    page.goto(addresses["tiles"])
    page.wait_for_selector("main[data-ready]")
    shown = [line.split("\t") for line in page.locator("#tiles tbody").inner_text().splitlines()]
    of_tiles = {row["tile_id"]: row for row in collection.tiles.to_pylist()}
    assert {line[0] for line in shown} == set(of_tiles)
    assert [int(line[2]) for line in shown] == sorted((row["n_candidates"] for row in of_tiles.values()), reverse=True)
    chosen = [row["p_calibrated"] for row in rows.to_pylist() if row["is_candidate"]]
    said = page.locator("#expected").inner_text()
    assert float(said.split()[0]) == pytest.approx(math.fsum(chosen), rel=0.01)
    assert f"among {len(chosen)} candidates" in said
    assert page.locator("#calibrated rect.chosen").count() > 0
    page.fill("#find", shown[0][0])
    expect(page.locator("#tiles tbody tr")).to_have_count(1)
    page.locator("#tiles tbody a").first.click()
    page.wait_for_selector(".card")
    assert page.input_value("[name=tile]") == shown[0][0]


def test_help_by_key_and_by_button(page, addresses):
    page.goto(addresses["candidate"])
    page.wait_for_selector("main[data-ready]")
    page.keyboard.press("?")
    text = page.locator("#help").inner_text()
    assert all(words in text for words in ("Next object", "Grade A", "Brighter", "Start page"))
    page.locator("#help .close").click()
    expect(page.locator("#help")).to_be_hidden()
    page.locator("#help-button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#help")).to_be_visible()


def test_files_keep_their_meaning_for_ever(server):
    text = server.get("/").text
    style = text.split('rel="stylesheet" href="')[1].split('"')[0]
    answer = server.get(style)
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]
    assert "immutable" not in server.get(f"/static/old/{style.rpartition('/')[2]}").headers["cache-control"]
    for wrong in ("/static/x/nothing.js", "/static/x/..%2froutes.py", "/static/x/%2e%2e/routes.py", "/static/x/routes.py"):
        assert server.get(wrong).status_code == 404


def test_no_page_has_anything_inline(server, addresses):
    for address in addresses.values():
        answer = server.client.get(address)
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "style=" not in answer.text
        assert "onclick=" not in answer.text
    framed = server.get("/aladin").headers
    assert framed["content-security-policy"].startswith("sandbox allow-scripts;")
    assert framed["x-frame-options"] == "SAMEORIGIN"
