"""``scanner recovery`` on a run: what it writes, how it goes on after a kill, what it refuses, and the rank of each lens."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import resealed
from scans import in_this_process

import scanner
from scanner.cli.main import main
from scanner.errors import OutputError
from scanner.grading.grade import Place
from scanner.grading.store import GradeStore
from scanner.records import Tile
from scanner.recovery import look, scan, stage
from scanner.recovery.lenses import FATES, SCHEMA
from scanner.recovery.paint import Waves
from scanner.simulation.injection.painting import Plan
from scanner.simulation.injection.places import EMPTY
from scanner.storage import open_store
from scanner.survey import candidate_stage

N = 6


@pytest.fixture(scope="module")
def recovered(finished_run, tmp_path_factory):
    """A recovery of a finished run, and what was reported."""
    out = tmp_path_factory.mktemp("recovery") / "rec"
    with in_this_process(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "LENSES_PER_JOB", 2)
        return out, scanner.recover(finished_run, out=out, n=N, seed=4, progress=False)


def test_each_lens_has_a_row_with_its_fate_and_its_rank(recovered, finished_run):
    out, report = recovered
    assert (report.n_before, report.n_done, report.failed) == (0, N, ())
    files = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert files == {"lenses.parquet", "pictures.parquet", "recovery.json"}
    lenses = pq.read_table(out / "lenses.parquet")
    assert lenses.schema.equals(SCHEMA, check_metadata=True)
    rows = lenses.to_pylist()
    assert [row["target_id"] for row in rows] == list(range(N))
    assert sum(report.record.fates.values()) == N
    assert {row["fate"] for row in rows} <= set(FATES)
    catalogue = scanner.open(finished_run).objects.to_table(columns=["p_calibrated", "grid_value", "ra", "dec"]).to_pylist()
    ranked = [row for row in rows if row["rank"] > 0]
    assert len(ranked) >= 2
    for row in rows:
        assert (row["rank"] > 0) == np.isfinite(row["probability"]) == (row["fate"] in ("scored", "screened out"))
        assert row["deflector_is_real"] == (row["host_id"] != -1)
        # These mosaics have the zero point of the simulation, and about the noise of the Wide Survey.
        assert row["seen_arc_snr"] == pytest.approx(row["arc_snr"] * 0.00275 / row["seen_sky_sigma"], rel=1e-4)
    for row in ranked:
        mine = (row["probability"], np.nan_to_num(row["grid_value"], nan=-1.0))
        others = [one for one in catalogue if not is_at(one, row)]
        better = sum((one["p_calibrated"], np.nan_to_num(one["grid_value"], nan=-1.0)) > mine for one in others)
        assert row["rank"] == 1 + better


def is_at(one, row, radius_arcsec=0.5):
    """Whether an object of the catalogue lies where a lens does."""
    east = (one["ra"] - row["ra"]) * np.cos(np.radians(row["dec"]))
    return np.hypot(east, one["dec"] - row["dec"]) * 3600 < radius_arcsec


def test_a_lens_takes_the_place_of_its_deflector_in_the_rank(recovered, finished_run):
    run = scanner.open(finished_run)
    best, second = run.query(top=2, arrow=True).to_pylist()
    lenses = pq.read_table(recovered[0] / "lenses.parquet").slice(0, 1)
    for name, value in (("ra", best["ra"]), ("dec", best["dec"]), ("probability", second["p_calibrated"] * 0.9999)):
        field = lenses.schema.field(name)
        lenses = lenses.set_column(lenses.schema.get_field_index(name), field, pa.array([value], field.type))
    catalogue = run.published.open_catalogue()
    at_best = stage.ranked(lenses, catalogue, "probability", 0.5)["rank"].to_pylist()
    field = lenses.schema.field("dec")
    away = lenses.set_column(lenses.schema.get_field_index("dec"), field, pa.array([best["dec"] + 1.0]))
    # The best object is its deflector, so that it has only the second one before it.
    assert (at_best, stage.ranked(away, catalogue, "probability", 0.5)["rank"].to_pylist()) == ([2], [3])


@pytest.mark.parametrize(
    ("apart_arcsec", "is_real", "is_blended"),
    [(0.0, True, False), (0.0, False, True), (0.8, True, True), (1.1, False, False)],
)
def test_a_lens_is_blended_with_a_real_object_but_its_host(recovered, finished_run, apart_arcsec, is_real, is_blended):
    run = scanner.open(finished_run)
    (best,) = run.query(top=1, arrow=True).to_pylist()
    lenses = pq.read_table(recovered[0] / "lenses.parquet").slice(0, 1)
    moved = {"ra": best["ra"], "dec": best["dec"] + apart_arcsec / 3600, "deflector_is_real": is_real}
    for name, value in moved.items():
        field = lenses.schema.field(name)
        lenses = lenses.set_column(lenses.schema.get_field_index(name), field, pa.array([value], field.type))
    (found,) = stage.ranked(lenses, run.published.open_catalogue(), "probability", 0.5)["blended_id"].to_pylist()
    assert found == (best["target_id"] if is_blended else -1)


BRIGHT = "theta_e_arcsec,source_magnitude_vis,deflector_magnitude_vis\n1.2,23.0,19.5\n"


@pytest.mark.parametrize("painted_twice", [True, False])
def test_a_lens_at_an_edge_is_found_in_the_neighbour_that_has_it_whole(finished_run, tmp_path, monkeypatch, painted_twice):
    first, second = scanner.open(finished_run).published.runs[0].record().tile_ids[:2]

    def in_the_overlap(tile_id, places, request, n_lenses, number):
        rows = np.flatnonzero((places.kind == EMPTY) & (places.x < 40) & (abs(places.y - 320) < 200))
        plan = Plan(
            np.zeros(n_lenses, dtype=np.int64), places.take(rows[:n_lenses]), ("lens",) * n_lenses, np.ones(1, dtype=bool)
        )
        return Waves(plan, np.zeros(n_lenses, dtype=np.int32), number)

    monkeypatch.setattr(scan, "lay_waves", in_the_overlap)
    monkeypatch.setattr(stage, "shares", lambda n, areas: {name: int(name == first) for name in sorted(areas)})
    if not painted_twice:
        monkeypatch.setattr(scan.Neighbour, "holds", lambda self, ra, dec: np.zeros(len(ra), dtype=bool))
    (tmp_path / "bright.csv").write_text(BRIGHT)
    with in_this_process():
        scanner.recover(
            finished_run, out=tmp_path / "rec", n=1, ground="sky", population=tmp_path / "bright.csv", progress=False
        )
    (row,) = pq.read_table(tmp_path / "rec" / "lenses.parquet").to_pylist()
    assert (row["tile_id"], row["x"] < 40) == (first, True)
    wanted = ("scored", second) if painted_twice else ("near an edge", first)
    assert (row["fate"], row["found_tile_id"]) == wanted
    assert (row["rank"] > 0) == painted_twice


def test_tiles_that_meet_are_neighbours():
    def square(ra):
        return ((ra - 0.05, -0.05), (ra + 0.05, -0.05), (ra + 0.05, 0.05), (ra - 0.05, 0.05))

    outlines = {"a": square(359.97), "b": square(0.05), "c": square(0.14), "d": square(1.0)}
    assert stage._overlaps(outlines) == {"a": ["b"], "b": ["a", "c"], "c": ["b"], "d": []}
    tile = Tile(tile_id="a", bands={})
    beside = scan.Neighbour(tile=tile, input_fingerprint="", n_lenses=1, outline=outlines["a"])
    assert beside.holds(np.array([0.01, 0.03, 359.93, 359.97]), np.array([0.0, 0.0, 0.0, 0.06])).tolist() == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.usefixtures("without_workers")
def test_a_killed_recovery_goes_on_and_gives_the_same_bytes(recovered, finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "LENSES_PER_JOB", 2)
    out, one_by_one = tmp_path / "rec", candidate_stage.run_on_workers

    def killed(jobs, *arguments, **words):
        for done, outcome in enumerate(one_by_one(jobs, *arguments, **words)):
            yield outcome
            if done == 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(candidate_stage, "run_on_workers", killed)
    with pytest.raises(KeyboardInterrupt):
        scanner.recover(finished_run, out=out, n=N, seed=4, progress=False)
    assert not (out / "lenses.parquet").exists()
    monkeypatch.setattr(candidate_stage, "run_on_workers", one_by_one)
    report = scanner.recover(finished_run, out=out, n=N, seed=4, progress=False)
    assert (report.n_before, report.n_done) == (2, N - 2)
    assert (out / "lenses.parquet").read_bytes() == (recovered[0] / "lenses.parquet").read_bytes()
    again = scanner.recover(finished_run, out=out, n=N, seed=4, progress=False)
    assert (again.n_before, again.n_done) == (N, 0)
    with pytest.raises(OutputError, match="holds another recovery, of other lenses"):
        scanner.recover(finished_run, out=out, n=N, seed=5, progress=False)


@pytest.mark.usefixtures("without_workers")
def test_lenses_that_reach_the_runs_models_are_modelled(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(look.ModelReach, "of", lambda catalogue: look.ModelReach(rank=10**6, all_candidates=True))
    monkeypatch.setattr(candidate_stage, "CANDIDATES_PER_JOB", 1)
    out, one_by_one, n_jobs = tmp_path / "rec", candidate_stage.run_on_workers, []
    (tmp_path / "bright.csv").write_text(BRIGHT.replace("\n", ",source_offset\n", 1).replace("19.5", "19.5,0.4"))
    asked = {"n": 2, "seed": 2, "ground": "sky", "population": tmp_path / "bright.csv", "models": 1, "progress": False}

    def killed(jobs, *arguments, **words):
        for outcome in one_by_one(jobs, *arguments, **words):
            n_jobs.append(len(jobs))
            yield outcome
            if isinstance(jobs[0], look.LookJob):
                raise KeyboardInterrupt

    monkeypatch.setattr(candidate_stage, "run_on_workers", killed)
    with pytest.raises(KeyboardInterrupt):
        scanner.recover(finished_run, out=out, **asked)
    assert not (out / "lenses.parquet").exists()
    (first,) = (out / look.LOOKS).iterdir()
    before = first.read_bytes()
    n_looks = n_jobs[-1]
    monkeypatch.setattr(candidate_stage, "run_on_workers", one_by_one)
    monkeypatch.setattr(look.ModelReach, "of", lambda catalogue: None)
    report = scanner.recover(finished_run, out=out, **asked)
    assert (report.failed, report.record.models.rank) == ((), 10**6)
    lenses = pq.read_table(out / "lenses.parquet")
    assert lenses.schema.equals(SCHEMA, check_metadata=True)
    rows = lenses.to_pylist()
    assert [row["reaches_models"] for row in rows] == [row["rank"] > 0 for row in rows]
    assert [bool(row["model_verdict"]) for row in rows] == [True, False]
    pictures = pq.read_table(out / "pictures.parquet")
    assert len(pictures) == n_looks == 2
    (kept,) = pq.read_table(pa.BufferReader(before)).to_pylist()
    (again,) = [row for row in rows if row["target_id"] == kept["target_id"]]
    assert [kept[name] == again[name] for name in ("model_verdict", "model_theta_e", "ln_evidence_ratio")] == [True] * 3
    # This bright ring stands alone in the sky: what is painted is what is measured.
    assert again["model_theta_e"] == pytest.approx(1.2, rel=0.05)


@pytest.mark.usefixtures("without_workers")
def test_run_and_recovery_on_s3_give_the_same_bytes(recovered, finished_run, s3, capsys, monkeypatch):
    monkeypatch.setattr(stage, "LENSES_PER_JOB", 2)
    run, out = s3.fresh(), s3.fresh()
    for path in sorted(finished_run.rglob("*")):
        if path.is_file():
            open_store(run, s3.config).write(path.relative_to(finished_run).as_posix(), path.read_bytes())
    code, text = said(capsys, "recovery", run, "--out", out, "--n", N, "--seed", 4, "--endpoint", s3.endpoint)
    assert (code, f"all are in {out}/lenses.parquet" in text) == (0, True), text
    assert open_store(out, s3.config).read("lenses.parquet") == (recovered[0] / "lenses.parquet").read_bytes()


def said(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return caught.value.code, captured.out + captured.err


@pytest.mark.usefixtures("without_workers")
def test_what_cannot_be_done_is_said_in_a_sentence(recovered, finished_run, tmp_path, capsys):
    run = shutil.copytree(finished_run, tmp_path / "run")
    out = shutil.copytree(recovered[0], tmp_path / "rec")
    asked = ("--n", N, "--seed", 4)
    code, text = said(capsys, "recovery", run, "--out", out, *asked)
    assert (not code, f"0 scanned now, {N} before" in text, "Fewer than 100 came out as lenses" in text) == (
        True,
        True,
        True,
    ), text
    # Another file in the place of the one that the run scanned.
    record = json.loads((run / "run.json").read_text())
    tile_id = record["tile_ids"][0]
    resealed(run / "tiles" / tile_id / "commit.json", input_fingerprint="0" * 32)
    code, text = said(capsys, "recovery", run, "--out", out, *asked)
    assert (code, "the run's tiles have changed since this recovery was begun" in text) == (73, True), text
    code, text = said(capsys, "recovery", run, "--out", tmp_path / "other", "--n", 3)
    assert (code, f"tile {tile_id}: its files have changed since the run scanned it" in text) == (3, True), text
    assert 0 < len(pq.read_table(tmp_path / "other" / "lenses.parquet")) < 3
    # The disk takes no part.
    full = tmp_path / "full"
    full.mkdir()
    (full / "parts").write_text("")
    shutil.copy(out / "recovery.json", full)
    resealed(full / "recovery.json", complete=False)
    code, text = said(capsys, "recovery", finished_run, "--out", full, *asked)
    assert (code, "parts" in text, text.count("\n")) == (73, True, 1), text
    # A run that is still going on, and a table that holds no lenses.
    resealed(run / "run.json", sha256={})
    code, text = said(capsys, "recovery", run, "--out", tmp_path / "new", *asked)
    assert (code in (66, 78), "give the run's command again" in text) == (True, True), text
    (tmp_path / "bad.csv").write_text("theta_e_arcsec\nlarge\n")
    code, text = said(capsys, "recovery", finished_run, "--out", tmp_path / "new", "--population", tmp_path / "bad.csv")
    assert (code, "row 1 of theta_e_arcsec" in text) == (78, True), text


@pytest.mark.usefixtures("without_workers")
def test_the_verb_makes_the_selection_function_and_takes_up_grades(recovered, finished_run, tmp_path, capsys):
    out = shutil.copytree(recovered[0], tmp_path / "rec")
    asked = ("recovery", finished_run, "--out", out, "--n", N, "--seed", 4)
    code, text = said(capsys, *asked)
    assert (code, "Fewer than 100 came out as lenses" in text) == (0, True), text
    # The same few lenses often enough: what they are is not asked here.
    lenses = pq.read_table(out / "lenses.parquet")
    pq.write_table(pa.concat_tables([lenses] * 40), out / "lenses.parquet")
    resealed(out / "recovery.json", n_lenses=40 * N)
    best = scanner.open(finished_run).query(top=1, arrow=True).to_pylist()[0]
    place = Place(f"{best['run']}/{best['tile_id']}/{best['target_id']}", best["name"], best["ra"], best["dec"])
    GradeStore(tmp_path / "grades.sqlite").give(place, "Ann", "A")
    code, text = said(capsys, *asked, "--grades", tmp_path / "grades.sqlite", "--density", 20)
    assert (code, f"Look at {out / 'recovery.html'}; {out / 'card.md'} is for a card." in text) == (0, True), text
    selection = json.loads((out / "selection-function.json").read_text())
    assert selection["verdicts"] == [[1, True]]
    assert selection["assumptions"]["density_deg2"] == 20.0
    assert sum(selection["fates"].values()) == 40 * sum(lenses["is_lens"].to_pylist())
    found = scanner.completeness(recovery=out, theta_e=1.0, threshold=0.0)
    scored = np.mean([fate in ("scored", "screened out") for fate in lenses.filter(lenses["is_lens"])["fate"].to_pylist()])
    assert found.value == pytest.approx(scored, abs=0.3)
