"""Campaigns in a browser: by keys, many at a time, and on while the server is away."""

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect
from waiting import wait_for

from scanner.grading.campaign import Campaigns, Plan, Subject
from scanner.grading.grade import Place
from scanner.service.settings import load


@pytest.fixture
def settings(tmp_path):
    return load(None, {"grading.path": str(tmp_path / "grades.sqlite"), "limits.requests_per_minute": 0}, {})


@pytest.fixture
def served(served_run, make_server, settings):
    with make_server(settings, served_run) as running:
        yield running


@pytest.fixture(scope="module")
def places(rows):
    return [
        Place(f"{row['run']}/{row['tile_id']}/{row['target_id']}", row["name"], row["ra"], row["dec"])
        for row in rows.to_pylist()
    ]


def begin(served, places, **changes):
    plan = Plan(**{"name": "first", "selection": "top 12", "votes": 1, "seed": 5} | changes)
    return Campaigns(served.context.grades).create(plan, [Subject(one) for one in places])


def opened(page, served, name="Ann", at="/campaigns/first"):
    assert page.request.put(f"{served.url}/api/v1/grades/me", data={"name": name}).ok
    page.goto(f"{served.url}{at}")
    page.wait_for_selector("main[data-ready]")


def given(served):
    return {entry.candidate_id: entry.grade for entry in served.context.grades.standing() if entry.grade}


def test_from_the_list_to_the_last_object_by_keys(served, page, places):
    begin(served, places[:10])
    sizes = []
    page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
    page.goto(f"{served.url}/")
    page.wait_for_selector("main[data-ready]")
    page.keyboard.press("C")
    page.wait_for_selector("main[data-ready] section")
    assert "0 of 10 objects have 1 vote" in page.locator("#list").inner_text()
    sizes.clear()
    page.get_by_role("link", name="Grade next").click()
    page.fill("#who [name=name]", "Ann")
    page.press("#who [name=name]", "Enter")
    expect(page.locator("#candidate h2")).to_have_text(places[0].name)
    # The page was idle before this object, too: what it weighs is told as its pictures come.
    expect(page.locator("figure.loading")).to_have_count(0)
    wait_for("the weight of the pictures", lambda: page.wait_for_timeout(50) or sum(sizes) > 20_000)
    assert sum(sizes) < 300_000
    page.keyboard.press("1")
    page.keyboard.press("m")
    page.keyboard.type("an arc, c or x")
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    expect(page.locator("#candidate h2")).to_have_text(places[1].name)
    assert page.locator("#grading textarea").input_value() == ""
    # A slip, and back.
    page.keyboard.press("a")
    expect(page.locator("#candidate h2")).to_have_text(places[2].name)
    page.keyboard.press("u")
    expect(page.locator("#candidate h2")).to_have_text(places[1].name)
    expect(page.locator("[data-grade=A]")).to_have_attribute("aria-pressed", "true")
    for place in places[1:10]:
        expect(page.locator("#candidate h2")).to_have_text(place.name)
        page.keyboard.press("x")
    expect(page.locator("#said")).to_have_text("Nothing is left for you here: thank you.")
    expect(page.locator("#progress")).to_have_text("10 objects graded by you; 10 of 10 objects have 1 vote")
    assert given(served) == {one.candidate_id: "B" if one == places[0] else "X" for one in places[:10]}
    (entry,) = served.context.grades.history(places[0])
    assert (entry.comment, entry.tags) == ("an arc, c or x", ("arc",))
    assert [one.grade for one in served.context.grades.history(places[1])] == ["A", "X"]


def test_many_at_a_time_by_clicks_and_keys(served, page, places):
    begin(served, places, blind=True)
    opened(page, served)
    page.keyboard.press("g")
    stamps = page.locator(".stamps button")
    expect(stamps).to_have_count(min(24, len(places)))
    stamps.nth(1).click(click_count=2, delay=20)
    expect(stamps.nth(1)).to_have_attribute("aria-label", "Object 2: B")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("a")
    expect(stamps.nth(2)).to_have_attribute("aria-label", "Object 3: A")
    page.keyboard.press("S")
    expect(page.locator("#progress")).to_contain_text(f"{min(24, len(places))} objects graded by you")
    marks = given(served)
    assert [marks[one.candidate_id] for one in places[:5]] == ["X", "B", "A", "X", "X"]
    assert all(entry.blind for entry in served.context.grades.standing())


def test_known_answers_are_told_after_the_vote_and_by_nothing_before(served, page, places):
    asked, known = places[:6], places[6:26]
    subjects = [Subject(one) for one in asked] + [Subject(one, number % 2 == 0) for number, one in enumerate(known)]
    plan = Plan(name="first", selection="", votes=1, seed=4, blind=True, rate=0.4, feedback=True, order="random")
    Campaigns(served.context.grades).create(plan, subjects)
    opened(page, served)
    answer = {one.candidate_id: f"{'a lens' if number % 2 == 0 else 'no lens'}." for number, one in enumerate(known)}
    told = 0
    for number in range(1, 27):
        expect(page.locator("#progress")).to_have_text(f"{number - 1} object{'' if number == 2 else 's'} graded by you")
        if page.locator("#single").is_hidden():
            break
        page.keyboard.press("c")
        expect(page.locator("#progress")).to_contain_text(f"{number} object")
        last = max(served.context.grades.standing(salted=True), key=lambda entry: entry.number).candidate_id
        if last in answer:
            expect(page.locator("#said")).to_have_text(f"C: it was known before, and is {answer[last]}")
            told += 1
        else:
            assert "known before" not in page.locator("#said").inner_text()
        assert not any(one.name in page.content() or one.candidate_id in page.content() for one in places[:26])
    assert told >= 1
    assert {one.candidate_id for one in asked} <= set(given(served))


def test_votes_wait_in_the_browser_while_the_server_is_away_and_arrive_once(
    served_run, make_server, settings, page, places, complaints
):
    complaints.expected = "Failed to load resource"
    with make_server(settings, served_run) as served:
        begin(served, places[:12])
        opened(page, served)
        port = urlsplit(served.url).port
        # The server has it, and the answer is lost.
        lost = []

        def lose(route):
            if lost:
                route.continue_()
                return
            lost.append(route.fetch())
            route.abort()

        page.route("**/votes/**", lose)
        page.keyboard.press("a")
        expect(page.locator("#waiting")).to_be_visible()
        assert lost[0].ok
        expect(page.locator("#waiting")).to_be_hidden()
        assert given(served) == {places[0].candidate_id: "A"}
    for grade in "bcx":
        page.keyboard.press(grade)
    expect(page.locator("#waiting")).to_contain_text("3 grades of yours wait in this browser")
    # The tab may be closed meanwhile: what waits belongs to the browser.
    assert len(page.evaluate("Object.keys(localStorage).filter((name) => name.startsWith('scanner vote '))")) == 3
    page.goto("about:blank")
    with make_server(settings, served_run, port=port) as served:
        # Whoever sits down at the machine meanwhile does not send them as their own.
        opened(page, served, "Bob")
        assert page.locator("#waiting").is_hidden()
        assert len(given(served)) == 1
        opened(page, served)
        expect(page.locator("#progress")).to_contain_text("4 objects graded by you")
        assert given(served) == dict(zip([one.candidate_id for one in places[:4]], "ABCX", strict=True))
        assert {entry.grader for entry in served.context.grades.standing()} == {"Ann"}
        assert [len(served.context.grades.history(one)) for one in places[:4]] == [1, 1, 1, 1]
        assert page.evaluate("Object.keys(localStorage).filter((name) => name.startsWith('scanner vote '))") == []


def test_a_picture_is_enlarged_and_moved(served, page, places):
    begin(served, places[:3])
    opened(page, served)
    page.keyboard.press(".")
    picture = page.locator("#large img")
    assert picture.evaluate("(image) => image.style.transform") == "translate(0%, 0%) scale(1.5)"
    page.keyboard.press("]")
    page.keyboard.press("ArrowDown")
    assert picture.evaluate("(image) => image.style.transform") == "translate(-10%, -10%) scale(1.5)"
    page.mouse.move(800, 500)

    # Browsers lose turns of the wheel while they lay out a page, and begin anew after a pause.
    def is_whole():
        page.mouse.wheel(0, 100)
        page.wait_for_timeout(600)
        return picture.evaluate("(image) => image.style.transform") == "translate(0%, 0%) scale(1)"

    wait_for("the whole picture", is_whole)
    page.keyboard.press("ArrowRight")
    expect(picture).to_have_attribute("alt", "Colour composite of the object")
    page.keyboard.press("v")
    expect(page.locator("#stretch [name=stretch]")).to_have_value("log")
    page.keyboard.press("s")
    expect(page.locator("figure.loading")).to_have_count(0)
    assert "deflector=0" in page.locator("#pictures .band-vis img").get_attribute("src")


def test_who_leads_begins_one(served, page, places, complaints):
    complaints.expected = "400"
    opened(page, served, at="/campaigns")
    expect(page.locator("#learning-numbers")).to_contain_text("Learning takes 50 more lenses and 50 more others")
    page.locator("#new summary").click()
    form = page.locator("#new form")
    form.get_by_label("Name", exact=True).fill("made here")
    assert not form.locator("[name=name]").evaluate("(field) => field.checkValidity()")
    form.get_by_label("Name", exact=True).fill("made-here")
    form.get_by_label("How many").fill("6")
    form.get_by_label("Votes for each").fill("2")
    assert form.get_by_label("probable", exact=True).is_hidden()
    form.get_by_label("Order").select_option("queue")
    for reason, weight in zip(("probable", "uncertain", "different", "random"), "1000", strict=True):
        form.get_by_label(reason, exact=True).fill(weight)
    form.get_by_role("button", name="Begin").click()
    expect(page.locator("#list h2")).to_have_text("made-here running")
    found = served.context.campaigns.get("made-here")
    assert (found.plan.selection, found.plan.votes, found.plan.order, found.n_objects) == ("top 6", 2, "queue", 6)
    assert [one.subject.place for one in served.context.campaigns.hand_out("made-here", "Ann", 6)] == places[:6]
    # Once more: what is wrong is said, and the form stays as it is.
    page.locator("#new summary").click()
    form.get_by_label("Name", exact=True).fill("made-here")
    form.get_by_label("Objects").select_option("cone")
    assert form.get_by_label("How many").is_hidden()
    form.get_by_label("Part of the sky", exact=True).fill("1 2 3")
    form.get_by_role("button", name="Begin").click()
    expect(page.locator("#refused")).to_contain_text("No object was chosen")
    assert form.get_by_label("Part of the sky", exact=True).input_value() == "1 2 3"


def test_who_leads_pauses_and_closes(served, page, places):
    begin(served, places[:3])
    opened(page, served, at="/campaigns")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#list h2")).to_have_text("first paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#list h2")).to_have_text("first running")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#list h2")).to_have_text("first closed")
