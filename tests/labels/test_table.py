"""Tables of labels: columns, values, presets, and rows that are one object."""

import csv
import json

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.labels.table import PRESETS, LabelRule, read_labels, same_objects


def verdicts(found):
    return {row.number: row.is_lens for row in found.rows}


def reasons(found):
    return {one.row.number: one.reason for one in found.left_out}


@pytest.mark.parametrize("ending", ["csv", "ecsv", "fits", "vot", "parquet"])
@pytest.mark.parametrize(
    ("ra", "dec", "label"),
    [("ra", "dec", "label"), ("RAJ2000", "DEJ2000", "Grade"), ("ALPHA_J2000", "DELTA_J2000", "is_lens")],
)
def test_usual_names_in_all_formats(tmp_path, ending, ra, dec, label):
    table = Table({ra: [10.5, 20.25, 30.0], dec: [-1.0, 2.5, 3.0], label: ["A", "X", "C"], "weight": [1.0, 0.25, 2.0]})
    path = tmp_path / f"t.{ending}"
    table.write(path, **({"format": "votable"} if ending == "vot" else {"format": "ascii.csv"} if ending == "csv" else {}))
    found = read_labels(path)
    assert [(row.ra, row.dec, row.label, row.weight, row.is_lens) for row in found.rows] == [
        (10.5, -1.0, "A", 1.0, True),
        (20.25, 2.5, "X", 0.25, False),
    ]
    assert reasons(found) == {2: "label not used"}
    assert found.columns["label"] == label


def test_columns_that_are_named_and_texts_of_angles(tmp_path):
    path = tmp_path / "t.csv"
    Table({"alpha": ["01:00:00"], "delta": ["-00:30:00"], "vote": ["sure"], "label": ["?"]}).write(path, format="ascii.csv")
    columns = {"ra": "alpha", "dec": "delta", "label": "vote"}
    (row,) = read_labels(path, columns=columns, lens=["sure"], not_lens=["no"]).rows
    assert (row.ra, row.dec, row.is_lens) == (pytest.approx(15.0), pytest.approx(-0.5), True)


@pytest.mark.parametrize(
    ("lens", "not_lens", "expected"),
    [
        ((">=0.7",), ("<0.2",), [True, None, False]),
        (("0.5",), (), [True, False, False]),
        (("0.7",), ("0.2",), [True, None, False]),
        (("0.9", "0.3"), ("0.1",), [True, True, False]),
    ],
)
def test_numbers(tmp_path, lens, not_lens, expected):
    path = tmp_path / "t.csv"
    Table({"ra": [1.0, 2.0, 3.0], "dec": [0.0] * 3, "label": [0.9, 0.3, 0.1]}).write(path, format="ascii.csv")
    found = read_labels(path, lens=lens, not_lens=not_lens)
    assert [verdicts(found).get(number) for number in range(3)] == expected


def test_whole_numbers_are_values_and_not_thresholds():
    rule = LabelRule(("1",), ("0",)).fitted(["0", "1", "2"])
    assert [rule.verdict(label) for label in ("1", "1.0", "0", "2")] == [True, True, False, None]
    with pytest.raises(UsageError, match="'B' is named as --lens and as --not-lens"):
        LabelRule(("A", "b"), ("B",)).verdict("B")
    with pytest.raises(UsageError, match="compares with no number"):
        LabelRule((">=much",)).verdict("1")


def test_one_sentence_says_what_is_wrong(tmp_path):
    path = tmp_path / "t.csv"
    Table({"ra": [1.0], "dec": [2.0], "comment": ["arc"], "z": [0.5]}).write(path, format="ascii.csv")
    with pytest.raises(ContentError, match=r"no column holds labels; name it with --columns label=NAME\. Columns: ra, dec"):
        read_labels(path)
    with pytest.raises(ContentError, match=r"column comment holds arc, and none of this is a lens \(A, B, .*\) or a non-lens"):
        read_labels(path, columns={"label": "comment"})
    with pytest.raises(ContentError, match="has no column grade, which should hold the label"):
        read_labels(path, columns={"label": "grade"})
    with pytest.raises(ContentError, match=r"has no column right_ascension \(preset slde\)"):
        read_labels(path, preset="slde")
    with pytest.raises(ContentError, match="column comment holds something else than angles"):
        read_labels(path, columns={"ra": "comment", "label": "z"})
    with pytest.raises(ContentError, match="the weight 'arc' is no number"):
        read_labels(path, columns={"weight": "comment", "label": "z"})
    with pytest.raises(UsageError, match="--columns colour=…: there is no such column to name"):
        read_labels(path, columns={"colour": "z"})
    with pytest.raises(UsageError, match="no preset 'q1'"):
        read_labels(path, preset="q1")
    with pytest.raises(InputMissingError, match="the table of labels is not there"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "t.txt").write_text("ra dec\n")
    with pytest.raises(ContentError, match="is not a catalogue that can be read"):
        read_labels(tmp_path / "t.txt")


def test_objects_that_are_listed_twice(tmp_path):
    ra = np.array([0.0, 0.9, 1.8, 100.0, 200.0, 200.3]) / 3600  # the first three hang together, 0.9" apart each
    path = tmp_path / "t.csv"
    Table({"ra": ra, "dec": [60.0] * 6, "grade": ["A", "A", "B", "X", "A", "X"]}).write(path, format="ascii.csv")
    found = read_labels(path)
    assert verdicts(found) == {0: True, 3: False}
    assert reasons(found) == {1: "duplicate", 2: "duplicate", 4: "contradiction", 5: "contradiction"}


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["", "", "a", "b"])), min_size=1, max_size=20))
def test_groups_are_those_that_links_reach(objects):
    ra, texts = (list(column) for column in zip(*objects, strict=True))
    found = same_objects([value / 3600 for value in ra], [0.0] * len(ra), 1.5, texts)

    # Plainly: join whom a link joins until nothing changes.
    plain = list(range(len(ra)))
    for _ in plain:
        for i in range(len(ra)):
            for j in range(len(ra)):
                if abs(ra[i] - ra[j]) <= 1 or (texts[i] and texts[i] == texts[j]):
                    plain[i] = plain[j] = min(plain[i], plain[j])
    assert [found[i] == found[j] for i in range(len(ra)) for j in range(i)] == [
        plain[i] == plain[j] for i in range(len(ra)) for j in range(i)
    ]


def test_euclid_sage_is_for_evaluation(tmp_path):
    path = tmp_path / "EUCLID-SAGE-1k-D_VIS.csv"
    columns = {
        "stamp_file": ["stamps/-5_VIS_101.fits", "stamps/7_VIS_101.fits"],
        "label": [1, 0],
        "object_id": [-506795428267682807, 7],
        "lens_id": ["102_NEG5", ""],
        "grade": ["B", ""],
        "vis_magnitude": [20.1, 20.2],
        "right_ascension": [60.0, 61.0],
        "declination": [-50.0, -51.0],
    }
    Table(columns).write(path, format="ascii.csv")
    found = read_labels(path, preset="euclid-sage")
    assert PRESETS["euclid-sage"].purpose == "evaluation"
    assert [(row.is_lens, row.grade, row.name, row.file) for row in found.rows] == [
        (True, "B", "-506795428267682807", "stamps/-5_VIS_101.fits"),
        (False, "", "7", "stamps/7_VIS_101.fits"),
    ]


def test_anomalymatch_takes_positions_from_the_table_beside_it(tmp_path):
    (tmp_path / "labeled_data.csv").write_text(
        'filename,label,note\na.fits,anomaly,"of, mine"\nb.fits,normal,\nc.fits,unsure,\n'
    )
    (tmp_path / "metadata.csv").write_text("filename,sourceID,ra,dec\nb.fits,S_2,328.4,17.7\na.fits,S_1,328.5,17.6\n")
    found = read_labels(tmp_path / "labeled_data.csv", preset="anomalymatch")
    assert [(row.file, row.is_lens, row.ra, row.dec, row.name) for row in found.rows] == [
        ("a.fits", True, 328.5, 17.6, "S_1"),
        ("b.fits", False, 328.4, 17.7, "S_2"),
    ]
    (tmp_path / "metadata.csv").unlink()
    assert not read_labels(tmp_path / "labeled_data.csv", preset="anomalymatch").rows[0].is_placed


def write_votes(path, votes):
    """An export of classifications: (subject, its metadata, annotations) each."""
    names = ("classification_id", "user_name", "created_at", "metadata", "annotations", "subject_data", "subject_ids")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for number, (subject, data, annotations) in enumerate(votes):
            row = [number, "Ann", "2026-01-01", "{}", json.dumps(annotations), json.dumps({subject: data}), subject]
            writer.writerow(row)


def test_votes_of_volunteers_are_counted(tmp_path):
    path = tmp_path / "classifications.csv"
    mark, nothing = [{"task": "T0", "value": [{"x": 1, "y": 2}]}], [{"task": "T0", "value": []}]
    yes, no = [{"task": "T1", "value": "Lens"}], [{"task": "T1", "value": "No lens"}]
    places = {
        "11": {"retired": None, "#ra": 10.0, "#dec": 1.0, "!Filename": "a.fits"},
        "12": {"#ra": "11.0", "#dec": 1.0},
        "13": {"ra": 12.0, "dec": 1.0},
    }
    votes = [
        ("11", mark),
        ("11", mark),
        ("11", nothing),
        ("12", no),
        ("12", no),
        ("13", yes),
        ("13", no),
        ("13", no),
        ("13", no),
    ]
    write_votes(path, [(subject, places[subject], said) for subject, said in votes])
    found = read_labels(path, preset="zooniverse")
    assert [(row.name, row.file, row.ra, row.label, row.weight, row.is_lens) for row in found.rows] == [
        ("11", "a.fits", 10.0, "0.666667", 3.0, True),
        ("12", "", 11.0, "0", 2.0, False),
    ]
    assert [(one.reason, one.row.label) for one in found.left_out] == [("label not used", "0.25")]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ContentError, match="has no column annotations or subject_data"):
        read_labels(path, preset="zooniverse")
