import json
import shutil

import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from scans import in_this_process

from scanner.cli.main import main
from scanner.cli.replay import EXIT_DIFFERENT
from scanner.survey.objects import ReplayReport


def scanner(capsys, *words):
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return caught.value.code or 0, captured.out, captured.err


@pytest.fixture(scope="module")
def run(sky, tmp_path_factory):
    """A sky of one tile and a run of it in ``out``."""
    folder = tmp_path_factory.mktemp("replayed")
    tile = sorted(path for path in sky.iterdir() if path.is_dir())[0]
    shutil.copytree(tile, folder / "tile")
    (folder / "list.txt").write_text("tile\n")
    words = ["run", folder / "list.txt", "--out", folder / "out", "--workers", 1, "--magnitude-limit", 21.5, "--keep", "all"]
    with in_this_process(), pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert caught.value.code == 0
    return folder


def test_what_is_equal_is_told_in_a_table(run, capsys, tmp_path):
    code, out, err = scanner(capsys, "replay", run / "out", "#1", "--out", tmp_path / "files")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("EUCL J")
    assert ", rank 1: tile " in lines[0]
    assert "Equal, bit for bit." in lines
    assert [line.split()[-1] for line in lines if line.startswith(("p_", "grid_value", "is_candidate"))] == ["="] * 10
    written = [line.removeprefix("Written: ") for line in lines if line.startswith("Written: ")]
    assert len(written) == 2
    with fits.open(written[0]) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "VIS", "Y", "J", "H"]


def test_what_differs_ends_with_a_code_of_its_own(run, capsys, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    mosaic = next((tmp_path / "copy" / "tile").glob("*BGSUB-MOSAIC-NIR-Y_*"))
    with fits.open(mosaic, mode="update") as hdus:
        hdus[0].data = hdus[0].data[::-1].copy()
    words = ["replay", tmp_path / "copy" / "out", "1", "--tile-list", tmp_path / "copy" / "list.txt"]
    code, out, err = scanner(capsys, *words)
    assert (code, out) == (78, "")
    assert err.count("\n") == 1
    assert mosaic.name in err
    code, out, _ = scanner(capsys, *words, "--anyway")
    assert code == EXIT_DIFFERENT == 4
    assert "Changed: inputs: " in out
    assert next(line for line in out.splitlines() if line.startswith("p_ou_y ")).split()[-1] == "DIFFERENT"
    # Not p_ou_vis: with another Y the object no longer stands high enough for a second look, whose mean it was.
    assert next(line for line in out.splitlines() if line.startswith("bad_vis ")).split()[-1] == "="
    assert "NOT equal" in out


def test_json(run, capsys):
    (tile_id,) = (path.name for path in (run / "out" / "tiles").iterdir())
    row = pq.read_table(run / "out" / "tiles" / tile_id / "scores.parquet").slice(0, 1).to_pylist()[0]
    code, out, _ = scanner(capsys, "replay", run / "out", f"{tile_id}/{row['target_id']}", "--json")
    assert code == 0
    report = ReplayReport.model_validate_json(out)
    assert (report.tile_id, report.target_id, report.ra) == (tile_id, row["target_id"], row["ra"])
    assert json.loads(out)["pixels"]["agreement"] == "equal"


@pytest.mark.parametrize(("wanted", "code", "said"), [("#9999", 66, "no object has rank 9999"), ("what", 64, "'what'")])
def test_mistakes_are_told_in_one_line(run, capsys, wanted, code, said):
    found, out, err = scanner(capsys, "replay", run / "out", wanted)
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1
