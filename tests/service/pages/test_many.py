"""The gallery over very many candidates: as near at the end as at the beginning, and no larger."""

import re
import shutil
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow as pa
import pytest
from damage import resealed
from made_catalogue import made_rows
from playwright.sync_api import expect
from waiting import wait_for

from scanner.atomic_file import tree_sha256
from scanner.catalogue import columns
from scanner.catalogue.hats import write_hats
from scanner.service.settings import load
from scanner.sphere import healpix_29

N = 200_000
COPIES = 10


def many_rows():
    """Very many candidates: copies of fewer, each at a place of its own."""
    random = np.random.default_rng(4)
    sky = np.degrees(np.arcsin(random.uniform(-0.9, -0.3, N)))
    few = made_rows(random.uniform(20, 110, N // COPIES), sky[: N // COPIES], seed=5)
    rows = pa.concat_tables([few] * COPIES).combine_chunks()
    ra = random.uniform(20, 110, N)
    values = {
        "target_id": np.arange(N),
        "ra": ra,
        "dec": sky,
        "_healpix_29": healpix_29(ra, sky),
        "p_calibrated": np.linspace(1, 0, N, dtype=np.float32),
        "is_candidate": np.ones(N, dtype=bool),
        "rank": np.arange(1, N + 1),
        "system_id": np.arange(1, N + 1),
    }
    for name, value in values.items():
        rows = columns.with_column(rows, columns.column(name), value, rows.schema.get_field_index(name))
    return rows


@pytest.fixture(name="address", scope="module")
def address_fixture(served_run, make_server, tmp_path_factory):
    """The gallery of a run folder whose catalogue is that of a large survey; its cutouts are gone."""
    folder = tmp_path_factory.mktemp("many")
    for name in ("run.json", "tiles.parquet", "footprint.fits"):
        shutil.copy(served_run / name, folder / name)
    write_hats(many_rows(), folder / "catalogue", "scanner")
    resealed(folder / "run.json", sha256=tree_sha256(folder))
    config = load(None, {"grading.path": str(folder / "grades.sqlite"), "limits.requests_per_minute": 0}, {})
    with make_server(config, folder) as server:
        (collection,) = server.context.collections
        yield f"{server.url}/c/{collection.slug}/candidates"


@pytest.fixture(autouse=True)
def _no_pictures(complaints):
    """There are no pictures, and the browser says so."""
    complaints.expected = "404"


def loaded(page, address):
    """Requests of the API until the first cards of a list are there, and the first rank."""
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/api/" in request.url else None)
    page.goto(address)
    page.wait_for_selector(".card")
    return len(asked), page.locator(".card .rank").first.inner_text()


def test_the_last_is_as_near_as_the_first(page, address):
    first, rank = loaded(page, address)
    assert rank == "1"
    expect(page.locator("#count")).to_have_text("200,000 objects")
    last, rank = loaded(page, f"{address}?min_rank=199990")
    assert rank == "199,990"
    expect(page.locator(".end")).to_have_text("That is all.")
    assert page.locator(".card").count() == 11
    assert last <= first


def test_no_more_is_loaded_than_is_seen(page, address, server, listed_ids):
    lists, sizes, pictures = [], [], []

    def real_picture(route):
        query = {name: values[0] for name, values in parse_qs(urlsplit(route.request.url).query).items()}
        answer = server.get("/cutout", params=query | {"id": listed_ids[len(pictures) % len(listed_ids)]})
        pictures.append(len(answer.content))
        route.fulfill(body=answer.content, content_type=answer.headers["Content-Type"])

    def finished(request):
        if "/cutout?" not in request.url:
            sizes.append(request.sizes()["responseBodySize"])
            lists.extend([request.url] * ("candidates?" in request.url and "/api/" in request.url))

    page.route("**/cutout?**", real_picture)
    page.on("requestfinished", finished)
    loaded(page, address)
    page.wait_for_load_state("networkidle")
    assert len(lists) == 1
    assert len(pictures) >= 20
    assert np.mean(pictures) > 1000
    assert 50_000 < sum(sizes) + sum(pictures) < 300_000


def test_a_long_way_down_and_back(page, address):
    loaded(page, address)

    # Not by the wheel: a browser that loses its first turn, while the page is being laid out, loses all that follow at once.
    def is_far_down():
        page.evaluate("scrollBy(0, 6000)")
        page.wait_for_timeout(50)
        return page.locator("#candidates .page").count() >= 15

    wait_for("fifteen pages", is_far_down)
    # Of the pages that were seen, only those near the window have elements.
    assert page.locator(".card").count() <= 6 * 60
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator(".card .rank").first).to_have_text("1")
    assert page.locator(".card").count() <= 6 * 60


def test_filters_and_the_density_of_all(page, address):
    loaded(page, address)
    page.fill("[name=max_score]", "0.25")
    expect(page.locator(".card .rank").first).to_have_text("150,001")
    expect(page.locator("#count")).to_have_text("50,000 objects")
    page.fill("[name=cone]", "60 -40 1deg")
    expect(page.locator("#count")).to_have_text(re.compile(r"^\d{1,3} objects$"))
    assert page.locator(".card").count() > 10
