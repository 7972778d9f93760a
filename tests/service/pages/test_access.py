"""The pages behind a token and below a path of another server, in a browser."""

import pytest
from playwright.sync_api import expect

from scanner.service.security import new_token
from scanner.service.settings import load


def test_a_browser_shows_its_token_once(page, make_server, served_run, tmp_path, complaints):
    token, line = new_token("Ada", "grade")
    (tmp_path / "tokens.txt").write_text(f"{line}\n")
    settings = {"grading.path": str(tmp_path / "grades.sqlite"), "access.tokens": str(tmp_path / "tokens.txt")}
    complaints.expected = "401"
    with make_server(load(None, settings, {}), served_run) as server:
        (collection,) = server.context.collections
        page.goto(f"{server.url}/c/{collection.slug}/candidates?sort=ra")
        assert "/login" in page.url
        page.fill("[name=token]", "wrong")
        page.get_by_role("button", name="Enter").click()
        expect(page.locator("[role=alert]")).to_contain_text("not known")
        page.go_back()
        page.fill("[name=token]", token)
        page.get_by_role("button", name="Enter").click()
        page.wait_for_selector(".card")
        assert page.url.endswith("/candidates?sort=ra")
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Ada: leave").click()
        page.wait_for_selector("[name=token]")
        page.goto("about:blank")


@pytest.mark.parametrize("kept", ["/lenses", ""])
def test_below_a_path_of_another_server(page, make_server, served_run, tmp_path, kept):
    """Whether the proxy keeps its prefix or removes it, every address that the pages make has it."""
    settings = {"grading.path": str(tmp_path / "grades.sqlite"), "http.base_url": "http://127.0.0.1/lenses"}
    with make_server(load(None, settings, {}), served_run) as server:
        (collection,) = server.context.collections
        asked = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(server.url)))
        if not kept:
            page.context.route("**/lenses/**", lambda route: route.continue_(url=route.request.url.replace("/lenses/", "/")))
        page.goto(f"{server.url}/lenses/c/{collection.slug}/candidates")
        page.wait_for_selector(".card")
        page.locator(".card .open").first.click()
        page.wait_for_selector("main[data-ready]")
        assert page.locator("#scores .score").count() == 9
        assert all(address.startswith("/lenses/") for address in asked)
        page.goto("about:blank")
