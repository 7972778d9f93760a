"""A few little tiles and their undisturbed run, for tests that disturb one."""

import json

import pytest
from disturbed.little_tiles import write_little_tiles
from disturbed.processes import Processes
from disturbed.results import promised
from once import made_once
from scans import light_bundle

from scanner.config import StorageConfig

#: Cutouts of every object, as they are: three quarters of a megabyte a tile.
SETTINGS = {
    "SCANNER_TARGETS__MAGNITUDE_LIMIT": "none",
    "SCANNER_TARGETS__MIN_AREA_PIXELS": "0",
    "SCANNER_CUTOUTS__KEEP": "all",
    "SCANNER_CUTOUTS__CODEC": "exact",
    "SCANNER_ENGINE__WORKERS": "1",
}
N_TILES = 8


class FewTiles:
    """Eight tiles, six of which can be scanned; ``expected``: what their run gives."""

    n_tiles, n_good = N_TILES, N_TILES - 2

    def __init__(self, sky, tmp_path_factory):
        folder = made_once(tmp_path_factory, "few-tiles", lambda folder: self._make(sky, folder))
        self.bundle = folder / "bundle"
        self.listed = folder / "tiles" / "tile-list.txt"
        self.expected = json.loads((folder / "expected.json").read_text())

    def _make(self, sky, folder):
        self.bundle = light_bundle(folder / "bundle").path
        listed = write_little_tiles(sky, folder / "tiles", N_TILES)
        processes, process = self.run(folder / "run", str(listed), str(folder / "out"))
        assert process.wait() == 3, processes.log("driver")
        (folder / "expected.json").write_text(json.dumps(promised(str(folder / "out"), StorageConfig())))

    def run(self, folder, tiles, out, *words, name="driver", **settings):
        """Start ``scanner run``; gives its processes and the driver."""
        folder.mkdir(exist_ok=True)
        processes = Processes(folder, SETTINGS | {"SCANNER_SCORING__BUNDLE": str(self.bundle)} | settings)
        return processes, processes.start(name, "run", tiles, "--out", out, *words)


@pytest.fixture(scope="session")
def few_tiles(sky, tmp_path_factory):
    return FewTiles(sky, tmp_path_factory)


@pytest.fixture
def refusal():
    """The one line in which a command said why it gave up."""

    def _refusal(processes, name="driver"):
        log = processes.log(name)
        assert "Traceback" not in log
        (line,) = [line for line in log.splitlines() if line.startswith("scanner: ")]
        return line

    return _refusal
