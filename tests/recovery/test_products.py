"""The files of a recovery, what Python and the command line read from them, and how they are made of a run."""

import hashlib
import io
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from astropy_healpix import HEALPix
from click.testing import CliRunner
from painted import DEEP, SHALLOW, painted_table, pictures, run_of

import scanner
from scanner.cli.main import scanner as command_line
from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.grading.campaign import Campaigns, Plan, Subject
from scanner.grading.grade import GRADES, NewGrade, Place
from scanner.grading.store import GradeStore
from scanner.interface.opened import Run
from scanner.interface.recovery import scanned_run
from scanner.recovery import products, purity
from scanner.recovery.lenses import LENSES, PICTURES
from scanner.recovery.products import FITS, MAP
from scanner.recovery.purity import Assumptions
from scanner.recovery.selection import CARD, PAGE, SELECTION, TABLE, modelled_lenses, read
from scanner.storage import open_store


def store(folder):
    return open_store(str(folder), StorageConfig())


def test_the_record_holds_what_was_painted(drawn, recovery):
    selection, lenses = read(store(recovery))
    assert selection.n_painted == sum(selection.fates.values()) == len(lenses) == 4000
    assert selection.n_visible == lenses.is_visible.sum()
    assert selection.decided.n_listed == (drawn.probability >= 0.5).sum()
    assert selection.decided.completeness.value == pytest.approx(lenses.is_candidate[lenses.is_visible].mean())
    assert selection.lists[-1].n_listed == len(drawn.probability)
    assert [one.probability for one in selection.lists] == [drawn.probability[one.n_listed - 1] for one in selection.lists]
    assert re.search(r"visible lenses painted into the tiles of sky, the run makes candidates of 7\d%", selection.sentences())
    assert "a purity of" in selection.sentences()
    without = selection.model_copy(update={"decided": selection.decided.model_copy(update={"n_listed": 0})})
    assert "purity" not in without.sentences()


def test_the_same_lenses_give_the_same_files(drawn, recovery):
    made = products.made((recovery / LENSES).read_bytes(), pictures(), run_of(drawn), Assumptions())
    assert list(made) == [TABLE, FITS, MAP, PAGE, CARD, SELECTION]
    assert made == {name: (recovery / name).read_bytes() for name in made}
    said = json.loads(made[SELECTION])["sha256"]
    assert said == {name: hashlib.sha256(made[name]).hexdigest() for name in (TABLE, FITS, MAP, PAGE, CARD)}


def test_lenses_that_nobody_could_see_are_refused(drawn):
    table = painted_table(4, 200, drawn)
    buffer = io.BytesIO()
    pq.write_table(table.set_column(table.column_names.index("visible"), "visible", [np.zeros(200, dtype=bool)]), buffer)
    with pytest.raises(ContentError, match="none of the 200 painted lenses is visible"):
        products.made(buffer.getvalue(), pictures(), run_of(drawn), Assumptions())


def test_the_tables_say_the_same(recovery):
    table, fits = pq.read_table(recovery / TABLE), Table.read(recovery / FITS)
    assert fits.colnames == table.column_names
    assert np.array_equal(fits["n_found"], table["n_found"].to_numpy())
    assert set(table["grade"].to_pylist()) == {""}
    share = table["n_found"].to_numpy() / table["n_painted"].to_numpy()
    assert np.array_equal(share, table["completeness"].to_numpy())
    assert (table["completeness_low"].to_numpy() <= share).all()
    assert (share <= table["completeness_high"].to_numpy()).all()


def test_the_map_shows_a_deep_and_a_shallow_half(recovery):
    table = Table.read(recovery / MAP)
    header = table.meta
    assert (header["PIXTYPE"], header["ORDERING"], header["INDXSCHM"], header["COORDSYS"]) == (
        "HEALPIX", "NESTED", "EXPLICIT", "C",
    )  # fmt: skip
    assert header["NSIDE"] == 2 ** read(store(recovery))[0].map_order
    ra, _ = HEALPix(nside=header["NSIDE"], order="nested").healpix_to_lonlat(table["PIXEL"])
    is_deep = ra.to_value("deg") < 11.6
    assert table["SKY_SIGMA"][is_deep].max() == pytest.approx(DEEP, rel=1e-6)
    is_shallow = ra.to_value("deg") > 12.4
    assert table["SKY_SIGMA"][is_shallow].min() == pytest.approx(SHALLOW, rel=1e-6)
    assert table["COMPLETENESS_LOW"][is_deep].min() > table["COMPLETENESS_HIGH"][is_shallow].max()
    # Cells of a half differ in nothing.
    assert table["COMPLETENESS"][is_deep].std() < 0.01
    assert table["N_PAINTED"].sum() == read(store(recovery))[0].n_visible


def test_the_page_is_one_small_file_that_needs_no_network(recovery):
    page = (recovery / PAGE).read_text(encoding="utf-8")
    assert len(page) < 300_000
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/webp;base64,") == 5 + 4
    painted = pq.read_table(recovery / LENSES).slice(0, 4).to_pylist()
    for title, flag in (("Found", True), ("Lost", False)):
        (section,) = re.findall(rf"<h2>{title}</h2>(.*?)</section>", page, re.DOTALL)
        captions = re.findall(r"<figcaption>(.*?)</figcaption>", section)
        assert captions == [
            f"θ_E {one['theta_e_arcsec']:.2f}″, S/N {one['arc_snr']:.0f}<br>"
            + (f"rank {one['rank']:,}, p {one['probability']:.2g}" if one["rank"] > 0 else one["fate"])
            for one in painted
            if one["is_candidate"] == flag
        ]
    assert "completeness against properties of lenses" in page
    assert "<td>candidates</td>" in page


def test_the_card_states_completeness_with_n_and_interval(recovery):
    selection, lenses = read(store(recovery))
    text = (recovery / CARD).read_text(encoding="utf-8")
    assert selection.sentences() in text
    radius, snr = lenses.values[:, 0], lenses.values[:, 1]
    within = lenses.is_visible & (radius >= 0.8) & (radius < 1.3) & (snr >= 100)
    share = 100 * lenses.is_candidate[within].mean()
    (row,) = [line for line in text.splitlines() if line.startswith("| 0.8″ to 1.3″")]
    assert re.search(rf"\| {share:.0f}% \[\d+%, \d+%\], n {within.sum()} \|", row)
    numbers = [int(n.replace(",", "")) for n in re.findall(r", n ([\d,]+)", text)]
    # Of each row the last is the sum, and all of them together are the visible lenses.
    assert sum(numbers[2::3]) == sum(numbers) / 2 == selection.n_visible


def test_the_card_says_what_lens_models_are_worth(recovery):
    table = pq.read_table(recovery / LENSES)
    rows = table.filter(table["visible"]).to_pylist()
    made, certified = modelled_lenses(table), [one for one in rows if one["model_verdict"] == "certified"]
    errors = np.array([one["model_theta_e"] / one["theta_e_arcsec"] - 1 for one in certified])
    assert made.completeness.value == len(certified) / len(rows)
    assert made.n_reached == made.n_modelled == sum(made.verdicts.values())
    # The law that they were drawn from: 4% too much, more or less 3%.
    found = made.theta_e_certified
    assert found.n == len(errors)
    assert found.bias.low < 0.04 < found.bias.high
    assert found.scatter.low < 0.03 * 0.9945 < found.scatter.high
    assert found.measured.value == np.mean(abs(errors) < 0.05)
    assert made.theta_e.missed.value > 0.2 > found.missed.value
    text = (recovery / CARD).read_text(encoding="utf-8")
    assert f"Lens models certify {100 * made.completeness.value:.0f}% [" in text
    assert f"has a bias of {found.bias.value:+.1%} [" in text
    # A share of those that reach the models was modelled: as many would be certified, less surely.
    column = table.column_names.index("model_verdict")
    few = [verdict if number % 5 == 0 else "" for number, verdict in enumerate(table["model_verdict"].to_pylist())]
    fifth = modelled_lenses(table.set_column(column, "model_verdict", [few]))
    assert fifth.n_reached == made.n_reached > 4 * fifth.n_modelled
    assert fifth.completeness.low < made.completeness.value < fifth.completeness.high
    assert fifth.completeness.high - fifth.completeness.low > 1.5 * (made.completeness.high - made.completeness.low)
    assert modelled_lenses(table.set_column(column, "model_verdict", [[""] * len(few)])) is None


def test_other_lenses_than_the_recordss_are_refused(drawn, recovery, tmp_path):
    (tmp_path / SELECTION).write_bytes((recovery / SELECTION).read_bytes())
    with pytest.raises(InputMissingError, match=r"lenses.parquet: is not there; name the folder"):
        read(store(tmp_path))
    pq.write_table(painted_table(3, 200, drawn), tmp_path / LENSES)
    with pytest.raises(ContentError, match=r"lenses.parquet: is not the table that selection-function.json was made of"):
        read(store(tmp_path))


def test_completeness_from_python(recovery):
    found = scanner.completeness(recovery=recovery, theta_e=[[0.5], [1.5]], arc_snr=[20.0, 50.0, 200.0])
    assert found.value.shape == found.low.shape == found.is_outside.shape == (2, 3)
    assert (np.diff(found.value, axis=0) > 0).all()
    assert (np.diff(found.value, axis=1) > 0).all()
    assert ((found.low < found.value) & (found.value < found.high)).all()
    one = scanner.completeness(recovery=recovery, theta_e=1.5, top=200)
    assert one.value.shape == ()
    assert one.value < scanner.completeness(recovery=recovery, theta_e=1.5, threshold=0.01).value
    with pytest.raises(UsageError, match="top or by threshold"):
        scanner.completeness(recovery=recovery, theta_e=1.0, top=10, threshold=0.5)


def test_forecast_on_the_command_line(recovery):
    arguments = ["forecast", "--recovery", str(recovery), "--area", "14000", "--purity", "0.5", "--purity", "0.999"]
    answer = CliRunner().invoke(command_line, arguments, catch_exceptions=False)
    lines = answer.output.splitlines()
    assert lines[0].split() == ["purity", "completeness", "lenses", "candidates", "hours"]
    number = r"\s+[\d,]+ \[[\d,]+, [\d,]+\]"
    assert re.fullmatch(rf"\s*0.5\s+0\.\d\d{number}{number}{number}", lines[1])
    assert lines[2].split() == ["0.999", "–", "–", "–", "–"]
    assert re.fullmatch(r"No list of the run is purer than 0\.\d+\.", lines[3])
    answer = CliRunner().invoke(command_line, [*arguments, "--seconds", "20", "--json"], catch_exceptions=False)
    first = json.loads(answer.output.splitlines()[0])
    assert first["hours"]["value"] == pytest.approx(first["n_listed"]["value"] / 180)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"area_deg2": -1.0}, "An area of -1.0 square degrees"),
        ({"area_deg2": 1.0, "purities": (2.0,)}, "A purity of 2.0"),
        ({"area_deg2": 1.0, "density_deg2": 0.0}, "density_deg2 of 0.0: Input should be greater than 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(recovery, given, message):
    with pytest.raises(UsageError, match=message):
        scanner.forecast(recovery, **given)


def test_another_density_needs_no_other_recovery(recovery):
    few, many = (scanner.forecast(recovery, 1000.0, (0.3,), density_deg2=density)[0] for density in (4.0, 8.0))
    assert few.n_lenses.value < 0.7 * many.n_lenses.value


def test_a_run_is_counted(finished_run):
    run = Run(str(finished_run))
    found = scanned_run(run)
    rows = run.query(arrow=True)
    probability = np.sort(rows["p_calibrated"].to_numpy())
    probability = probability[np.isfinite(probability)][::-1]
    assert found.n_objects == len(probability)
    assert found.n_candidates == rows["is_candidate"].to_numpy().sum()
    assert found.steps[0] == (1, probability[0])
    assert found.steps[-1] == (len(probability), probability[-1])
    assert found.sky_area_deg2 == run.published.sky_area_deg2


def test_grades_of_the_run_and_of_painted_lenses_count(finished_run, drawn, tmp_path, monkeypatch):
    run, file = Run(str(finished_run)), tmp_path / "grades.sqlite"
    places = [
        Place(f"{row['run']}/{row['tile_id']}/{row['target_id']}", row["name"], row["ra"], row["dec"])
        for row in run.query(top=21, arrow=True).to_pylist()
    ]
    grades, campaigns = GradeStore(file), Campaigns(GradeStore(file))
    for place, grade in zip(places[:3], ("A", "X", "C"), strict=True):
        grades.give(place, "Ann", grade)
    # The others are taken for lenses that were painted into copies of the sky, but for one that is none.
    truth = ["ra,dec,is_lens,arc_snr,theta_e_arcsec"]
    truth += [f"{place.ra},{place.dec},{int(k > 0)},{20 + 9 * k},{0.5 + 0.1 * k}" for k, place in enumerate(places[3:])]
    (tmp_path / "truth.csv").write_text("\n".join(truth) + "\n")
    asked = [Subject(Place(f"sky/1/{number}", "", 0.01 * number, -80.0)) for number in range(4)]
    salted = [Subject(place, known=k > 0, salted=True) for k, place in enumerate(places[3:])]
    plan = Plan(name="first", selection="", votes=9, blind=True, rate=0.5, order="random", seed=5)
    campaigns.create(plan, [*asked, *salted])
    given = {}
    for number in range(9):
        for one in campaigns.hand_out("first", f"Volunteer {number}", 20):
            grade = GRADES[(number + len(given)) % 4]
            campaigns.vote("first", f"Volunteer {number}", one.id, NewGrade(grade=grade))
            if one.subject.known:
                given.setdefault(one.subject.place.candidate_id, []).append(GRADES.index(grade))
    medians = [sorted(said)[len(said) // 2] for said in given.values()]
    assert len(medians) >= 12
    monkeypatch.setattr(purity, "LEAST_GRADED", 12)
    pq.write_table(painted_table(5, 300, drawn), tmp_path / LENSES)
    (tmp_path / PICTURES).write_bytes(pictures())
    selection = scanner.selection_function(run, tmp_path, grades=file, known=tmp_path / "truth.csv", salt=[finished_run])
    # What may be either teaches nothing, and what was painted is on no sky.
    assert selection.verdicts == ((1, True), (2, False))
    assert selection.lists[0].n_graded == 2
    assert selection.lists[0].n_graded_lenses == 1
    assert selection.run.title == run.published.title
    assert selection.recognition.n_given == tuple(medians.count(row) for row in range(4))
    assert {row["grade"] for row in pq.read_table(tmp_path / TABLE).to_pylist()} == {"", "A", "B", "C"}
    assert f"as they graded {len(medians)} painted lenses." in (tmp_path / CARD).read_text(encoding="utf-8")
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert ("completeness by grade" in page, "<td>B or better</td>" in page) == (True, True)
    every, good = (scanner.completeness(recovery=tmp_path, theta_e=1.0, grade=grade).value for grade in (None, "B"))
    assert 0 < good < every
