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


def test_objects_like_one_and_like_a_file_of_the_readers_own(page, modelled_server, listed_ids, tmp_path, complaints):
    (collection,) = modelled_server.context.collections
    here = f"api/v1/collections/{collection.slug}/candidates/{listed_ids[0]}/similar"
    wanted = modelled_server.get(f"/{here}", params={"limit": 18}).json()["items"]
    page.goto(f"{modelled_server.url}/c/{collection.slug}/candidates/{listed_ids[0]}")
    page.wait_for_selector("main[data-ready]")
    stamps = page.locator("#similar .stamps a")
    titles = "(all) => all.map((one) => one.title.split(',')[0])"
    assert stamps.evaluate_all(titles) == [item["name"] for item in wanted]
    assert stamps.first.inner_text() == f"{wanted[0]['similarity']:.2f}, rank {wanted[0]['rank']}"
    file = tmp_path / "mine.fits"
    file.write_bytes(modelled_server.get("/cutout", params={"id": listed_ids[5]}).content)
    page.set_input_files("#similar input", file)
    expect(page.locator("#similar [role=status]")).to_contain_text("Like mine.fits")
    page.locator("#similar .stamps a").first.click()
    page.wait_for_url(f"**/{listed_ids[5]}")
    page.wait_for_selector("main[data-ready]")
    complaints.expected = "400"
    file.write_bytes(b"none")
    page.set_input_files("#similar input", file)
    expect(page.locator("#similar .problem")).to_contain_text("needs the extensions VIS")


def test_who_moved_is_a_page_of_runs_that_were_scored_again(page, modelled_server, server, rows):
    (collection,) = modelled_server.context.collections
    names = rows["name"].to_pylist()[:4]
    page.goto(f"{modelled_server.url}/c/{collection.slug}/tiles")
    page.get_by_role("link", name="Who moved").click()
    page.wait_for_selector("main[data-ready]")
    expect(page.locator("#summary")).to_have_text("From old 1 to new 2: 4 objects among the best before or now.")
    lines = page.locator("#moved tbody tr")
    assert [line.split("\t")[1:] for line in lines.all_inner_texts()] == [
        [names[2], "not among them", "3", "–", "0.400", "now"],
        [names[0], "2", "1", "0.200", "0.900", "now"],
        [names[1], "1", "2", "0.600", "0.500", "as before"],
        [names[3], "9", "not among them", "0.100", "–", "no longer"],
    ]
    page.select_option("#order", "down")
    expect(lines).to_have_count(2)
    page.get_by_role("link", name=names[1]).click()
    expect(page.locator("h1")).to_have_text(names[1])
    (other,) = server.context.collections
    page.goto(f"{server.url}/c/{other.slug}/tiles")
    page.wait_for_selector("main[data-ready]")
    assert page.get_by_role("link", name="Who moved").count() == 0


def test_without_models_there_is_no_place_for_them(page, server, listed_ids):
    (collection,) = server.context.collections
    page.goto(f"{server.url}/c/{collection.slug}/candidates/{listed_ids[0]}")
    page.wait_for_selector("main[data-ready]")
    assert page.locator("#lens-model").count() == 0
    page.goto(f"{server.url}/c/{collection.slug}/candidates")
    page.wait_for_selector(".card")
    assert page.locator("[name=verdict]").count() == 0
