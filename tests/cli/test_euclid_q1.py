"""The page "Scan Euclid Q1": its list, settings and commands are read from it and run on a bucket of the archive's layout."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from programs import start_scanner

from scanner.sky import tile_list

PAGE = Path(__file__).parents[2] / "docs" / "euclid-q1.md"
PUBLIC = "s3://nasa-irsa-euclid-q1/q1"


def blocks(kind, text):
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def page(archive):
    """The page, the public archive replaced by ours."""
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(PUBLIC) >= 5
    return text.replace(PUBLIC, archive.url)


@pytest.fixture(scope="module")
def desk(page, tmp_path_factory):
    """A folder with the files that the page shows, each named in its own first line."""
    folder = tmp_path_factory.mktemp("q1") / "desk"
    folder.mkdir()
    for block in blocks("(?:text|toml|python)", page):
        (folder / re.match(r"# ([\w.-]+)", block)[1]).write_text(block, encoding="utf-8")
    assert {path.name for path in folder.iterdir()} == {"q1-tiles.txt", "q1.toml", "q1_tiles.py"}
    return folder


@pytest.fixture(scope="module")
def shell(desk, s3, local_bundle):
    """Runs a line of the page as a user without credentials would; ``scanner`` and ``python`` are those of this environment."""

    def _run(line):
        program, *words = shlex.split(line.split(">")[0])
        # One worker: processes take longer to start than these tiles to scan.
        environment = {
            "AWS_ENDPOINT_URL": s3.endpoint,
            "SCANNER_ENGINE__WORKERS": "1",
            "SCANNER_SCORING__BUNDLE": str(local_bundle),
            "PATH": "/usr/bin:/bin",
            "HOME": str(desk),
        }
        if program == "scanner":
            log = desk.parent / f"{len(list(desk.parent.glob('*.log')))}.log"
            code = start_scanner(words, log=log, environment=environment, folder=desk).wait()
            assert code == 0, log.read_text()
            return log.read_text()
        done = subprocess.run([sys.executable, *words], cwd=desk, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if ">" in line:
            (desk / line.split(">")[1].strip()).write_text(done.stdout, encoding="utf-8")
        return done.stdout

    return _run


def test_the_page_works_as_it_is_written(page, desk, shell, archive, archive_list, local_run, differences):
    lines = [line.removeprefix("$ ") for block in blocks("console", page) for line in block.splitlines()]
    dry, real, status, every = lines
    told = {line: shell(line) for line in lines}
    assert "was fetched to be measured (19.7 MB" in told[dry]
    assert "1 other remote tile is taken to be like it" in told[dry]
    assert "2 of 2 tiles done" in told[real]
    assert "2 of 2" in told[status]
    assert (desk / every.split(">")[1].strip()).read_text() == archive_list(archive.url)
    assert list((desk / "scratch").iterdir()) == []
    assert differences(local_run, desk / "q1-scan") == []


def test_the_table_of_the_page_tells_what_is_read(page, desk, s3, archive):
    """Every kind of file of the table is found, by the name that the page gives it, and nothing else is."""
    anonymous = s3.config.model_copy(update={"anonymous": True})
    tile = next(iter(tile_list.read(desk / "q1-tiles.txt", anonymous).tiles.values()))
    paths = {band: files.image.path for band, files in tile.bands.items()} | {"catalogue": tile.catalogue.path}
    shown = re.findall(r"\| `(\S+_TILE<tile>-….fits)` \|[^|]*\| (.*) \|", page)
    assert len(shown) == 4
    for pattern, roles in shown:
        for role in re.findall(r"`(\w+)`", roles):
            name = pattern.replace("<tile>", tile.tile_id).replace("{Y,J,H}", role)
            expected = f"{re.escape(archive.url)}/{re.escape(name).replace('…', '.*')}"
            assert re.fullmatch(expected, paths.pop(role))
    assert paths == {}
    assert all(files.rms is not None and files.flag is not None for files in tile.bands.values())
