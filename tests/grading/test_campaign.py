"""Campaigns: what is handed out to whom, when and how often; known answers that nothing tells apart."""

import math
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest
from made_catalogue import files_of, made_rows

from scanner.catalogue.hats import write_hats
from scanner.cli.main import main
from scanner.errors import UsageError
from scanner.grading import store as database
from scanner.grading.campaign import LEASE_S, Campaigns, Plan, Subject, choose, known_needed, matched
from scanner.grading.crowd import crowd
from scanner.grading.grade import NewGrade, Place, Viewer
from scanner.grading.queue import Mix
from scanner.grading.store import GradeStore
from scanner.labels.table import LabelRow
from scanner.query.catalogue import Catalogue
from scanner.query.region import Cone


@pytest.fixture
def store(tmp_path):
    return GradeStore(tmp_path / "grades.sqlite")


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def campaigns(store, clock):
    return Campaigns(store, clock)


def place(number, run="run-1"):
    return Place(f"{run}/10/{number}", f"EUCL J{number}", 10.0 + 0.01 * number, -5.0)


def objects(n):
    return [Subject(place(number)) for number in range(n)]


def painted(n):
    return [Subject(place(1000 + number, "painted"), number % 2 == 0, salted=True) for number in range(n)]


def plan(**changes):
    return Plan(**{"name": "first", "selection": "made", "votes": 2, "seed": 7} | changes)


def ids(handed):
    return [one.subject.place.candidate_id for one in handed]


def vote_on(campaigns, grader, handed, grade="A", name="first"):
    for one in handed:
        campaigns.vote(name, grader, one.id, NewGrade(grade=grade))


def test_no_object_is_in_more_hands_than_it_lacks_votes(campaigns):
    campaigns.create(plan(), objects(5))
    ann, bob = (campaigns.hand_out("first", name, 3) for name in ("Ann", "Bob"))
    assert ids(ann) == ids(bob) == [place(number).candidate_id for number in range(3)]
    # Two votes are wanted, and two have it in hand.
    assert ids(campaigns.hand_out("first", "Cyd", 9)) == [place(3).candidate_id, place(4).candidate_id]
    assert {one.id for one in ann} & {one.id for one in bob} == set()
    vote_on(campaigns, "Ann", ann)
    vote_on(campaigns, "Bob", bob)
    found = campaigns.get("first")
    assert (found.n_done, found.n_objects, found.n_votes) == (3, 5, 6)
    assert [(one.grader, one.n_votes) for one in found.graders] == [("Ann", 3), ("Bob", 3)]
    # Nobody gets one again.
    assert ids(campaigns.hand_out("first", "Ann", 9)) == [place(3).candidate_id, place(4).candidate_id]


def test_who_asks_again_gets_the_same_and_others_get_it_when_its_time_is_over(campaigns, clock):
    campaigns.create(plan(votes=1), objects(3))
    ann = campaigns.hand_out("first", "Ann", 2)
    assert campaigns.hand_out("first", "Ann", 2) == ann
    assert ids(campaigns.hand_out("first", "Bob", 2)) == [place(2).candidate_id]
    clock.now += LEASE_S + 1
    bob = campaigns.hand_out("first", "Bob", 3)
    assert sorted(ids(bob)) == [place(number).candidate_id for number in range(3)]
    assert campaigns.hand_out("first", "Ann", 3) == ()
    # A vote that comes late is kept: somebody has given it.
    vote_on(campaigns, "Ann", ann[:1])
    vote_on(campaigns, "Bob", bob)
    assert campaigns.get("first").n_votes == 4
    assert campaigns.get("first").n_done == 3


def test_several_threads_share_out_all_objects(store):
    Campaigns(store).create(plan(votes=2), objects(30))
    seen = {name: [] for name in ("Ann", "Bob", "Cyd", "Dan")}

    def grade(name):
        mine = Campaigns(store)
        while handed := mine.hand_out("first", name, 4):
            seen[name] += ids(handed)
            vote_on(mine, name, handed)

    threads = [threading.Thread(target=grade, args=(name,)) for name in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(one for names in seen.values() for one in names) == {place(number).candidate_id: 2 for number in range(30)}
    assert all(len(set(names)) == len(names) for names in seen.values())


def test_a_campaign_is_paused_resumed_closed_and_over(campaigns, clock):
    until = datetime.fromtimestamp(clock.now + 60, UTC)
    campaigns.create(plan(until=until), objects(4))
    handed = campaigns.hand_out("first", "Ann", 1)
    campaigns.set_state("first", "paused")
    assert campaigns.hand_out("first", "Ann", 1) == ()
    vote_on(campaigns, "Ann", handed)
    assert campaigns.get("first").n_votes == 1
    campaigns.set_state("first", "running")
    assert len(campaigns.hand_out("first", "Ann", 1)) == 1
    clock.now += 61
    assert campaigns.hand_out("first", "Ann", 1) == ()
    assert campaigns.get("first").is_over
    campaigns.set_state("first", "closed")
    with pytest.raises(UsageError, match="closed, which is for good"):
        campaigns.set_state("first", "running")
    campaigns.create(plan(name="second"), objects(2))
    assert [(one.plan.name, one.state) for one in campaigns.all()] == [("second", "running"), ("first", "closed")]


def test_what_is_refused(campaigns):
    for changes, sentence in (
        ({}, "no object is asked for"),
        ({"rate": 0.1}, "make it blind"),
        ({"rate": 0.1, "blind": True}, "take the random order"),
        ({"rate": 0.1, "blind": True, "order": "random"}, "0 known answers do not last for 20 objects"),
    ):
        with pytest.raises(UsageError, match=sentence):
            campaigns.create(plan(**changes), [] if not changes else objects(20))
    campaigns.create(plan(graders=("Ann",)), objects(2))
    with pytest.raises(UsageError, match="a campaign of this name"):
        campaigns.create(plan(), objects(2))
    with pytest.raises(UsageError, match="Bob does not take part"):
        campaigns.hand_out("first", "Bob", 1)
    (handed,) = campaigns.hand_out("first", "Ann", 1)
    with pytest.raises(UsageError, match="Nothing of this name was handed to you"):
        campaigns.vote("first", "Bob", handed.id, NewGrade(grade="A"))
    with pytest.raises(UsageError, match="no campaign"):
        campaigns.get("second")


def test_a_vote_that_is_sent_twice_is_kept_once_and_thinking_again_is_not(campaigns, store):
    campaigns.create(plan(), objects(2))
    (one,) = campaigns.hand_out("first", "Ann", 1)
    said = NewGrade(grade="B", comment="an arc", tags=("arc", "ring"), key="0123456789abcdef")
    first = campaigns.vote("first", "Ann", one.id, said)
    assert campaigns.vote("first", "Ann", one.id, said) == first
    assert len(store.history(one.subject.place)) == 1
    assert first.entry.tags == ("arc", "ring")
    campaigns.vote("first", "Ann", one.id, NewGrade(grade="C"))
    assert [entry.grade for entry in store.history(one.subject.place)] == ["B", "C"]
    assert campaigns.get("first").n_votes == 1


SALTED = {"rate": 0.2, "blind": True, "order": "random", "votes": 1}


def test_known_answers_come_at_their_rate_and_the_same_seed_gives_the_same(tmp_path, clock):
    handed = []
    for folder in ("one", "other"):
        campaigns = Campaigns(GradeStore(tmp_path / folder / "grades.sqlite"), clock)
        campaigns.create(plan(**SALTED), [*objects(200), *painted(known_needed(200, 0.2))])
        handed.append(campaigns.hand_out("first", "Ann", 400))
    assert handed[0] == handed[1]
    is_known = np.array([one.subject.known is not None for one in handed[0]])
    assert (~is_known).sum() == 200
    assert abs(is_known.mean() - 0.2) < 4 * math.sqrt(0.2 * 0.8 / len(is_known))
    # Neither place, nor what came before, nor the name tells of it.
    places = np.flatnonzero(is_known) / len(is_known)
    assert abs(places.mean() - 0.5) < 4 / math.sqrt(12 * len(places))
    after = is_known[1:][is_known[:-1]]
    assert abs(after.mean() - 0.2) < 4 * math.sqrt(0.2 * 0.8 / len(after))
    digits = np.array([[int(digit, 16) for digit in one.id] for one in handed[0]])
    apart = digits[is_known].mean(axis=0) - digits[~is_known].mean(axis=0)
    assert np.abs(apart).max() < 4.5 * math.sqrt(255 / 12 * (1 / is_known.sum() + 1 / (~is_known).sum()))


def test_painted_objects_teach_skill_and_are_none_of_the_sky(campaigns, store):
    """Painted into a copy of the very mosaics that are graded: at the place of an object of the sky."""
    host = place(1000)
    store.give(host, "Cyd", "X")
    campaigns.create(plan(**SALTED | {"rate": 0.4, "feedback": True}), [*objects(20), *painted(60)])
    told = {}
    for one in campaigns.hand_out("first", "Ann", 80):
        told[one] = campaigns.vote("first", "Ann", one.id, NewGrade(grade="A" if one.subject.known else "X")).answer
    assert all(answer == one.subject.known for one, answer in told.items())
    n_known = sum(one.subject.known is not None for one in told)
    assert n_known >= 5
    known = campaigns.known_answers()
    assert len(known) == n_known
    # The host's grade, and labels, know nothing of what was painted over it.
    assert [(entry.grader, entry.grade) for entry in store.standing_of(host)] == [("Cyd", "X")]
    assert {entry.candidate_id.partition("/")[0] for entry in store.standing()} == {"run-1"}
    record, _ = crowd(store.standing(salted=True), store.places(), {}, known)
    (ann,) = [skill for skill in record.skills if skill.grader == "Ann"]
    assert sum(ann.of_lenses) + sum(ann.of_others) == n_known
    assert (ann.finds.value, ann.rejects.value) == (1.0, 1.0)
    # Who was told the answer cannot vote again.
    with pytest.raises(UsageError, match="first vote"):
        campaigns.vote("first", "Ann", next(iter(told)).id, NewGrade(grade="B"))
    with pytest.raises(UsageError, match="was graded as an object of the sky"):
        campaigns.create(plan(name="second"), [*objects(2), Subject(host, known=True, salted=True)])


def test_a_painted_object_in_the_field_of_another_is_left_out(campaigns):
    near = Subject(Place("painted/10/1", "", 10.0, -5.0 + 15 / 3600), known=True, salted=True)
    found = campaigns.create(plan(**SALTED | {"rate": 0.0}), [*objects(3), near, *painted(2)])
    assert found.n_known == 2


def test_a_blind_campaign_closes_the_catalogue_to_its_graders(campaigns):
    campaigns.create(plan(blind=True, graders=("Ann",)), objects(2))
    viewers = [
        Viewer("Ann", "grade", True),
        Viewer(None, "grade", False),
        Viewer("Bob", "grade", True),
        Viewer("Eve", "read", True),
    ]
    assert [campaigns.closes_catalogue_to(one) for one in viewers] == ["first", "first", None, None]
    campaigns.set_state("first", "closed")
    assert campaigns.closes_catalogue_to(viewers[0]) is None


@pytest.fixture(name="catalogue", scope="module")
def catalogue_fixture(tmp_path_factory):
    rng = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("made")
    rows = made_rows(rng.uniform(30, 31, 300), rng.uniform(-10, -9, 300), seed=2)
    write_hats(rows, folder / "catalogue", "made", 100)
    return Catalogue.open(files_of(folder)), rows.to_pylist()


def test_objects_are_chosen_by_rank_region_query_name_chance_and_queue(catalogue):
    opened, rows = catalogue

    def named(rows):
        return [f"{row['run']}/{row['tile_id']}/{row['target_id']}" for row in rows]

    assert [one.candidate_id for one in choose(opened, top=5)] == named(rows[:5])
    inside = [row for row in rows if row["ra"] < 30.5]
    found = choose(opened, sql="SELECT * FROM objects WHERE ra < 30.5 ORDER BY rank")
    assert [one.candidate_id for one in found] == named(inside)
    assert [one.name for one in choose(opened, names=[rows[7]["name"], named(rows)[3]])] == [rows[7]["name"], rows[3]["name"]]
    cone = choose(opened, region=Cone(30.5, -9.5, 0.2))
    assert 10 < len(cone) < 80
    by_chance = choose(opened, top=5, control=20, order="random", seed=1)
    assert len(by_chance) in range(20, 26)
    assert set(named(rows[:5])) <= {one.candidate_id for one in by_chance}
    assert by_chance == choose(opened, top=5, control=20, order="random", seed=1)
    assert by_chance != choose(opened, top=5, control=20, order="random", seed=2)
    assert {one.candidate_id for one in choose(opened, top=50, order="queue")} == set(named(rows[:50]))
    # What is graded is not asked for again.
    graded = [[Place(name, "", 0.0, 0.0)] for name in named(rows[:20])]
    assert {one.candidate_id for one in choose(opened, top=50, order="queue", graded=graded)} == set(named(rows[20:50]))
    with pytest.raises(UsageError, match="All of these objects are graded"):
        choose(opened, top=20, order="queue", graded=graded)
    weights = Mix(probable=1.0, uncertain=0.0, different=0.0, random=0.0)
    assert [one.candidate_id for one in choose(opened, top=9, order="queue", mix=weights)] == named(rows[:9])
    for wrong, sentence in (
        ({}, "No object was chosen"),
        ({"names": ["EUCL J000000.00+000000.0"]}, "no such object"),
        ({"sql": "SELECT ra FROM objects"}, "no column run"),
    ):
        with pytest.raises(UsageError, match=sentence):
            choose(opened, **wrong)


def test_known_answers_are_found_in_a_catalogue(catalogue):
    opened, rows = catalogue
    table = [LabelRow(0, "lens", rows[4]["ra"], rows[4]["dec"], is_lens=True), LabelRow(1, "other", 200.0, 0.0)]
    (found,) = matched(table, opened, salted=True)
    assert (found.place.name, found.known, found.salted) == (rows[4]["name"], True, True)


def test_commands(served_campaign, capsys):
    folder, told = served_campaign
    out = told("create", "first", folder, "--top", 4, "--votes", 2, "--grader", "Ann", "--until", "2999-01-02")
    assert out.startswith(
        "first: running; 0 of 4 objects have 2 votes\n  top 4; in given order; until 2999-01-02 00:00 UTC\n  Ann: 0"
    )
    assert told("pause", "first").startswith("first: paused")
    assert told("resume", "first").startswith("first: running")
    assert '"state": "running"' in told("status", "--json")
    assert told("close", "first").startswith("first: closed")
    assert told("status").startswith("first: closed")


@pytest.fixture
def served_campaign(finished_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def told(*words):
        with pytest.raises(SystemExit) as caught:
            main(["grades", "campaign", *map(str, words)])
        captured = capsys.readouterr()
        assert caught.value.code == 0, captured.err
        return captured.out

    return finished_run, told


def test_a_file_of_the_layout_before_is_read_and_gains_the_tables_of_campaigns(store):
    store.path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(store.path)) as old:
        for statement in database._FIRST_LAYOUT.split(";\n"):
            old.execute(statement)
        old.execute("INSERT INTO objects VALUES (1, 10.0, -5.0)")
        old.execute("INSERT INTO sightings VALUES ('run-1/10/0', 1, 'EUCL J0', 10.0, -5.0)")
        old.execute("INSERT INTO entries VALUES (1, 1, 'run-1/10/0', 'Ann', 'A', '', '2026-01-01T00:00:00+00:00', '', 0, NULL)")
        old.execute("PRAGMA user_version = 1")
        old.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
        old.commit()
    (entry,) = store.standing()
    assert (entry.grade, entry.tags) == ("A", ())
    assert Campaigns(store).all() == ()
    Campaigns(store).create(plan(), objects(2))
    assert len(Campaigns(store).all()) == 1
