"""``scanner run`` with everything on a real S3 server, and what it says when that goes wrong."""

import pyarrow.dataset as dataset
import pytest
from astropy.table import Table

from scanner.cli.main import main
from scanner.storage import open_store


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def scan(capsys, s3, *words):
    """Exit code, standard output and standard error of ``scanner run …``."""
    with pytest.raises(SystemExit) as caught:
        main(["run", "--endpoint", s3.endpoint, *map(str, words)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return caught.value.code, captured.out, captured.err


def rows_of(folder):
    """Every object of a run, and its candidates, as text; which run it was is left out: a run is named after all its tiles."""
    merged = dataset.parquet_dataset(folder / "catalogue/dataset/_metadata").to_table().drop_columns(["run"])
    listed = Table.read(folder / "candidates.fits")
    listed.remove_column("run")
    return str(merged.to_pylist()), str([list(row) for row in listed])


def one_line(err, *named):
    """A refusal is one sentence that names what it is about."""
    last = err.splitlines()[-1]
    assert last.startswith("scanner: ")
    for word in named:
        assert str(word) in last, err


@pytest.fixture
def put(s3):
    """Write a file; gives its URL."""

    def _put(name, content, place=None):
        place = place or s3.fresh()
        open_store(place, s3.config).write(name, content if isinstance(content, bytes) else content.encode())
        return f"{place}/{name}"

    return _put


def test_everything_on_s3_gives_the_bytes_of_a_local_run(
    s3, archive, archive_list, local_run, local_bundle, put, tmp_path, capsys
):
    """List, tiles, bundle and run folder are remote; a third tile, which lacks an object, fails, and the others go on."""
    place, out, gone = s3.fresh(), s3.fresh(), s3.fresh(public=True)
    broken = " ".join(f"{band}={gone}/gone-{band}.fits" for band in ("VIS", "Y", "J", "H"))
    put("lists/q1-tiles.txt", f"{archive_list('../tiles')}id=broken {broken}\n", place)
    for file in archive.local.rglob("*.fits"):
        put(f"tiles/{file.relative_to(archive.local).as_posix()}", file.read_bytes(), place)
    for file in local_bundle.iterdir():
        put(f"bundle/{file.name}", file.read_bytes(), place)
    words = (f"{place}/lists/q1-tiles.txt", "--out", out, "--bundle", f"{place}/bundle", "--scratch", tmp_path / "scratch")
    words += ("--workers", "1")
    code, told, _ = scan(capsys, s3, *words)
    assert code == 3
    assert "2 of 3 tiles done" in told
    assert f"{out}/candidates.html" in told
    assert not list((tmp_path / "scratch").rglob("*.fits"))
    open_store(out, s3.config).fetch("", tmp_path / "fetched")
    # What a tile that fails does not change: the others do.
    assert rows_of(tmp_path / "fetched") == rows_of(local_run)
    for scores in (local_run / "tiles").rglob("scores.parquet"):
        (there,) = (tmp_path / "fetched" / "tiles" / scores.parent.name).rglob("scores.parquet")
        assert there.read_bytes() == scores.read_bytes()
    (failed,) = Table.read(tmp_path / "fetched" / "failed-tiles.ecsv")
    assert failed["tile_id"] == "broken"
    assert f"{gone}/gone-VIS.fits: there is no such" in failed["reason"]
    # Once the object is there, the same command scans that tile alone.
    for band, name in {"VIS": "VIS", "Y": "NIR-Y", "J": "NIR-J", "H": "NIR-H"}.items():
        (file,) = (archive.local / "MER" / "102018212").rglob(f"*BGSUB-MOSAIC-{name}_*")
        put(f"gone-{band}.fits", file.read_bytes(), gone)
    code, told, err = scan(capsys, s3, *words)
    assert code == 0
    assert "3 of 3 tiles done" in told
    assert "102018211" not in err


def test_a_dry_run_fetches_few_tiles_of_which_none_can_be_scanned(s3, sky, tmp_path, capsys):
    place = s3.fresh()
    lines = [f"id=gone-{number} VIS={place}/v Y={place}/y J={place}/j H={place}/h" for number in range(5)]
    (tmp_path / "list.txt").write_text("\n".join([lines[0], str(sorted(sky.glob("9*"))[0]), *lines[1:]]))
    code, told, _ = scan(capsys, s3, tmp_path / "list.txt", "--dry-run", "--scratch", tmp_path / "scratch")
    assert code == 3
    assert told.count("gone-") == 5
    assert told.count(f"{place}/v: there is no such object") == 3
    assert told.count("not looked at, since the first 3 remote tiles cannot be scanned") == 2
    assert "1 tile, " in told
    assert "was fetched" not in told
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.usefixtures("without_workers")
def test_bad_credentials_are_told_in_one_sentence(s3, archive, archive_list, put, sky, tmp_path, monkeypatch, capsys):
    url = put("list.txt", archive_list(archive.url))
    (tmp_path / "list.txt").write_text("id=1 VIS=s3://scanner-tests/v Y=s3://scanner-tests/y J=s3://scanner-tests/j H=h.fits")
    (tmp_path / "folders.txt").write_text(archive_list(archive.url))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    local = (sky / "tile-list.txt", "--out", tmp_path / "out")
    for words, code in (
        ((url, "--out", tmp_path / "out"), 66),
        ((tmp_path / "folders.txt", "--out", tmp_path / "out"), 66),
        ((*local, "--bundle", f"{s3.fresh()}/bundle"), 66),
        ((sky / "tile-list.txt", "--out", s3.fresh()), 66),
        ((tmp_path / "list.txt", "--out", tmp_path / "out", "--workers", "1"), 66),
        ((tmp_path / "list.txt", "--dry-run"), 66),
    ):
        got, _, err = scan(capsys, s3, *words)
        assert got == code, err
        one_line(err, "s3://", "does not accept the credentials")


def test_a_missing_bucket_is_told_in_one_sentence(s3, sky, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("s3://scanner-nowhere/tile")
    for words in (
        ("s3://scanner-nowhere/list.txt",),
        (tmp_path / "list.txt",),
        (sky / "tile-list.txt", "--bundle", "s3://scanner-nowhere/bundle"),
    ):
        code, _, err = scan(capsys, s3, *words, "--out", tmp_path / "out")
        assert code == 66
        one_line(err, "s3://scanner-nowhere", "no such bucket")
    code, _, err = scan(capsys, s3, sky / "tile-list.txt", "--out", "s3://scanner-nowhere/out")
    assert code in (66, 73)
    one_line(err, "s3://scanner-nowhere/out", "no such bucket")


def test_nobody_answers(sky, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCANNER_STORAGE__RETRIES", "0")
    for words in (("s3://bucket/list.txt",), (sky / "tile-list.txt", "--bundle", "s3://bucket/bundle")):
        with pytest.raises(SystemExit) as caught:
            main(["run", *map(str, words), "--endpoint", "http://127.0.0.1:9", "--out", str(tmp_path / "out")])
        assert caught.value.code == 75
        one_line(capsys.readouterr().err, "s3://bucket/", "does not answer")


def test_no_bundle_there(s3, sky, tmp_path, capsys):
    place = s3.fresh()
    code, _, err = scan(capsys, s3, sky / "tile-list.txt", "--bundle", place, "--out", tmp_path / "out")
    assert code == 66
    one_line(err, place, "no such bundle")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("without_workers")
def test_the_run_folder_of_a_remote_list_is_made_here(s3, put, tmp_path, monkeypatch, capsys):
    """Nobody may write beside a list in a public bucket."""
    monkeypatch.chdir(tmp_path)
    url = put("lists/q1.txt", "gone_TILE7", s3.fresh(public=True))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    code, _, _ = scan(capsys, s3, url, "--anonymous")
    assert code == 3
    (failed,) = Table.read(tmp_path / "q1-scan" / "failed-tiles.ecsv")
    assert failed["tile_id"] == "7"
    assert f"{url}:1: {url.removesuffix('q1.txt')}gone_TILE7: no object lies below it" in failed["reason"]


def test_help_shows_the_options_under_headings(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    told = capsys.readouterr().out
    headings = [line for line in told.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        "Options:", "What is scored:", "With what:", "What is kept:", "About the candidates:",
        "Where the work is done:", "Workers from elsewhere:", "Object stores (s3://…):", "Logs and metrics:",
    ]  # fmt: skip
    stores = told.partition("Object stores")[2].partition("Logs and metrics")[0]
    assert "--endpoint" in stores
    assert "--anonymous" in stores
    assert "TILE_LIST" not in told.partition("Options:")[2]
