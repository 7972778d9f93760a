"""A small archive in the layout of Euclid's public one, on a disk and on an S3 server."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from once import made_once
from scans import in_this_process, light_bundle

from scanner.config import load
from scanner.storage import open_store
from scanner.survey.finish import RESULTS
from scanner.survey.run import RunRequest, run_survey

#: Simulated tile → the tile of the archive whose place it takes: those that docs/euclid-q1.md names.
TILES = {"900003001": "102018211", "900003003": "102018212"}


@dataclass(frozen=True)
class Archive:
    """``local`` and ``url``: the folder above ``MER`` and ``catalogs``, here and on the server."""

    local: Path
    url: str


def _place(name: str, tile: str) -> str:
    if "FINAL-CAT" in name:
        return f"catalogs/MER_FINAL_CATALOG/{tile}"
    return f"MER/{tile}/{'NISP' if 'NIR-' in name else 'VIS'}"


def _others(tile: str) -> list[str]:
    """Names of files that no scan reads."""
    ending = f"TILE{tile}-000000_20260101T000000.000000Z_00.00.fits"
    return [
        f"MER/{tile}/VIS/EUC_MER_BGMOD-VIS_{ending}",
        f"MER/{tile}/VIS/EUC_MER_GRID-PSF-VIS_{ending}",
        f"MER/{tile}/DECAM/EUC_MER_BGSUB-MOSAIC-DES-G_{ending}",
        f"MER/{tile}/DECAM/EUC_MER_MOSAIC-DES-G-RMS_{ending}",
        f"catalogs/MER_FINAL_CATALOG/{tile}/EUC_MER_FINAL-CUTOUTS-CAT_{ending}",
        f"catalogs/MER_FINAL_CATALOG/{tile}/EUC_MER_FINAL-MORPH-CAT_{ending}",
    ]


def _lay_out(sky: Path, local: Path) -> None:
    for simulated, tile in TILES.items():
        for file in (sky / simulated).iterdir():
            target = local / _place(file.name, tile) / file.name.replace(simulated, tile)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        for other in _others(tile):
            (local / other).parent.mkdir(parents=True, exist_ok=True)
            (local / other).write_bytes(b"not looked at")


@pytest.fixture(scope="session")
def archive(sky, s3, tmp_path_factory):
    """Two tiles of the simulated sky, which anyone may read."""
    local = made_once(tmp_path_factory, "archive", lambda folder: _lay_out(sky, folder / "q1")) / "q1"
    url = f"{s3.fresh(public=True)}/q1"
    store = open_store(url, s3.config)
    for file in local.rglob("*.fits"):
        store.write(file.relative_to(local).as_posix(), file.read_bytes())
    return Archive(local, url)


@pytest.fixture(scope="session")
def archive_list(archive):
    """Text of the tile list of the archive below a folder or URL."""

    def _text(root):
        lines = [f"{root}/MER/{tile} catalogue={root}/catalogs/MER_FINAL_CATALOG/{tile}/" for tile in TILES.values()]
        return "\n".join(lines) + "\n"

    return _text


@pytest.fixture(scope="session")
def local_run(archive, archive_list, tmp_path_factory):
    """Run folder of a scan of the local copy, but for its bundle with the default settings; only to be read."""

    def run(folder):
        (folder / "q1-tiles.txt").write_text(archive_list(archive.local))
        with in_this_process():
            config = load(None, {"engine.workers": 1, "scoring.bundle": str(light_bundle(folder / "bundle").path)}, {})
            run_survey(RunRequest(str(folder / "q1-tiles.txt"), str(folder / "out"), config))

    return made_once(tmp_path_factory, "local-run", run) / "out"


@pytest.fixture(scope="session")
def local_bundle(local_run):
    """Folder of the bundle that scored ``local_run``: a light one."""
    return local_run.parent / "bundle"


@pytest.fixture(scope="session")
def differences():
    """Files that a run promises to give again and that differ in two run folders."""

    def _differences(one, other, names=RESULTS):
        files = [file for name in names for file in (one / name, *(one / name).rglob("*")) if file.is_file()]
        differing = [file.name for file in files if (other / file.relative_to(one)).read_bytes() != file.read_bytes()]
        for scores in (one / "tiles").rglob("scores.parquet"):
            (there,) = (other / "tiles" / scores.relative_to(one / "tiles").parts[0]).rglob("scores.parquet")
            differing += [str(scores)] if there.read_bytes() != scores.read_bytes() else []
        assert len(files) > 5
        return differing

    return _differences
