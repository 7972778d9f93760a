"""Grading by keyboard in a browser: keys, comments, undo, history, blind mode."""

import re

import pytest
from playwright.sync_api import expect

from scanner.service.security import new_token
from scanner.service.settings import load


@pytest.fixture
def served(served_run, make_server, tmp_path):
    with make_server(load(None, {"grading.path": str(tmp_path / "grades.sqlite")}, {}), served_run) as running:
        yield running


@pytest.fixture
def blind(served_run, make_server, tmp_path):
    """A server where Ann grades blind, and her token."""
    token, line = new_token("Ann", "grade")
    (tmp_path / "tokens").write_text(str(line))
    settings = {
        "grading.path": str(tmp_path / "grades.sqlite"),
        "grading.blind": "true",
        "access.tokens": str(tmp_path / "tokens"),
    }
    with make_server(load(None, settings, {}), served_run) as running:
        yield running, token


def where(served, candidate_id):
    return f"{served.url}/c/{served.context.collections.default.slug}/candidates/{candidate_id}"


def opened(page, address):
    page.goto(address)
    page.wait_for_selector("#grading[data-ready]")


def signed_in(page, address, name="Ann"):
    opened(page, address)
    page.fill("#grading [name=name]", name)
    page.press("#grading [name=name]", "Enter")
    expect(page.locator("#grading h2")).to_have_text(f"Grade by {name}")


def standing(served):
    return {entry.candidate_id: (entry.grader, entry.grade, entry.comment) for entry in served.context.grades.standing()}


def test_a_list_is_graded_by_keyboard(served, page, listed_ids):
    signed_in(page, where(served, listed_ids[0]))
    for place, key in enumerate("abx"):
        page.wait_for_url(where(served, listed_ids[place]))
        page.wait_for_selector("#grading[data-ready]")
        page.keyboard.press(key)
    page.wait_for_url(where(served, listed_ids[3]))
    assert standing(served) == dict(zip(listed_ids, [("Ann", grade, "") for grade in "ABX"], strict=False))
    # A slip: undo from the next candidate on takes back, and goes back.
    page.wait_for_selector("#grading[data-ready]")
    page.keyboard.press("u")
    page.wait_for_url(where(served, listed_ids[2]))
    assert listed_ids[2] not in standing(served)
    page.wait_for_selector("#grading[data-ready]")
    page.keyboard.press("n")
    page.wait_for_url(where(served, listed_ids[3]))


def test_a_grader_hears_what_was_kept_and_sees_how_far_the_list_is(served, page, listed_ids):
    opened(page, where(served, listed_ids[0]))
    page.keyboard.press("a")
    expect(page.locator("#grading .told")).to_have_text("Say who you are first.")
    # The key led to the field that is asked for.
    page.keyboard.type("Ann")
    page.keyboard.press("Enter")
    expect(page.locator("#grading .progress")).to_have_text(f"0 of {len(listed_ids)} graded")
    page.locator("h1").click()
    name = page.locator("h1").inner_text()
    page.keyboard.press("a")
    page.wait_for_url(where(served, listed_ids[1]))
    expect(page.locator("#grading [role=status]")).to_have_text(f"A is kept for {name}.")
    expect(page.locator("#grading .progress")).to_have_text(f"1 of {len(listed_ids)} graded")


def test_a_list_by_chance_is_gone_through_without_what_is_graded(served, page, listed_ids):
    """Random order and the filter of ungraded objects, from the gallery to the object and on with the keys."""
    signed_in(page, where(served, listed_ids[0]))
    page.goto(f"{where(served, '')[:-1]}?sort=random&seed=3&systems=false")
    page.wait_for_selector(".card")
    shuffled = page.locator(".card").evaluate_all("(cards) => cards.map((card) => card.dataset.id)")
    assert sorted(shuffled) == sorted(listed_ids) != shuffled
    expect(page.locator("#count")).to_have_text(f"{len(listed_ids)} objects, 0 graded by you")
    assert page.locator("#seed input").input_value() == "3"
    page.locator(".card .open").first.click()
    page.wait_for_selector("#grading[data-ready]")
    page.keyboard.press("x")
    page.wait_for_url(where(served, shuffled[1]))
    page.wait_for_selector("#grading[data-ready]")
    page.keyboard.press("n")
    page.wait_for_url(where(served, shuffled[2]))
    page.wait_for_selector("main[data-ready]")
    page.keyboard.press("Escape")
    page.wait_for_selector(".card")
    page.select_option("[name=graded]", "no")
    expect(page.locator("#count")).to_have_text(f"{len(listed_ids) - 1} objects, 0 graded by you")
    assert page.locator(".card").evaluate_all("(cards) => cards.map((card) => card.dataset.id)") == shuffled[1:]


def test_single_keys_can_be_switched_off(served, page, listed_ids):
    signed_in(page, where(served, listed_ids[0]))
    page.click("#help-button")
    page.uncheck("#single-keys")
    page.reload()
    page.wait_for_selector("#grading[data-ready]")
    page.keyboard.press("a")
    page.keyboard.press("?")
    assert page.locator("#help").is_hidden()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(where(served, listed_ids[1]))
    assert standing(served) == {}


def test_single_keys_of_the_contact_sheet_can_be_switched_off_too(served_run, page):
    page.goto((served_run / "candidates.html").as_uri())
    page.keyboard.press("c")
    assert page.locator("#field").input_value() == ""
    page.locator(".legend summary").click()
    page.uncheck("#single-keys")
    page.reload()
    page.keyboard.press("c")
    assert page.locator("#field").input_value() == "near"


def test_a_grade_given_before_the_next_candidate_is_known_goes_on_to_it(served, page, listed_ids):
    signed_in(page, where(served, listed_ids[0]))
    held = []
    page.route(re.compile(r"/api/v1/collections/[^/]+/candidates/[^/]+/[^/]+/[^/?]+$"), lambda route: held.append(route))
    page.reload()
    page.wait_for_selector("#grading[data-ready]")
    page.keyboard.press("b")
    expect(page.locator("#grading .told")).to_have_text("B is kept.")
    for route in held:
        route.continue_()
    page.wait_for_url(where(served, listed_ids[1]))


def test_comment_history_and_agreement_are_shown_as_text(served, page, listed_ids):
    (collection,) = served.context.collections
    here = listed_ids[0]
    signed_in(page, where(served, here), "Bob")
    page.uncheck("#grading [name=advance]")
    page.keyboard.press("m")
    page.keyboard.type("<img src=x onerror=alert(1)> & an arc, c or x")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.keyboard.press("c")
    expect(page.locator("#grading .told")).to_have_text("C is kept.")
    assert served.context.grades.standing()[0].tags == ("ring",)
    assert ", ring" in page.locator("#grading .history").inner_text()
    expect(page.locator("#grading [data-grade=C]")).to_have_attribute("aria-pressed", "true")
    assert standing(served) == {here: ("Bob", "C", "<img src=x onerror=alert(1)> & an arc, c or x")}
    assert page.locator("#grading .history .words").inner_text() == "<img src=x onerror=alert(1)> & an arc, c or x"
    assert page.locator("#grading .history img").count() == 0
    # Another person, by hand.
    served.context.grades.give(served.context.grades.places()[1][0], "Cyd", "A")
    page.reload()
    page.wait_for_selector("#grading[data-ready]")
    assert page.locator("#grading .history li").count() == 2
    page.keyboard.press("u")
    expect(page.locator("#grading .told")).to_have_text("Taken back.")
    assert [line.partition(" 2")[0] for line in page.locator("#grading .history li").all_inner_texts()] == [
        "Bob: took a grade back", "Cyd: A", "Bob: C",
    ]  # fmt: skip
    expect(page.locator("#grading .history li.past")).to_have_count(2)
    page.click("#grading [data-grade=B]")
    expect(page.locator("#grading .told")).to_have_text("B is kept.")
    page.click("#grading summary")
    expect(page.locator("#grading .agreement td").first).to_have_text("Bob, Cyd")
    assert "1 by two or more" in page.locator("#grading .agreement").inner_text()
    assert collection.slug in page.locator("#grading .history").inner_text()


def test_a_grade_waits_while_the_service_does_not_answer(served, page, listed_ids, complaints):
    complaints.expected = "Failed to load resource"
    signed_in(page, where(served, listed_ids[0]))
    page.route("**/api/v1/grades/**", lambda route: route.abort())
    page.keyboard.press("b")
    expect(page.locator("#grading .told")).to_contain_text("B waits in this browser")
    page.unroute("**/api/v1/grades/**")
    expect(page.locator("#grading .told")).to_have_text("What waited here is kept now.")
    assert standing(served) == {listed_ids[0]: ("Ann", "B", "")}


def test_blind_graders_see_scores_after_their_grade(blind, page, complaints, listed_ids):
    served, token = blind
    page.goto(f"{served.url}/login")
    page.fill("[name=token]", token)
    page.press("[name=token]", "Enter")
    page.wait_for_url(f"{served.url}/")
    opened(page, where(served, listed_ids[1]))
    expect(page.locator("#scores")).to_have_text("Withheld until you have graded this object.")
    expect(page.locator("#grading .withheld")).to_be_visible()
    page.uncheck("#grading [name=advance]")
    page.keyboard.press("b")
    expect(page.locator("#scores .members")).to_be_visible()
    expect(page.locator("#grading .withheld")).to_be_hidden()
    assert ", blind" in page.locator("#grading .history li").inner_text()
    # Other candidates' scores stay closed, and the browser says so of each.
    assert [text for text in complaints if "403" not in text] == []
    complaints.clear()
