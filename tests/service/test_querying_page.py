"""``docs/querying.md`` and the notebook: their commands and code run against a real server over a real run."""

import gc
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import nbclient
import nbformat
import programs
import pytest
from waiting import LIMIT_S

from scanner.service.security import new_token
from scanner.service.settings import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "querying.md").read_text()
NOTEBOOK = ROOT / "examples" / "query.ipynb"
#: The address and the folder that the page speaks of.
ADDRESS = "http://127.0.0.1:8420"
SECTIONS = {
    part.partition("\n")[0].strip(): re.findall(r"^```(\w+)\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    for part in PAGE.split("\n## ")[1:]
}


def blocks(section, language):
    return [text for name, text in SECTIONS[section] if name == language]


def with_blocks(language):
    return [section for section in SECTIONS if blocks(section, language)]


@pytest.fixture
def folder(served_run, tmp_path, monkeypatch):
    """A working folder as the page has it: ``survey`` lies in it, ``scanner`` is on the PATH."""
    (tmp_path / "survey").symlink_to(served_run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), *newer_java(), os.environ["PATH"]]))
    return tmp_path


def newer_java():
    """Folders of the newest Java that is installed: Debian's stilts wants a newer one than its default."""
    return [str(path) for path in sorted(Path("/usr/lib/jvm").glob("*-25-*/bin"))]


def run_commands(section, server):
    """Run the commands of a section; returns the programs that are missing, whose commands are left out."""
    lines = [line.removeprefix("$ ") for text in blocks(section, "console") for line in text.splitlines()]
    missing = {line.split()[0] for line in lines if shutil.which(line.split()[0]) is None}
    for line in lines:
        if line.split()[0] not in missing:
            command = ["bash", "-euo", "pipefail", "-c", line.replace(ADDRESS, server.url)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            assert "error" not in done.stdout.lower(), done.stdout
    return missing


def test_every_section_with_commands_is_tested():
    assert with_blocks("console") == ["On the command line", "TOPCAT and stilts", "DS9", "Aladin"]


def test_commands_of_scanner(server, folder, listed_ids):
    from astropy.table import Table

    assert run_commands("On the command line", server) == set()
    assert len(Table.read("candidates.fits")) <= len(listed_ids)


def test_commands_of_stilts(server, folder, listed_ids):
    from astropy.table import Table

    if run_commands("TOPCAT and stilts", server):
        pytest.skip("there is no stilts here ('make verify-vo' installs it); the other commands ran")
    assert len(Table.read("cone.fits")) > 0
    matched = Table.read("matched.fits")
    assert len(matched) >= len(listed_ids)


def test_files_for_ds9_and_aladin(server, folder, rows, candidate_ids):
    from astropy.io import fits
    from astropy.table import Table
    from astropy.wcs import WCS
    from mocpy import MOC

    programs.needed("curl", target="debian")
    assert run_commands("DS9", server) | run_commands("Aladin", server) == set()
    assert (folder / "best.csv").read_text().split()[-1].strip('"') == candidate_ids[0]
    with fits.open("vis.fits") as vis, fits.open("all.fits") as every:
        best = {name: rows[name][0].as_py() for name in ("ra", "dec")}
        image = next(hdu for hdu in vis if hdu.data is not None)
        x, y = WCS(image.header).all_world2pix(best["ra"], best["dec"], 0)
        assert abs(x - 99.5) < 2
        assert abs(y - 99.5) < 2
        assert sum(hdu.data is not None for hdu in every) == 4
    circles = [line for line in (folder / "candidates.reg").read_text().splitlines() if line.startswith("circle")]
    assert len(circles) == len(candidate_ids)
    assert len((folder / "candidates.tsv").read_text().splitlines()) == len(candidate_ids) + 1
    assert {str(name) for name in Table.read("cone.vot")["name"]} <= set(rows["name"].to_pylist())
    assert len(Table.read("cone.vot")) > 0
    assert MOC.from_fits("sky.fits").sky_fraction > 0


#: Sessions of the page's code end as a user's would: when they are collected.
unclosed = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture
def collected():
    """What a test leaves is collected before the next one, which would be blamed for it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@unclosed
@pytest.mark.parametrize("section", [name for name in with_blocks("python") if name != "Services with tokens"])
def test_python(section, server, collected, capsys):
    names = {}
    for text in blocks(section, "python"):
        exec(compile(text.replace(ADDRESS, server.url), section, "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) > 5


@unclosed
def test_a_token_goes_with_every_request(served_run, make_server, collected, tmp_path, capsys):
    token, line = new_token("Ann", "read")
    (tmp_path / "tokens").write_text(str(line))
    settings = {"grading.path": str(tmp_path / "grades.sqlite"), "access.tokens": str(tmp_path / "tokens")}
    ((text,),) = [blocks(section, "python") for section in SECTIONS if section == "Services with tokens"]
    with make_server(load(None, settings, {}), served_run) as guarded:
        assert (
            guarded.get("/tap/sync", params={"LANG": "ADQL", "QUERY": "SELECT TOP 1 name FROM candidates"}).status_code == 401
        )
        exec(compile(text.replace(ADDRESS, guarded.url).replace("scn_…", token), "token", "exec"), {})
    assert int(capsys.readouterr().out.split()[-1]) > 0


def test_addresses_of_the_table_answer(server, listed_ids):
    asked = {
        "/": "/",
        "/tap": "/tap/capabilities",
        "/scs": "/scs?RA=52.9&DEC=-28.0&SR=0.01",
        "/datalink": f"/datalink?ID={listed_ids[0]}",
        "/cutout": f"/cutout?id={listed_ids[0]}",
        "/moc": "/moc",
        "/api/v1": "/api/v1/collections",
    }
    assert re.findall(r"^\| `(/[a-z0-9/]*)` \|", PAGE, re.MULTILINE) == list(asked)
    assert {address: server.get(address).status_code for address in asked.values()} == dict.fromkeys(asked.values(), 200)


def test_the_notebook_runs(server, monkeypatch, tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "strip the outputs before you commit it"
    monkeypatch.setenv("SCANNER_URL", server.url)
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    client = nbclient.NotebookClient(
        notebook, timeout=LIMIT_S, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [output for cell in code for output in cell.outputs]
    pictures = [output for output in shown if "image/png" in output.get("data", {})]
    assert len(pictures) == NOTEBOOK.read_text().count("plt.show()")
    assert not [output for output in shown if output.output_type == "error"]
