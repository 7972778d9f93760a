import gzip
import json
import os
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from programs import start_scanner
from scans import quick_bundle
from waiting import LIMIT_S, wait_for

from scanner.cli.main import main
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Screen, SecondStage
from scanner.survey import run as run_module
from scanner.survey.run import RunPlan, TilePlan


def scan(capsys, *words):
    """Exit code, standard output and standard error of ``scanner run …``; the bundle is plain unless one is named."""
    bundle = () if "--bundle" in words else ("--bundle", quick_bundle())
    with pytest.raises(SystemExit) as caught:
        main(["run", *map(str, words), *bundle])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return caught.value.code, captured.out, captured.err


def one_line(err, *named):
    """A refusal is one sentence that names what it is about."""
    assert err.count("\n") == 1, err
    assert err.startswith("scanner: ")
    for word in named:
        assert str(word) in err, err


def mosaic(tile, band):
    return next(tile.glob(f"*BGSUB-MOSAIC-{band}_*"))


def assignments(tile, **changes):
    """``VIS=… Y=…`` of a tile's mosaics, some replaced."""
    names = {"VIS": "VIS", "Y": "NIR-Y", "J": "NIR-J", "H": "NIR-H"}
    files = {band: mosaic(tile, name) for band, name in names.items()} | changes
    return " ".join(f"'{band}={path}'" for band, path in files.items() if path is not None)


@pytest.fixture
def tile(sky):
    return sorted(sky.glob("9*"))[0]


def changed(path, out, change):
    """A copy of a mosaic with its header and pixels changed."""
    with fits.open(path) as hdus:
        header, data = hdus[0].header.copy(), hdus[0].data.copy()
    data = change(header, data)
    fits.writeto(out, data, header)
    return out


@pytest.mark.usefixtures("without_workers")
def test_bad_tiles_are_listed_and_the_others_go_on(tile, tmp_path, capsys):
    vis, y = mosaic(tile, "VIS"), mosaic(tile, "NIR-Y")

    def without_wcs(header, data):
        for key in [key for key in header if key.startswith(("CTYPE", "CRVAL", "CRPIX", "CD", "CUNIT"))]:
            del header[key]
        return data

    def elsewhere(header, data):
        header["CRVAL1"] += 5.0
        return data

    def coarser(header, data):
        for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2"):
            header[key] = header.get(key, 0.0) * 20
        return data

    def empty(header, data):
        return np.full_like(data, np.nan)

    truncated = tmp_path / "truncated.fits"
    truncated.write_bytes(vis.read_bytes()[: vis.stat().st_size // 2])
    not_fits = tmp_path / "not.fits"
    not_fits.write_text("a letter")
    positionless = tmp_path / "positionless.fits"
    Table({"OBJECT_ID": [1, 2], "FLUX": [1.0, 2.0]}).write(positionless)
    outside = tmp_path / "outside.csv"
    Table({"ra": [10.0, 11.0], "dec": [5.0, 6.0]}).write(outside)
    bad = {
        "missing": (assignments(tile, H=tmp_path / "nowhere.fits"), "nowhere.fits"),
        "truncated": (assignments(tile, VIS=truncated), "truncated.fits"),
        "letter": (assignments(tile, J=not_fits), "not.fits"),
        "blind": (assignments(tile, VIS=None), "VIS"),
        "wcsless": (assignments(tile, VIS=changed(vis, tmp_path / "wcsless.fits", without_wcs)), "wcsless.fits"),
        "apart": (assignments(tile, Y=changed(y, tmp_path / "apart.fits", elsewhere)), "apart.fits"),
        "coarse": (assignments(tile, VIS=changed(vis, tmp_path / "coarse.fits", coarser)), "coarse.fits"),
        "blank": (assignments(tile, VIS=changed(vis, tmp_path / "blank.fits", empty)), "blank.fits"),
        "extension": (assignments(tile, VIS=f"{vis}[NIGHT]"), "NIGHT"),
        "positionless": (f"{assignments(tile)} catalogue={positionless}", "positionless.fits"),
    }
    bad["faraway"] = (f"{assignments(tile)} catalogue={outside}", "outside.csv")
    lines = [f"id={name} {line}" for name, (line, _) in bad.items()]
    lines += [f"{tmp_path / 'no-folder'}", str(tile)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    code, out, err = scan(capsys, tmp_path / "list.txt", "--out", tmp_path / "out", "--workers", "1", "--log-format", "json")
    assert code == 3
    told = {line["tile"]: line["reason"] for line in map(json.loads, err.splitlines()) if line["level"] == "error"}
    failed = {row["tile_id"]: row["reason"] for row in Table.read(tmp_path / "out" / "failed-tiles.ecsv")}
    assert failed.keys() == {*bad, "no-folder"}
    assert told == failed
    for name, (_, named) in bad.items():
        assert named in failed[name], failed[name]
        assert "internal error" not in failed[name], failed[name]
    committed = {path.name for path in (tmp_path / "out" / "tiles").iterdir()}
    assert committed == {tile.name}
    assert "1 of 13 tiles done" in out
    assert "failed-tiles.ecsv" in out
    # The first of the reasons are printed.
    assert sum(out.count(f"  {name}: {reason}\n") for name, reason in failed.items()) == 3


@pytest.mark.usefixtures("without_workers")
def test_compressed_mosaics_give_the_same_scores(tile, tmp_path, capsys):
    """RICE without quantisation changes no pixel, nor does gzip: the tables are those of the plain files."""
    packed = tmp_path / "packed"
    packed.mkdir()
    bands = {"VIS": "VIS", "Y": "NIR-Y", "J": "NIR-J", "H": "NIR-H"}
    files = {}
    for band, name in bands.items():
        source = mosaic(tile, name)
        if band == "VIS":
            files[band] = packed / f"{band}.fits.gz"
            files[band].write_bytes(gzip.compress(source.read_bytes(), compresslevel=1))
        else:
            files[band] = packed / f"{band}.fits.fz"
            with fits.open(source) as hdus:
                compressed = fits.CompImageHDU(hdus[0].data, hdus[0].header, compression_type="GZIP_1", quantize_level=0.0)
                fits.HDUList([fits.PrimaryHDU(), compressed]).writeto(files[band])
    catalogue = next(tile.glob("*FINAL-CAT*"))
    (tmp_path / "list.txt").write_text(
        f"id=plain {assignments(tile)} catalogue={catalogue}\nid=packed {assignments(tile, **files)} catalogue={catalogue}\n"
    )
    code, _, _ = scan(capsys, tmp_path / "list.txt", "--out", tmp_path / "out", "--scratch", tmp_path, "--keep", "none")
    assert code == 0
    plain, packed_rows = (
        pq.read_table(tmp_path / "out" / "tiles" / name / "scores.parquet").to_pandas() for name in ("plain", "packed")
    )
    assert len(plain) > 0
    np.testing.assert_array_equal(np.asarray(plain["p_ou_200"]), np.asarray(packed_rows["p_ou_200"]))


@pytest.mark.usefixtures("without_workers")
def test_detection_finds_the_bright_galaxies_of_the_catalogue(tile, tmp_path, capsys):
    (tmp_path / "list.txt").write_text(f"id=1 {assignments(tile)}")
    code, _, _ = scan(capsys, tmp_path / "list.txt", "--out", tmp_path / "out", "--keep", "none")
    assert code == 0
    found = pq.read_table(tmp_path / "out" / "tiles" / "1" / "scores.parquet").to_pandas()
    catalogue = Table.read(next(tile.glob("*FINAL-CAT*")))
    magnitude = 23.9 - 2.5 * np.log10(np.asarray(catalogue["FLUX_DETECTION_TOTAL"]))
    wcs = WCS(fits.getheader(mosaic(tile, "VIS")))
    x, y = wcs.world_to_pixel_values(catalogue["RIGHT_ASCENSION"], catalogue["DECLINATION"])
    inside = (x > 20) & (x < 620) & (y > 20) & (y < 620)
    bright = inside & (magnitude < 21.5)
    nearest = [np.hypot(found["x"] - xx, found["y"] - yy).min() for xx, yy in zip(x[bright], y[bright], strict=True)]
    assert bright.sum() >= 3
    assert np.mean(np.array(nearest) < 5) > 0.8


def test_dry_run_says_what_would_be_done_and_writes_nothing(sky, tmp_path, capsys):
    before = sorted(sky.rglob("*"))
    code, out, _ = scan(capsys, sky / "tile-list.txt", "--dry-run", "--out", tmp_path / "out", "--all")
    assert code == 0
    assert "3 tiles" in out
    assert "objects/s" in out
    assert not (tmp_path / "out").exists()
    assert sorted(sky.rglob("*")) == before


def test_a_dry_run_says_what_the_screen_saves_and_what_a_square_degree_costs(sky, tmp_path, capsys):
    words = [sky / "tile-list.txt", "--dry-run", "--out", tmp_path / "out", "--bundle", bundles.find(None)]
    code, out, _ = scan(capsys, *words)
    assert code == 0
    out = " ".join(out.split())
    share = bundles.load(None).manifest.screen.share_passing
    assert f"all members score about {100 * share:.2g}% of the objects. Without it (--screen none) scoring takes" in out
    number = r"([\d,.]+)"
    costs = {}
    for way in ("with the screen", "--screen none"):
        found = re.search(rf"{way} {number} core-s {number} core-hours {number} core-hours", out)
        costs[way] = [float(value.replace(",", "")) for value in found.groups()]
        degree, q1, wide = costs[way]
        assert q1 == pytest.approx(degree * 63 / 3600, abs=0.1)
        assert wide == pytest.approx(degree * 14_000 / 3600, abs=0.3)
    assert costs["with the screen"] < costs["--screen none"]
    code, out, _ = scan(capsys, *words, "--screen", "none")
    out = " ".join(out.split())
    assert code == 0
    assert "all members score about" not in out
    assert re.search(rf"as planned {number} core-s {number} core-hours {number} core-hours", out)


def test_a_plan_counts_cutting_and_scoring():
    tile = TilePlan(
        tile_id="a", alignment="bin", target_source="catalogue", n_seen=9, n_targets=4, input_bytes=1, sky_area_deg2=0.5,
        cutting_seconds=0.25, n_alike=1,
    )  # fmt: skip
    plan = RunPlan(tiles=(tile,), failed=(), workers=2, objects_per_second=10.0, scoring_seconds=0.125, without_screen=0.5)
    assert plan.core_seconds == pytest.approx(8 * 0.25 + 8 * 0.125)
    assert plan.core_seconds_without_screen == pytest.approx(8 * 0.25 + 8 * 0.5)
    assert plan.seconds == pytest.approx((8 * 0.25 + 8 / 10) / 2)
    always = plan.model_copy(update={"without_screen": None})
    assert always.core_seconds_without_screen == always.core_seconds == plan.core_seconds


@pytest.mark.parametrize(("provider", "slowness"), [("cpu", 1), ("cuda", 2)])
def test_the_cost_of_scoring_is_that_of_the_stages_and_of_the_objects_that_reach_them(monkeypatch, provider, slowness):
    """An object costs the first stage 1 s of a processor, those that turn 8 s, all members 40 s; on the clock twice that."""
    spent = 0.0

    def scoring(seconds):
        def score(*cutouts):
            nonlocal spent
            spent += seconds * len(cutouts[0])

        return score

    monkeypatch.setattr(run_module.time, "process_time", lambda: spent)
    monkeypatch.setattr(run_module.time, "perf_counter", lambda: 2 * spent)
    stages = {"plain_logits": scoring(40), "turned_logits": scoring(8), "screen_logits": scoring(1)}
    session = SimpleNamespace(**stages, provider=provider)
    screen = Screen(members=("OU-66",), log_odds_above=0, share=0.1, second_stage=SecondStage(log_odds_above=0, share=0.02))
    manifest = SimpleNamespace(screen=screen, second_look=SimpleNamespace(share=0.05))
    scorer = SimpleNamespace(bundle=SimpleNamespace(manifest=manifest), session=session, screening=object())
    rates = run_module._scoring_rates(scorer)
    # Seven more orientations, of what stands highest among what all members score.
    planned, everything = 1 + 0.1 * 8 + 0.02 * 40 + 0.02 * 7 * 8, 40 + 0.05 * 7 * 8
    assert rates["objects_per_second"] == pytest.approx(1 / (2 * planned))
    assert rates["scoring_seconds"] == pytest.approx(slowness * planned)
    assert rates["without_screen"] == pytest.approx(slowness * everything)
    assert rates["share_passing"] == 0.02
    manifest.screen = screen.model_copy(update={"second_stage": None})
    assert run_module._scoring_rates(scorer)["scoring_seconds"] == pytest.approx(slowness * (1 + 0.1 * 40 + 0.05 * 7 * 8))
    scorer.screening = None
    rates = run_module._scoring_rates(scorer)
    assert rates.keys() == {"objects_per_second", "scoring_seconds"}
    assert rates["scoring_seconds"] == pytest.approx(slowness * everything)


def test_a_dry_run_of_a_long_list_that_fails_is_a_page(tmp_path, capsys):
    (tmp_path / "list.txt").write_text("".join(f"id=t{n} VIS=/gone/{n}/v.fits\n" for n in range(50)))
    code, out, _ = scan(capsys, tmp_path / "list.txt", "--dry-run")
    assert code == 3
    assert out.count("would fail: /gone/") == 20
    assert "and so would 30 other tiles" in out


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("", 65, "no tile"),
        ("# nothing\n\n", 65, "no tile"),
        ("id=1 VIS=a Y=a J=a H=a\nid=1 VIS=b Y=b J=b H=b\n", 65, "line 1"),
        ("id=1 VIS=a Z=b\n", 65, "Z=b"),
    ],
)
def test_a_bad_tile_list_is_refused(tmp_path, capsys, text, code, named):
    (tmp_path / "list.txt").write_text(text)
    got, _, err = scan(capsys, tmp_path / "list.txt")
    assert got == code
    one_line(err, "list.txt", named)
    assert not (tmp_path / "list-scan").exists()


def test_a_missing_tile_list(tmp_path, capsys):
    code, _, err = scan(capsys, tmp_path / "none.txt")
    assert code == 66
    one_line(err, "none.txt")


@pytest.mark.parametrize(
    ("damage", "code", "named"),
    [
        (lambda folder: shutil.rmtree(folder), 66, "bundle"),
        (lambda folder: (folder / "bundle.json").unlink(), 78, "bundle.json"),
        (lambda folder: (folder / "bundle.json").write_text("{"), 78, "bundle.json"),
        (lambda folder: (folder / "ensemble.onnx").write_bytes(b"tampered"), 78, "ensemble.onnx"),
        (lambda folder: (folder / "grid.npz").unlink(), 78, "grid.npz"),
    ],
)
def test_a_damaged_bundle_is_refused(sky, tmp_path, capsys, damage, code, named):
    folder = tmp_path / "bundle"
    shutil.copytree(bundles.find(None), folder)
    damage(folder)
    got, _, err = scan(capsys, sky / "tile-list.txt", "--out", tmp_path / "out", "--bundle", folder)
    assert got == code
    one_line(err, named)
    assert not (tmp_path / "out").exists()


def test_a_missing_provider_is_refused(sky, tmp_path, capsys):
    code, _, err = scan(capsys, sky / "tile-list.txt", "--out", tmp_path / "out", "--provider", "cuda")
    assert code == 64
    one_line(err, "cuda", "[gpu]'")


def test_a_file_where_the_run_folder_should_be(sky, tmp_path, capsys):
    (tmp_path / "out").touch()
    code, _, err = scan(capsys, sky / "tile-list.txt", "--out", tmp_path / "out")
    assert code == 73
    one_line(err, "out")


def test_an_unwritable_place(sky, capsys):
    code, _, err = scan(capsys, sky / "tile-list.txt", "--out", "/proc/scanner-run")
    assert code == 73
    one_line(err, "/proc/scanner-run")


@pytest.mark.usefixtures("without_workers")
def test_other_settings_in_the_same_folder(sky, tmp_path, capsys):
    words = (sky / "tile-list.txt", "--out", tmp_path / "out", "--workers", "1", "--magnitude-limit", "20")
    assert scan(capsys, *words)[0] == 0
    code, _, err = scan(capsys, *words[:-1], "21")
    assert code == 78
    one_line(err, "targets.magnitude_limit 20.0 → 21.0", "--restart")
    assert scan(capsys, *words[:-1], "21", "--restart")[0] == 0


def test_no_scheduler_answers(sky, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("scanner.survey.workers.cluster.CONNECT_SECONDS", 1)
    code, _, err = scan(capsys, sky / "tile-list.txt", "--out", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    assert code == 75
    assert "tcp://127.0.0.1:9" in err.splitlines()[-1]


#: ``scanner …`` that waits before it draws the contact sheet: its results are merged, and are not in their place yet.
MERGING_FOR_LONG = (
    "import time; from scanner.cli.main import main; from scanner.survey import finish;"
    f"finish.write_sheet = lambda *_: time.sleep({LIMIT_S}); main()"
)


@pytest.mark.usefixtures("without_workers")
@pytest.mark.parametrize("when", ["scanning on 1 worker", "[1/3]", "merging and ranking"])
def test_ctrl_c_leaves_quietly_and_the_run_goes_on(sky, tmp_path, capsys, when):
    words = ["run", str(sky / "tile-list.txt"), "--out", str(tmp_path / "out"), "--workers", "1", "--bundle", quick_bundle()]
    words += ["--log-format", "json"]
    log = tmp_path / "log"
    process = start_scanner(["-c", MERGING_FOR_LONG, *words], log=log, environment=os.environ, folder=tmp_path)
    wait_for(when, lambda: when in log.read_text() or process.poll() is not None)
    # Four times, as the impatient do: into the closing of Dask, and while the interpreter takes itself down.
    for _ in range(4):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
    assert process.wait(LIMIT_S) == 130
    said = [line for line in log.read_text().splitlines() if line and not line.startswith("{")]
    assert said == ["scanner: interrupted; give the same command again and it goes on where it was."]
    assert scan(capsys, *words[1:])[0] == 0
    assert Path(tmp_path / "out" / "candidates.html").exists()
