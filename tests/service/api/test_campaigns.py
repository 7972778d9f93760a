"""Campaigns over HTTP: hand-outs, votes, who sees what; and that nothing the server sends tells known answers apart."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import mannwhitneyu

from scanner.cli.main import scanner
from scanner.grading.campaign import Campaigns, Plan, Subject
from scanner.grading.grade import Place
from scanner.service.security import new_token
from scanner.service.settings import load

API = "/api/v1/campaigns"


@pytest.fixture(scope="module")
def places(rows):
    return [
        Place(f"{row['run']}/{row['tile_id']}/{row['target_id']}", row["name"], row["ra"], row["dec"])
        for row in rows.to_pylist()
    ]


@pytest.fixture
def served(served_run, make_server, tmp_path):
    """A server whose painted run is the same one, so that nothing but the server could tell them apart; headers by name."""
    lines, headers = [], {}
    for name, role in (("Ann", "grade"), ("Bob", "grade"), ("Eve", "read"), ("Lea", "lead")):
        token, line = new_token(name, role)
        lines.append(str(line))
        headers[name] = {"Authorization": f"Bearer {token}"}
    (tmp_path / "tokens").write_text("\n".join(lines))
    settings = {
        "grading.path": str(tmp_path / "grades.sqlite"), "access.tokens": str(tmp_path / "tokens"),
        "grading.salt": str(served_run), "limits.requests_per_minute": 0,
    }  # fmt: skip
    with make_server(load(None, settings, {}), served_run) as running:
        yield running, headers


def begin(server, subjects, **changes):
    plan = Plan(**{"name": "first", "selection": "made", "votes": 1, "seed": 11} | changes)
    return Campaigns(server.context.grades).create(plan, subjects)


def test_objects_are_handed_out_and_voted_on(served, places):
    server, who = served
    begin(server, [Subject(one) for one in places[:10]], votes=2, graders=("Ann",))
    assert server.get(API, headers=who["Bob"]).json() == {"campaigns": [], "may_begin": False, "has_painted": False}
    refused = server.client.post(f"{API}/first/next", headers=who["Bob"])
    assert (refused.status_code, "Bob does not take part" in refused.text) == (400, True)
    assert server.client.post(f"{API}/first/next", headers=who["Eve"]).status_code == 403
    assert server.get(f"{API}/none", headers=who["Ann"]).status_code == 404
    answer = server.client.post(f"{API}/first/next", headers=who["Ann"]).json()
    assert [one["candidate"]["id"] for one in answer["handed"]] == [one.candidate_id for one in places[:8]]
    assert (answer["campaign"]["n_objects"], answer["campaign"]["n_done"], answer["campaign"]["leads"]) == (10, 0, False)
    first = answer["handed"][0]["id"]
    said = {"grade": "B", "comment": "an arc", "tags": ["arc"], "key": "one-and-only", "grader": "Ann"}
    for _ in range(2):
        kept = server.client.post(f"{API}/first/votes/{first}", json=said, headers=who["Ann"])
        assert kept.json() == {"grade": "B", "answer": None, "n_mine": 1}
    (entry,) = server.context.grades.standing()
    assert (entry.grader, entry.grade, entry.tags, entry.catalogue, entry.blind) == (
        "Ann",
        "B",
        ("arc",),
        "campaign first",
        False,
    )
    # What Ann has given waits until Ann is back, and is nobody else's.
    assert server.client.post(f"{API}/first/votes/{first}", json=said, headers=who["Bob"]).status_code == 403
    others = server.client.post(f"{API}/first/votes/{first}", json=said | {"grader": None}, headers=who["Bob"])
    assert others.status_code == 400
    picture = server.get(f"/cutout/first/{first}?band=VIS", headers=who["Ann"])
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
    assert server.get(f"/cutout/first/{first}", headers=who["Bob"]).status_code == 400
    view = server.get(f"{API}/first", headers=who["Lea"]).json()
    assert [(one["grader"], one["n_votes"]) for one in view["graders"]] == [("Ann", 1)]


def test_who_leads_pauses_resumes_and_closes(served, places):
    server, who = served
    begin(server, [Subject(one) for one in places[:10]])
    for name, status in (("Ann", 403), ("Eve", 403), ("Lea", 200)):
        assert server.client.put(f"{API}/first/state", json={"state": "paused"}, headers=who[name]).status_code == status
    assert server.client.post(f"{API}/first/next", headers=who["Ann"]).json()["handed"] == []
    server.client.put(f"{API}/first/state", json={"state": "closed"}, headers=who["Lea"])
    again = server.client.put(f"{API}/first/state", json={"state": "running"}, headers=who["Lea"])
    assert (again.status_code, "for good" in again.text) == (400, True)
    assert (
        server.client.post(f"/api/v1/grades/{places[0].candidate_id}", json={"grade": "A"}, headers=who["Lea"]).status_code
        == 403
    )


def test_who_leads_begins_one_as_the_command_line_does(served, places):
    server, who = served
    slug = server.context.collections.default.slug
    wanted = {"name": "second", "collection": slug, "top": 5, "control": 2, "votes": 2, "graders": ["Ann"], "seed": 3}
    for name in ("Ann", "Eve"):
        assert server.client.post(API, json=wanted, headers=who[name]).status_code == 403
        assert server.get(API, headers=who[name]).json()["may_begin"] is False
    made = server.client.post(API, json=wanted | {"order": "given"}, headers=who["Lea"])
    assert (made.status_code, made.json()["selection"]) == (201, "top 5, control 2")
    location = server.context.collections.default.published.location
    command = [
        "grades",
        "campaign",
        "create",
        "third",
        location,
        "--top",
        "5",
        "--control",
        "2",
        "--votes",
        "2",
        "--order",
        "given",
    ]
    command += ["--grader", "Ann", "--seed", "3", "--grades", str(server.context.grades.path)]
    assert CliRunner().invoke(scanner, command).exit_code == 0
    second, third = (server.context.campaigns.get(name) for name in ("second", "third"))
    assert second.plan == third.plan.model_copy(update={"name": "second"})
    handed = [server.context.campaigns.hand_out(name, "Ann", 7) for name in ("second", "third")]
    assert [one.subject.place for one in handed[0]] == [one.subject.place for one in handed[1]]
    assert [one.subject.place for one in handed[0]][:5] == places[:5]
    # Known answers come as a table, and are looked for in the painted runs.
    rows = [f"{one.ra:.7f},{one.dec:.7f},{'lens' if number % 2 else 'other'}" for number, one in enumerate(places[10:])]
    salted = wanted | {"name": "salted", "control": 0, "top": 2, "blind": True, "rate": 0.05, "painted": True}
    known = "\n".join(["ra,dec,label", *rows])
    answer = server.client.post(API, json=salted | {"known": known}, headers=who["Lea"])
    assert (answer.status_code, answer.json()["n_known"] > 0) == (201, True), answer.text
    assert server.context.campaigns.salted_ids() <= {one.candidate_id for one in places[10:]}
    for wrong, said in (
        ({"name": "second"}, "there is a campaign of this name"),
        ({"name": "x", "sql": "SELECT 1"}, "give one of them"),
        ({"name": "x", "top": None, "sql": "COPY objects TO '/tmp/x'"}, "SELECT"),
        ({"name": "x", "top": None, "cone": "here", "control": 0}, "RA"),
        ({"name": "x", "known": "nothing"}, "The known answers"),
        ({"name": "x", "painted": True}, "known answers are given"),
        ({"name": "a/b"}, "name"),
        ({"name": "x", "mix": {"probable": 0, "uncertain": 0, "different": 0, "random": 0}}, "above 0"),
    ):
        refused = server.client.post(API, json=wanted | wrong, headers=who["Lea"])
        assert (refused.status_code, said in refused.json()["error"]["message"]) == (400, True), (wrong, refused.text)


def test_who_leads_sees_whether_grades_suffice_to_learn_from(served, places):
    server, who = served
    for number, place in enumerate(places[:3]):
        server.context.grades.give(place, "Ann", "AXC"[number])
    assert server.get("/api/v1/grades/learning", headers=who["Ann"]).status_code == 403
    said = server.get("/api/v1/grades/learning", headers=who["Lea"]).json()
    assert (said["n_lenses"], said["n_others"], said["n_unclear"], said["fewest"]) == (1, 1, 1, 50)
    run = Path(server.context.collections.default.published.location).name
    assert said["commands"] == [f"scanner train from-grades {run} --grades grades.sqlite --out learned"]


def test_a_blind_campaign_closes_everything_else_to_its_graders(served, places):
    server, who = served
    slug = server.context.collections.default.slug
    begin(server, [Subject(one) for one in places[:10]], blind=True, graders=("Ann",))
    paths = [
        f"/api/v1/collections/{slug}/candidates", f"/c/{slug}/candidates", f"/cutout?ID={places[0].candidate_id}", "/tap/sync",
        f"/api/v1/grades/{places[0].candidate_id}", "/api/v1/grades/agreement", "/metrics", "/scs?RA=1&DEC=2&SR=1",
        f"/moc/{slug}",
    ]  # fmt: skip
    assert {server.get(path, headers=who["Ann"]).status_code for path in paths} == {403}
    assert 403 not in {server.get(path, headers=who["Bob"]).status_code for path in paths}
    assert server.get("/", headers=who["Ann"], follow_redirects=False).headers["location"] == "/campaigns"
    Campaigns(server.context.grades).set_state("first", "closed")
    assert 403 not in {server.get(path, headers=who["Ann"]).status_code for path in paths}


def test_nothing_that_is_sent_tells_known_answers_apart(served, places, monkeypatch):
    """A script that reads all of it: bytes, names, headers, order."""
    server, who = served
    monkeypatch.setattr("scanner.grading.campaign.SAME_FIELD_ARCSEC", 0.0)
    rng = np.random.default_rng(8)
    names = [f"c{number}" for number in range(4)]
    for name in names:
        # The same objects, of one run, divided anew: nothing but the server could tell which are known.
        mixed = [places[row] for row in rng.permutation(len(places))]
        salted = [Subject(one, number % 2 == 0, salted=True) for number, one in enumerate(mixed[8:])]
        asked = [Subject(one) for one in mixed[:8]]
        begin(server, [*asked, *salted], name=name, blind=True, rate=0.3, order="random", graders=("Ann",))
    truth = {}
    seen, answers, lengths, order, place = [], [], [], [], []
    for name in names:
        handed, begun = (), len(order)
        while answer := server.client.post(f"{API}/{name}/next", headers=who["Ann"]).raise_for_status():
            handed = answer.json()["handed"]
            if not handed:
                break
            seen.append(answer)
            # From here on pictures come from memory: that of no object is looked for longer than that of another.
            with monkeypatch.context() as patch:
                patch.delattr(type(server.context), "cutout_of")
                for one in handed:
                    assert one["candidate"] is None
                    picture = server.get(f"/cutout/{name}/{one['id']}?band=colour", headers=who["Ann"])
                    assert picture.status_code == 200
                    arcs = server.get(f"/cutout/{name}/{one['id']}?band=VIS&deflector=0", headers=who["Ann"])
                    assert arcs.status_code == 200
                    vote = server.client.post(f"{API}/{name}/votes/{one['id']}", json={"grade": "A"}, headers=who["Ann"])
                    seen += [picture, arcs, vote]
                    answers.append({name: value for name, value in vote.json().items() if name != "n_mine"})
                    lengths.append((len(picture.content), len(arcs.content)))
                    place.append(len(order) - begun)
                    order.append(one["id"])
                    truth[one["id"]] = server.context.campaigns.handout(name, "Ann", one["id"]).subject
    is_known = np.array([truth[one].known is not None for one in order])
    assert (~is_known).sum() == 8 * len(names)
    assert is_known.sum() >= 8
    assert answers == [{"grade": "A", "answer": None}] * len(order)
    # Every answer has the same headers, which name no object, place, run or tile.
    words = {word for one in places for word in (*one.candidate_id.split("/"), one.name, f"{one.ra:.4f}", f"{one.dec:.4f}")}
    words |= {"painted", "salt"}
    for answer in seen:
        text = answer.text if "json" in answer.headers["content-type"] else ""
        said = f"{text} {sorted(answer.headers.items())}"
        free = {word for word in words if len(word) > 3 and word in said}
        assert free == set()
    assert len({tuple(answer.headers) for answer in seen if "image" in answer.headers["content-type"]}) == 1
    # Neither how long an answer is, nor its place in the order, nor any digit of its name, knows better than chance.
    digits = np.array([[int(digit, 16) for digit in one] for one in order])
    features = [*np.array(lengths).T, np.array(place), *digits.T, digits.sum(axis=1)]
    p = [mannwhitneyu(one[is_known], one[~is_known]).pvalue for one in features]
    assert min(p) > 0.01 / len(features)
    # Counts that a vote on a known answer would not move are kept from graders, and shown to who leads.
    mine = server.get(f"{API}/c0", headers=who["Ann"]).json()
    assert (mine["n_objects"], mine["n_done"], mine["graders"], mine["selection"]) == (None, None, None, None)
    assert server.get(f"{API}/c0", headers=who["Lea"]).json()["n_known"] == len(places) - 8
    # The files of pictures have no words beside the pixels.
    assert all(b"EXIF" not in answer.content and b"XMP" not in answer.content for answer in seen)


def test_the_answer_is_told_after_the_vote_where_that_is_wanted(served, places, monkeypatch):
    server, who = served
    known = [Subject(one, number % 2 == 0, salted=True) for number, one in enumerate(places[1:])]
    monkeypatch.setattr("scanner.grading.campaign.SAME_FIELD_ARCSEC", 0.0)
    begin(server, [Subject(places[0]), *known], blind=True, rate=0.5, order="random", feedback=True, seed=2)
    told = []
    while handed := server.client.post(f"{API}/first/next", headers=who["Ann"]).json()["handed"]:
        for one in handed:
            known = server.context.campaigns.handout("first", "Ann", one["id"]).subject.known
            answer = server.client.post(f"{API}/first/votes/{one['id']}", json={"grade": "A"}, headers=who["Ann"]).json()[
                "answer"
            ]
            assert answer == {None: None, True: "lens", False: "other"}[known]
            told.append(answer)
    assert told.count(None) == 1
