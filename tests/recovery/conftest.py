"""A recovery of lenses that were drawn from a known law."""

import pyarrow.parquet as pq
import pytest
from painted import drawn_sky, painted_table, pictures, run_of

from scanner.config import StorageConfig
from scanner.recovery import products
from scanner.recovery.lenses import LENSES, PICTURES
from scanner.recovery.purity import Assumptions
from scanner.storage import open_store


@pytest.fixture(scope="session")
def drawn():
    """A sky of 20 square degrees with eight visible lenses in each."""
    return drawn_sky(1)


@pytest.fixture(scope="session")
def recovery(drawn, tmp_path_factory):
    """Folder of 4,000 lenses painted into it, and what comes of them; only to be read."""
    folder = tmp_path_factory.mktemp("drawn") / "recovery"
    folder.mkdir()
    pq.write_table(painted_table(2, 4000, drawn), folder / LENSES)
    (folder / PICTURES).write_bytes(pictures())
    products.write(open_store(str(folder), StorageConfig()), run_of(drawn), Assumptions())
    return folder
