"""Pictures of the web pages for these documents, taken of a running service.

``python docs/images/web_pages.py http://127.0.0.1:8420/ [RANK]``: the gallery, the page of the candidate of that rank, the
tiles, and how the first two look on a telephone, as WebP beside this file. Needs Chromium, Playwright and Pillow.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).parent
MOST_BYTES = 60_000
DESK, TELEPHONE = (1600, 1000), (400, 860)
#: Shown at this width; taken at twice the pixels of a page of 1600 would not be seen.
WIDTH = 1120
GAP = 24
#: Whether the pictures of the window are there.
SHOWN = """() => [...document.images].every(
    (one) => one.naturalWidth || !one.offsetWidth || one.getBoundingClientRect().top > innerHeight)"""


def taken(browser: Browser, address: str, ready: str, size: tuple[int, int], scheme: str = "light") -> Image.Image:
    """One page as it looks in a window of ``size`` once ``ready`` is there and its pictures are."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page.goto(address)
    page.wait_for_selector(ready)
    page.wait_for_load_state("networkidle")
    page.wait_for_function(SHOWN, timeout=300_000)
    picture = Image.open(io.BytesIO(page.screenshot()))
    page.close()
    return picture


def write(name: str, picture: Image.Image) -> None:
    """Write a WebP of no more than :data:`MOST_BYTES`."""
    picture = picture.convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    for quality in range(80, 20, -4):
        stream = io.BytesIO()
        picture.save(stream, "WEBP", quality=quality, method=6)
        if stream.tell() <= MOST_BYTES:
            break
    (FOLDER / name).write_bytes(stream.getvalue())
    print(f"{name}: {picture.width}x{picture.height}, quality {quality}, {stream.tell() / 1000:.0f} kB")


def main() -> None:
    """Take them all."""
    service, rank = sys.argv[1].rstrip("/"), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        asked = browser.new_page()
        asked.goto(service)
        gallery = asked.locator(".button.first").first.get_attribute("href") or ""
        asked.goto(f"{service}{gallery}?min_rank={rank}")
        candidate = asked.locator(".card .open").first.get_attribute("href") or ""
        asked.close()
        write("pages-gallery.webp", taken(browser, service + gallery, ".card", DESK))
        write("pages-candidate.webp", taken(browser, service + candidate, "main[data-ready]", DESK))
        tiles = gallery.removesuffix("candidates") + "tiles"
        write("pages-tiles.webp", taken(browser, service + tiles, "main[data-ready]", DESK, "dark"))
        small = [
            taken(browser, service + gallery, ".card", TELEPHONE),
            taken(browser, service + candidate, "main[data-ready]", TELEPHONE),
        ]
        both = Image.new("RGB", (2 * TELEPHONE[0] + GAP, TELEPHONE[1]), "white")
        for number, picture in enumerate(small):
            both.paste(picture, (number * (TELEPHONE[0] + GAP), 0))
        write("pages-telephone.webp", both)
        browser.close()


if __name__ == "__main__":
    main()
