"""Tiles on a real S3 server, fetched to this machine."""

import gzip
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from scanner.config import CutoutsConfig, StorageConfig
from scanner.errors import ForbiddenError, InputMissingError, OutputError, TileError, UnavailableError
from scanner.records import BANDS, BandFiles, ImageRef, Tile
from scanner.sky import source_catalogue
from scanner.sky.local_files import fetch_tile, remote_files
from scanner.sky.tile_images import open_tile
from scanner.storage import open_store


@pytest.fixture(scope="module")
def local(sky):
    """A tile of the simulated sky, by role."""
    folder = sorted(sky.glob("9*"))[0]
    names = {"VIS": "VIS", "Y": "NIR-Y", "J": "NIR-J", "H": "NIR-H"}
    files = {band: next(folder.glob(f"*BGSUB-MOSAIC-{name}_*")) for band, name in names.items()}
    return files | {"rms": next(folder.glob("*VIS-RMS*")), "catalogue": next(folder.glob("*FINAL-CAT*"))}


def put(s3, location, name, content):
    open_store(location, s3.config).write(name, content)
    return f"{location}/{name}"


def tile_of(files):
    bands = {band: BandFiles(image=ImageRef(path=str(files[band]))) for band in BANDS}
    if "rms" in files:
        bands["VIS"] = bands["VIS"].model_copy(update={"rms": ImageRef(path=str(files["rms"]))})
    catalogue = ImageRef(path=str(files["catalogue"])) if "catalogue" in files else None
    return Tile(tile_id="7", bands=bands, catalogue=catalogue)


@pytest.fixture(scope="module")
def uploaded(s3, local):
    """The same tile on the server: Y gzipped, its catalogue gzipped too; H stays on this machine."""
    place = s3.fresh()
    files = {}
    for role, path in local.items():
        content = path.read_bytes()
        if role == "H":
            files[role] = path
        elif role in ("Y", "catalogue"):
            files[role] = put(
                s3, place, f"{path.name}.{'gz' if role == 'Y' else 'GZ'}", gzip.compress(content, compresslevel=1)
            )
        else:
            files[role] = put(s3, place, path.name, content)
    return tile_of(files)


def test_only_remote_files_are_named(uploaded, local):
    assert len(remote_files(uploaded)) == 5
    assert remote_files(tile_of(local)) == ()


def test_a_local_tile_comes_back_as_it_is(local, tmp_path):
    tile = tile_of(local)
    assert fetch_tile(tile, tmp_path / "scratch", StorageConfig()) is tile
    assert not (tmp_path / "scratch").exists()


def test_a_fetched_tile_is_the_local_one(s3, uploaded, local, tmp_path):
    here = fetch_tile(uploaded, tmp_path / "scratch", s3.config)
    expected = tile_of(local)
    for band in BANDS:
        assert Path(here.bands[band].image.path).read_bytes() == local[band].read_bytes()
    assert Path(here.bands["VIS"].rms.path).read_bytes() == local["rms"].read_bytes()
    assert here.bands["H"] == uploaded.bands["H"]
    assert here.bands["Y"].image.origin == uploaded.bands["Y"].image.path
    assert str(here.catalogue) == uploaded.catalogue.path
    assert len(list((tmp_path / "scratch").iterdir())) == 5
    np.testing.assert_array_equal(source_catalogue.read(here.catalogue).ra, source_catalogue.read(expected.catalogue).ra)
    with open_tile(here, CutoutsConfig(), tmp_path / "scratch") as a, open_tile(expected, CutoutsConfig()) as b:
        assert a.sky_area_deg2 == b.sky_area_deg2
        np.testing.assert_array_equal(a.vis.read(0, 99, 0, 99), b.vis.read(0, 99, 0, 99))
        assert a.vis.name == uploaded.bands["VIS"].image.path


def test_what_is_there_is_not_fetched_again(s3, uploaded, tmp_path):
    here = fetch_tile(uploaded, tmp_path, s3.config)
    stamps = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    Path(here.bands["J"].image.path).unlink()
    again = fetch_tile(uploaded, tmp_path, s3.config)
    assert again == here
    changed = {str(path) for path in tmp_path.iterdir() if path.stat().st_ino != stamps[path]}
    assert changed <= {here.bands["J"].image.path}


def test_two_threads_fetch_into_one_folder(s3, uploaded, local, tmp_path):
    fetched = []
    threads = [threading.Thread(target=lambda: fetched.append(fetch_tile(uploaded, tmp_path, s3.config))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == [fetched[0]] * 4
    assert Path(fetched[0].bands["VIS"].image.path).read_bytes() == local["VIS"].read_bytes()
    assert len(list(tmp_path.iterdir())) == 5


def test_files_of_one_name_do_not_meet(s3, local, tmp_path):
    files = {band: put(s3, s3.fresh(), "mosaic.fits", local[band].read_bytes()) for band in BANDS}
    here = fetch_tile(tile_of(files), tmp_path, s3.config)
    for band in BANDS:
        assert Path(here.bands[band].image.path).read_bytes() == local[band].read_bytes()


@pytest.mark.parametrize("missing", ["gone.fits", ""])
def test_a_missing_object_costs_the_tile(s3, uploaded, tmp_path, missing):
    folder = uploaded.bands["VIS"].image.path.rpartition("/")[0]
    url = f"{folder}/{missing}".rstrip("/")
    tile = uploaded.model_copy(update={"catalogue": ImageRef(path=url)})
    with pytest.raises(TileError, match="no such object") as caught:
        fetch_tile(tile, tmp_path, s3.config)
    assert str(caught.value).startswith(f"{url}: ")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_truncated_object_is_named_by_its_url(s3, local, tmp_path):
    place = s3.fresh()
    content = local["VIS"].read_bytes()
    url = put(s3, place, "vis.fits", content[: len(content) // 2])
    here = fetch_tile(tile_of(local | {"VIS": url}), tmp_path, s3.config)
    with pytest.raises(TileError, match="truncated") as caught:
        open_tile(here, CutoutsConfig(), tmp_path)
    assert str(caught.value).startswith(f"{url}: ")


def test_a_damaged_gzip_object_is_named_by_its_url(s3, local, tmp_path):
    content = gzip.compress(local["VIS"].read_bytes(), compresslevel=1)
    url = put(s3, s3.fresh(), "vis.fits.gz", content[: len(content) // 2])
    with pytest.raises(TileError, match="gzip file is damaged or truncated") as caught:
        fetch_tile(tile_of(local | {"VIS": url}), tmp_path, s3.config)
    assert str(caught.value).startswith(f"{url}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_bad_catalogue_is_named_by_its_url(s3, tmp_path, local):
    Table({"flux": [1.0]}).write(tmp_path / "cat.csv")
    url = put(s3, s3.fresh(), "cat.csv", (tmp_path / "cat.csv").read_bytes())
    here = fetch_tile(tile_of(local | {"catalogue": url}), tmp_path, s3.config)
    with pytest.raises(TileError, match="no column holds") as caught:
        source_catalogue.read(here.catalogue)
    assert str(caught.value).startswith(f"{url}: ")


def test_an_object_that_may_not_be_read_costs_the_tile(s3, uploaded, tmp_path):
    anonymous = s3.config.model_copy(update={"anonymous": True})
    with pytest.raises(TileError, match="reading is not allowed") as caught:
        fetch_tile(uploaded, tmp_path, anonymous)
    assert str(caught.value).startswith(uploaded.bands["VIS"].image.path)
    assert not isinstance(caught.value, ForbiddenError)


def test_a_public_object_is_read_without_credentials(s3, local, tmp_path, monkeypatch):
    url = put(s3, s3.fresh(public=True), "vis.fits", local["VIS"].read_bytes())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    here = fetch_tile(tile_of(local | {"VIS": url}), tmp_path, s3.config.model_copy(update={"anonymous": True}))
    assert fits.getheader(here.bands["VIS"].image.path)["NAXIS1"] == 640


def test_bad_credentials_stop_the_run(s3, uploaded, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputMissingError, match="does not accept the credentials") as caught:
        fetch_tile(uploaded, tmp_path, s3.config)
    assert not isinstance(caught.value, ForbiddenError)


def test_a_missing_bucket_stops_the_run(s3, local, tmp_path):
    with pytest.raises(InputMissingError, match="no such bucket"):
        fetch_tile(tile_of(local | {"VIS": "s3://scanner-nowhere/vis.fits"}), tmp_path, s3.config)


def test_a_server_that_is_gone_is_a_passing_failure(local, tmp_path):
    nobody = StorageConfig(endpoint="http://127.0.0.1:9", retries=0, timeout_s=2)
    with pytest.raises(UnavailableError, match=r"vis\.fits"):
        fetch_tile(tile_of(local | {"VIS": "s3://bucket/vis.fits"}), tmp_path, nobody)


def test_a_full_disk_leaves_no_half_file(s3, uploaded, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError) as caught:
            fetch_tile(uploaded, tmp_path, s3.config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_that_cannot_be_made(s3, uploaded, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write scratch files"):
        fetch_tile(uploaded, tmp_path / "file" / "scratch", s3.config)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
