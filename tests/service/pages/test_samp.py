"""Lists and cutouts sent from a page to a program of the reader's machine, over a real hub."""

import io
import re

import pytest
from astropy.io import fits
from astropy.table import Table
from playwright.sync_api import expect
from samp_hub import running
from waiting import LIMIT_S

HUB = "http://localhost:21012/"


@pytest.fixture(name="program")
def program_fixture(page, tmp_path):
    """A hub at a port of its own: the one that pages know may be another test's."""
    with running(tmp_path) as (hub, program):
        page.route(f"{HUB}**", lambda route: route.continue_(url=f"http://localhost:{hub._web_port}/"))
        yield program


def sent(page):
    page.locator("#send").click()
    expect(page.locator("#sent")).to_have_text("Sent to 1 program.")


def test_a_list_and_a_cutout_are_loaded(page, server, rows, program):
    (collection,) = server.context.collections
    page.goto(f"{server.url}/c/{collection.slug}/candidates?sort=magnitude_vis")
    page.wait_for_selector(".card")
    shown = page.locator(".card .name").all_inner_texts()
    sent(page)
    message, name, content = program.loaded(LIMIT_S)
    table = Table.read(io.BytesIO(content), format="votable")
    assert (message, name) == ("table.load.votable", f"{collection.title}: best objects")
    assert table["name"].tolist()[: len(shown)] == shown
    page.locator(".card a").first.click()
    page.wait_for_selector("main[data-ready]")
    sent(page)
    message, name, content = program.loaded(LIMIT_S)
    with fits.open(io.BytesIO(content)) as file:
        assert (message, name, file["VIS"].data.shape) == ("image.load.fits", f"{shown[0]} VIS", (200, 200))


def test_without_a_hub_a_sentence_says_what_to_start(page, server, complaints):
    complaints.expected = "ERR_"
    (collection,) = server.context.collections
    page.route(f"{HUB}**", lambda route: route.abort("connectionrefused"))
    page.goto(f"{server.url}/c/{collection.slug}/candidates")
    page.locator("#send").click()
    expect(page.locator("#sent")).to_have_text(re.compile("start TOPCAT or Aladin"))
