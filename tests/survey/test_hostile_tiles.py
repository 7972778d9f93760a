"""Tiles made to stop a run: each costs itself alone, in one sentence, and the good tile among them is scanned.

All of them stand in one list, since a scan takes a second. Warnings are errors here: what hostile pixels do to numpy must not
be seen on standard error.
"""

import gzip
import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from scans import in_this_process
from tile_jobs import job_of

from scanner.config import load
from scanner.errors import ScratchFullError
from scanner.sky.local_files import ScratchFolder, uncompressed
from scanner.survey.run import RunRequest, run_survey
from scanner.survey.scan.tile import scan_tile

ROLES = ("VIS", "Y", "J", "H", "catalogue", "VIS_RMS", "Y_FLAG")
FLAGS = {"targets.magnitude_limit": 20.5, "cutouts.keep": "none"}
ESCAPE = "\x1b[31m"
IDS, RA, FLUX = "OBJECT_ID", "RIGHT_ASCENSION", "FLUX_DETECTION_TOTAL"
BOMB_BYTES = 8 << 20


class Tiles:
    """Lines of a tile list; ``add`` puts one on it that is a good tile but for the files named."""

    def __init__(self, sky: Path, folder: Path) -> None:
        self.folder = folder
        (first, *_) = sorted(sky.glob("9*"))
        names = {"VIS": "*BGSUB-MOSAIC-VIS_*", "Y": "*BGSUB-MOSAIC-NIR-Y_*", "J": "*BGSUB-MOSAIC-NIR-J_*"}
        names |= {"H": "*BGSUB-MOSAIC-NIR-H_*", "catalogue": "*FINAL-CAT*", "VIS_RMS": "*VIS-RMS*"}
        self.good = {role: str(next(first.glob(pattern))) for role, pattern in names.items()}
        self.lines: list[str] = []

    def add(self, tile_id: str, **files: object) -> None:
        named = self.good | {role: str(file) for role, file in files.items()}
        self.lines.append(" ".join([f"id={tile_id}", *(f"{role}={file}" for role, file in named.items())]))

    def path(self, name: str) -> Path:
        return self.folder / name

    def write_image(self, name: str, change: Callable, role: str = "VIS") -> Path:
        """A copy of a good mosaic with its header or pixels changed."""
        with fits.open(self.good[role]) as hdus:
            hdu = hdus[0].copy()
        change(hdu)
        hdu.writeto(self.path(name), output_verify="ignore")
        return self.path(name)

    def write_card(self, name: str, key: str, value: str) -> Path:
        """A copy of the good VIS mosaic with one card changed, to what astropy would not write."""
        content = bytearray(Path(self.good["VIS"]).read_bytes())
        at = next(at for at in range(0, len(content), 80) if content[at : at + 8].rstrip() == key.encode())
        content[at : at + 80] = f"{key:8}= {value}".ljust(80).encode()
        self.path(name).write_bytes(content)
        return self.path(name)

    def write_catalogue(self, name: str, change: Callable) -> Path:
        table = Table.read(self.good["catalogue"])
        table.meta.clear()
        change(table)
        table.write(self.path(name))
        return self.path(name)


def pixels(change):
    def _change(hdu):
        hdu.data = change(hdu.data)

    return _change


def column(name, change):
    def _change(table):
        table[name] = change(np.asarray(table[name]))

    return _change


def distorted(size):
    def _change(hdu):
        cards = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2}
        hdu.header.update(cards | {"A_2_0": size, "B_0_2": size, "A_1_1": -size})

    return _change


def no_files(tiles):
    """Pipes, sockets, devices … in every role; before, the first pipe held the run for ever."""
    os.mkfifo(tiles.path("pipe"))
    tiles.path("folder").mkdir()
    tiles.path("loop").symlink_to("loop")
    here = Path.cwd()
    os.chdir(tiles.folder)  # paths of sockets must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    os.chdir(here)
    for kind in ("pipe", "socket", "folder", "loop", "nothing"):
        for role in ROLES:
            tiles.add(f"{kind}-{role}", **{role: tiles.path(kind)})
    for role in ROLES:
        tiles.add(f"device-{role}", **{role: "/dev/zero"})


def compressed(tiles):
    vis, table = (Path(tiles.good[role]).read_bytes() for role in ("VIS", "catalogue"))
    endless = tiles.write_card("huge.fits", "NAXIS2", f"{10**9:>20}").read_bytes()
    contents = {
        "gz-trailing": vis + bytes(BOMB_BYTES),
        "gz-declared": endless + bytes(BOMB_BYTES),
        "gz-zeros": bytes(BOMB_BYTES),
        "gz-headless": vis[:80] * (BOMB_BYTES // 80),
    }
    for name, content in contents.items():
        tiles.path(f"{name}.fits.gz").write_bytes(gzip.compress(content, 1))
        tiles.add(name, VIS=tiles.path(f"{name}.fits.gz"))
    tiles.path("gz-catalogue.fits.gz").write_bytes(gzip.compress(table + bytes(BOMB_BYTES), 1))
    tiles.add("gz-catalogue", catalogue=tiles.path("gz-catalogue.fits.gz"))
    with tiles.path("sparse.fits").open("wb") as file:
        file.write(endless)
        file.truncate(4 * 640 * 10**9 + len(endless))
    tiles.add("sparse", VIS=tiles.path("sparse.fits"))
    with fits.open(tiles.good["VIS"]) as hdus:
        fits.CompImageHDU(hdus[0].data, hdus[0].header).writeto(tiles.path("tiled.fits"))
    content = bytearray(tiles.path("tiled.fits").read_bytes())
    at = content.index(b"ZTILE2  =")
    content[at : at + 80] = f"ZTILE2  = {10**9:>20}".ljust(80).encode()
    tiles.path("tiled.fits").write_bytes(content)
    tiles.add("one-compressed-tile", VIS=tiles.path("tiled.fits"))


def headers(tiles):
    for name, key, value in (
        ("escape", "BUNIT", f"'{ESCAPE}'"),
        ("projection", "CTYPE1", "'FOO---BAR'"),
        ("position", "CRVAL1", "1E300"),
        ("galactic", "CTYPE1", "'GLON-TAN'"),
        ("axes", "NAXIS", f"{999:>20}"),
        ("negative", "NAXIS1", f"{-640:>20}"),
    ):
        tiles.add(f"header-{name}", VIS=tiles.write_card(f"{name}.fits", key, value))
    # Some positions have a pixel, and some do not.
    tiles.add("distorted", VIS=tiles.write_image("distorted.fits", distorted(1e-3)))
    tiles.add("distorted-much", VIS=tiles.write_image("distorted-much.fits", distorted(1e300)))
    tiles.add("distorted-band", H=tiles.write_image("distorted-band.fits", distorted(1e300), "H"))


def images(tiles):
    sign = np.where(np.random.default_rng(0).random((640, 640)) < 0.5, np.float32(3e38), np.float32(-3e38))
    tiles.add("pixels-huge", J=tiles.write_image("huge-pixels.fits", pixels(lambda data: sign), "J"))
    tiles.add("pixels-double", VIS_RMS=tiles.write_image("double.fits", pixels(lambda data: data.astype("f8") * 1e200)))
    tiles.add("scaled", VIS=tiles.write_card("scaled.fits", "BITPIX", f"{32:>20}"))
    content = tiles.path("scaled.fits").read_bytes().replace(b"BITPIX  =", b"BITPIX  =", 1)
    tiles.path("scaled.fits").write_bytes(re.sub(rb"MAGZERO = [^/]{20}", b"BSCALE  = %-20s" % b"1E300", content, count=1))
    tiles.add("flag-nan", VIS_FLAG=tiles.write_image("nan.fits", pixels(lambda data: np.full_like(data, np.nan))))


def catalogues(tiles):
    for ending in ("fits", "ecsv", "parquet"):
        for name, change in {
            "vector": column(RA, lambda values: np.stack([values, values], 1)),
            "text": column(RA, lambda values: [f"{ESCAPE}red"] * len(values)),
            "one-id": column(IDS, lambda values: np.full_like(values, 7)),
        }.items():
            path = tiles.write_catalogue(f"{name}.{ending}", change)
            tiles.add(f"{name}-{ending}", catalogue=path)
    tiles.add("complex", catalogue=tiles.write_catalogue("complex.fits", column(FLUX, lambda values: values + 1j)))
    escaped = tiles.write_catalogue("escaped.ecsv", lambda table: table.rename_column(RA, f"R{ESCAPE}A"))
    tiles.add("escaped", catalogue=escaped)
    content = bytearray(Path(tiles.good["catalogue"]).read_bytes())
    at = content.index(b"NAXIS2  =", 2880)
    content[at : at + 80] = f"NAXIS2  = {10**8:>20}".ljust(80).encode()
    tiles.path("rows.fits").write_bytes(content)
    with tiles.path("rows.fits").open("ab") as file:
        file.truncate(10**11)
    tiles.add("rows", catalogue=tiles.path("rows.fits"))


#: Why tiles fail, by their ids; those of :data:`SCANNED` do not.
REASONS = {
    **{f"pipe-{role}": r"/pipe: is a pipe, not a file; check the path in the tile list\." for role in ROLES},
    **{f"socket-{role}": r"/socket: is a socket, not a file;" for role in ROLES},
    **{f"folder-{role}": r"/folder: is a folder, not a file;" for role in ROLES},
    **{f"device-{role}": r"/dev/zero: is a device, not a file;" for role in ROLES},
    **{f"loop-{role}": r"/loop: cannot be read \(Too many levels of symbolic links\);" for role in ROLES},
    **{f"nothing-{role}": r"/nothing: is not there;" for role in ROLES},
    "gz-trailing": "the file goes on far beyond what its FITS headers declare",
    "gz-declared": r"a header declares 2,560,000,000,\d{3} bytes",
    "gz-zeros": "not a readable FITS file",
    "gz-headless": "a header without an end",
    "gz-catalogue": "the file goes on far beyond what its FITS headers declare",
    "sparse": "a header declares 2,560,000,000,",
    "one-compressed-tile": "is compressed in tiles of 640,000,000,000 pixels",
    "header-escape": r"its WCS cannot be understood \(.*\\x1b\[31m",
    "header-projection": "its WCS cannot be understood",
    "header-position": "does not overlap the VIS mosaic",
    "header-galactic": "its WCS cannot be understood",
    "header-axes": "not a readable FITS file",
    "header-negative": "a header declares -1,638,400 bytes; no survey",
    "distorted-much": "none of its [0-9]+ positions lies in",
    "pixels-double": "holds not one good pixel",
    "scaled": "holds not one good pixel",
    **{f"vector-{ending}": "column RIGHT_ASCENSION holds several values a row" for ending in ("fits", "ecsv", "parquet")},
    **{f"text-{ending}": r"holds something else than angles .*x1b\[31mred" for ending in ("fits", "ecsv", "parquet")},
    "complex": "column FLUX_DETECTION_TOTAL holds something else than numbers",
    "escaped": r"Columns found: OBJECT_ID, R\\x1b\[31mA",
    "rows": "the file goes on far beyond what its FITS headers declare",
}
SCANNED = {"good", "distorted", "distorted-band", "pixels-huge", "flag-nan", "one-id-fits", "one-id-ecsv", "one-id-parquet"}


@pytest.fixture(scope="module")
def scanned(sky, tmp_path_factory):
    """Folder of the run, and its report."""
    tiles = Tiles(sky, tmp_path_factory.mktemp("hostile"))
    for attack in (no_files, compressed, headers, images, catalogues):
        attack(tiles)
    tiles.add("good")
    listed, out = tiles.path("tile-list.txt"), tiles.path("out")
    listed.write_text("\n".join(tiles.lines), encoding="utf-8")
    with in_this_process():
        report = run_survey(RunRequest(str(listed), str(out), load(None, FLAGS, {})))
    yield out, report
    shutil.rmtree(tiles.folder)


def test_each_costs_itself_alone_in_one_sentence(scanned):
    _, report = scanned
    failed = {failure.tile_id: failure.reason for failure in report.failed}
    assert failed.keys() == REASONS.keys()
    for tile_id, expected in REASONS.items():
        assert re.search(expected, failed[tile_id]), (tile_id, failed[tile_id])
        assert failed[tile_id].isprintable()
        assert "internal error" not in failed[tile_id]
    assert report.n_tiles == len(REASONS) + len(SCANNED)


def test_what_can_be_scanned_is(scanned):
    out, report = scanned
    commits = {tile_id: json.loads((out / "tiles" / tile_id / "commit.json").read_text()) for tile_id in SCANNED}
    assert commits["good"]["n_scored"] == commits["good"]["n_targets"] > 1
    for ending in ("fits", "ecsv", "parquet"):
        # One id for all: none is lost, and all have an id of their own.
        assert commits[f"one-id-{ending}"]["n_targets"] == commits["good"]["n_targets"]
    assert 0 < commits["distorted"]["n_targets"] <= commits["good"]["n_targets"]
    assert report.notes == (
        "objects without a pixel are left out: the distortion of a mosaic's WCS diverges there",
        "target ids are HEALPix indices: the catalogue gives one id to objects at different positions",
    )


def test_no_result_commands_a_terminal(scanned):
    out, _ = scanned
    for name in ("failed-tiles.ecsv", "candidates.ecsv", "candidates.html", "status.json", "run.json"):
        assert "\x1b" not in (out / name).read_text(encoding="utf-8")


def test_a_mosaic_for_which_scratch_has_no_room_waits_for_it(sky, tmp_path, monkeypatch):
    """Tiles that are done make room; one that needs more than there is must not end the run."""
    tiles = Tiles(sky, tmp_path)
    packed = tmp_path / "packed.fits.gz"
    packed.write_bytes(gzip.compress(Path(tiles.good["VIS"]).read_bytes(), 1))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(ScratchFullError, match=r"packed.fits.gz: needs 1,638,720 bytes of scratch space, and .* has 1,000,000"):
        uncompressed(packed, ScratchFolder(tmp_path))
    job = job_of(sky, tmp_path / "out")
    bands = dict(job.tile.bands)
    bands["VIS"] = bands["VIS"].model_copy(update={"image": bands["VIS"].image.__class__(path=str(packed))})
    outcome = scan_tile(job.model_copy(update={"tile": job.tile.model_copy(update={"bands": bands})}))
    assert "of scratch space" in outcome.retry_reason
    assert outcome.fatal is None
