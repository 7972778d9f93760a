"""Lens models in a browser: the mark and the filter of the list, the numbers and the panels of an object's page."""

from playwright.sync_api import expect


def test_the_list_marks_and_filters_certified_models(page, modelled_server, listed_ids):
    (collection,) = modelled_server.context.collections
    page.goto(f"{modelled_server.url}/c/{collection.slug}/candidates?systems=false")
    marked = page.locator(".card:has(.certified)")
    expect(marked).to_have_count(1)
    assert marked.get_attribute("data-id") == listed_ids[0]
    assert "1.25″ ± 0.04″" in page.locator(".certified").get_attribute("title")
    page.locator("[name=verdict]").select_option("refused")
    expect(page.locator(".card")).to_have_count(1)
    assert page.locator(".card").get_attribute("data-id") == listed_ids[1]


def test_the_page_of_an_object_shows_its_model(page, modelled_server, listed_ids):
    (collection,) = modelled_server.context.collections
    address = f"{modelled_server.url}/c/{collection.slug}/candidates"
    page.goto(f"{address}/{listed_ids[0]}")
    page.wait_for_selector("main[data-ready]")
    facts = page.locator("#model-facts").inner_text()
    for text in (
        "certified",
        "1.250″ ± 0.040″",
        "72° east of north",
        "31.5",
        "0.93",
        "42, of the counter-image 12",
        "0.90, without a lens 0.96",
    ):
        assert text in facts
    picture = page.locator("#lens-model img")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("(image) => image.naturalWidth === 916", arg=picture.element_handle())
    page.goto(f"{address}/{listed_ids[1]}")
    page.wait_for_selector("main[data-ready]")
    assert page.locator("#lens-model img").count() == 0
    assert "refused" in page.locator("#model-facts").inner_text()


def test_without_models_there_is_no_place_for_them(page, server, listed_ids):
    (collection,) = server.context.collections
    page.goto(f"{server.url}/c/{collection.slug}/candidates/{listed_ids[0]}")
    page.wait_for_selector("main[data-ready]")
    assert page.locator("#lens-model").count() == 0
    page.goto(f"{server.url}/c/{collection.slug}/candidates")
    page.wait_for_selector(".card")
    assert page.locator("[name=verdict]").count() == 0
