"""The example of the page about adapting, run as it stands: grades and cutouts, a set, an adapted bundle, the gate."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.wcs import WCS
from click.testing import CliRunner
from scans import plain_bundle

from scanner.cli.main import scanner
from scanner.ensemble import bundles
from scanner.errors import UsageError
from scanner.labelled_set import LabelledSet
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.sky import tile_list
from scanner.sphere import chord, unit_vectors

PAGE = Path(__file__).parents[2] / "docs" / "adapting.md"


def write_slde(tile, truth, folder):
    """Cutouts of 300 pixels and their grades, as published."""
    rows = []
    for number, row in enumerate(truth.itertuples()):
        name = f"{number:03d}_NEG{number}"
        hdus = [fits.PrimaryHDU()]
        for band, extension in (("VIS", "VIS"), ("Y", "NIR_Y"), ("J", "NIR_J"), ("H", "NIR_H")):
            with fits.open(tile.bands[band].image.path) as mosaic:
                wcs = WCS(mosaic[0].header)
                place = wcs.all_world2pix([[row.ra, row.dec]], 0)[0]
                cutout = Cutout2D(mosaic[0].data, place, 300, wcs, mode="partial", fill_value=np.nan)
            hdus.append(fits.ImageHDU(cutout.data, cutout.wcs.to_header(), name=f"{extension}_BGSUB"))
        path = folder / "lens" / name / f"{name}.fits"
        path.parent.mkdir(parents=True)
        fits.HDUList(hdus).writeto(path)
        rows.append((name, row.ra, row.dec, "A" if row.visible else "X"))
    table = Table(rows=rows, names=["id_str", "right_ascension", "declination", "grade"])
    table.write(folder / "grades.csv", format="ascii.csv")


def test_the_example_runs_as_it_stands(tmp_path, monkeypatch):
    section = PAGE.read_text().partition("## A complete example")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    commands = [shlex.split(line.removeprefix("$ scanner ")) for line in block.splitlines()]
    assert [words[:2] for words in commands] == [
        ["labels", "import"],
        ["evaluate", "--data"],
        ["train", "adapt"],
        ["models", "publish"],
        ["models", "promote"],
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw_tiles(TilesRequest(n_tiles=1, size=1300, seed=5, overlap=0.0, lenses_per_tile=6, density=2.0), Path("sky"), 1)
    (tile,) = tile_list.read("sky/tile-list.txt").tiles.values()
    truth = pq.read_table("sky/truth.parquet").to_pandas()
    write_slde(tile, pd.concat([truth[truth.visible][:5], truth[~truth.visible & (truth.magnitude_vis < 21.0)][:5]]), tmp_path)
    # The bundle that ships without test-time augmentation, which takes eight times as long.
    commands[1].insert(1, plain_bundle())
    commands[2] += ["--from", plain_bundle(), "--jobs", "1"]
    commands[4] += ["--over", plain_bundle()]
    CliRunner().invoke(
        scanner,
        ["simulate", "dataset", "--preset", "eval", "--n", "12", "--workers", "1", "--out", "drawn"],
        catch_exceptions=False,
    )

    def invoke(words):
        return CliRunner().invoke(scanner, words, standalone_mode=False, catch_exceptions=False)

    said = [invoke(words) for words in commands[:3]]
    assert "adapted/bundle: bundle ou-euclid-sixth-adapted 1" in said[2].output
    adapted = bundles.load("adapted/bundle")
    card = (adapted.path / "MODEL_CARD.md").read_text()
    assert {"held-out-lenses", "held-out-sky"} <= set(re.findall(r"held-out-\w+", card))
    plan = json.loads(Path("adapted/plan.json").read_text())
    # No cutout that was trained on shares a pixel with one that judges.
    parts = {name: LabelledSet(Path("adapted") / name) for name in ("on-galaxies", "on-sky", "held-out-lenses", "held-out-sky")}
    places = {name: unit_vectors(one.store.ra, one.store.dec) for name, one in parts.items()}
    for trained in ("on-galaxies", "on-sky"):
        assert not parts[trained].is_for_evaluation_only
        for judge in ("held-out-lenses", "held-out-sky"):
            assert parts[judge].is_for_evaluation_only
            assert np.linalg.norm(places[trained][:, None] - places[judge], axis=2).min() > chord(20.0)
    # Labelled lenses are no non-lenses.
    graded = LabelledSet("graded")
    assert len(plan["left_out"]) >= graded.truth.is_lens.sum()
    assert graded.fingerprint in plan["request"]["labels"]
    assert graded.was_seen_by(adapted.manifest.trained_on)
    assert not parts["held-out-lenses"].was_seen_by(adapted.manifest.trained_on)
    # The same command is done at once; the old bundle is refused with other settings.
    stamps = {path: path.stat().st_mtime_ns for path in Path("adapted/bundle").iterdir()}
    invoke(commands[2])
    assert stamps == {path: path.stat().st_mtime_ns for path in Path("adapted/bundle").iterdir()}
    with pytest.raises(UsageError, match="holds an adaptation with other seed"):
        invoke([*commands[2], "--seed", "2"])
    invoke(commands[3])
    # Eighty objects teach nothing: what the gate says is a sentence a figure.
    gate = invoke(commands[4])
    assert gate.return_value in (0, 1)
    assert "held-out-lenses" in gate.output
