"""A real browser over the real server."""

import programs
import pytest
from playwright.sync_api import expect, sync_playwright
from waiting import LIMIT_S


# Not for the session: while Playwright is open, no other test of this thread can run an event loop.
@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; the test is skipped where there is none."""
    program = programs.needed("chromium", "chromium-browser", "google-chrome", target="debian")
    with sync_playwright() as playwright:
        # Where there is no GPU, one that is imitated for pages without any 3D costs a seventh of the processor time.
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


class Complaints(list):
    """What the browser's console said that was no good: errors of scripts, what the content security policy forbade.

    ``expected``: a word of those that a test provokes, such as the status that the browser itself complains of.
    """

    expected = None

    def hear(self, page):
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", lambda message: self.append(message.text) if message.type in ("error", "warning") else None)


@pytest.fixture
def complaints():
    """Empty at the end of every test that does not expect any."""
    heard = Complaints()
    yield heard
    assert [text for text in heard if heard.expected is None or heard.expected not in text] == []


@pytest.fixture
def page(browser, complaints):
    """A fresh tab of 1600 pixels."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(1000 * LIMIT_S)
    expect.set_options(timeout=1000 * LIMIT_S)
    tab = context.new_page()
    complaints.hear(tab)
    yield tab
    context.close()
