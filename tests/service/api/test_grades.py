"""Grading over HTTP, against the real server: by name at this machine, by token, blind, and what others may not do."""

import io
import os
import threading

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from ports import free_ports
from programs import start_scanner
from waiting import LIMIT_S, wait_for

from scanner.grading.labels import LABEL_SCHEMA
from scanner.grading.store import SCORE_NAMES, GradeStore, reading
from scanner.service.security import new_token
from scanner.service.settings import load

API = "/api/v1/grades"


@pytest.fixture
def served(served_run, make_server, tmp_path):
    """A server whose grades are the test's own; graders by name."""
    with make_server(load(None, {"grading.path": str(tmp_path / "grades.sqlite")}, {}), served_run) as running:
        yield running


@pytest.fixture
def blind(served_run, make_server, tmp_path):
    """A server where Ann and Bob grade blind by token and Eve reads; and their headers."""
    lines, headers = [], {}
    for name, role in (("Ann", "grade"), ("Bob", "grade"), ("Eve", "read")):
        token, line = new_token(name, role)
        lines.append(str(line))
        headers[name] = {"Authorization": f"Bearer {token}"}
    (tmp_path / "tokens").write_text("\n".join(lines))
    settings = {
        "grading.path": str(tmp_path / "grades.sqlite"), "grading.blind": "true", "access.tokens": str(tmp_path / "tokens"),
    }  # fmt: skip
    with make_server(load(None, settings, {}), served_run) as running:
        yield running, headers


def named(server, name):
    """Take a name; the client keeps the cookie."""
    answer = server.client.put(f"{API}/me", json={"name": name})
    assert answer.status_code == 200
    return answer.json()


def give(server, candidate_id, grade, comment="", **options):
    return server.client.post(f"{API}/{candidate_id}", json={"grade": grade, "comment": comment}, **options)


def test_who_sits_at_this_machine_grades_under_a_name(served, listed_ids):
    here = listed_ids[0]
    assert served.get(f"{API}/me").json() == {"name": None, "may_grade": True, "named_by_token": False, "blind": False}
    refused = give(served, here, "A")
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        400, "Say who you are first: give a name to grade under.",
    )  # fmt: skip
    assert named(served, " Ann  B ")["name"] == "Ann B"
    said = give(served, here, "B", "<img src=x onerror=alert(1)> an arc?").json()
    assert (said["grade"], said["comment"], said["grader"]["name"]) == ("B", "<img src=x onerror=alert(1)> an arc?", "Ann B")
    (entry,) = said["history"]
    assert (entry["candidate_id"], entry["grader"], entry["grade"], entry["blind"]) == (here, "Ann B", "B", False)
    assert entry["catalogue"] == next(iter(served.context.collections)).slug
    assert said["standing"] == [entry["number"]]
    assert served.get(f"{API}/{here}").json() == said
    # The list of candidates shows it.
    slug = served.context.collections.default.slug
    items = served.get(f"/api/v1/collections/{slug}/candidates").json()["items"]
    assert {item["id"]: item["grade"] for item in items if item["grade"]} == {here: "B"}


def test_undo_brings_the_earlier_grade_back(served, listed_ids):
    here = listed_ids[0]
    named(served, "Ann")
    give(served, here, "A", "first")
    give(served, here, "X")
    undone = served.client.post(f"{API}/{here}/undo").json()
    assert (undone["grade"], undone["comment"], len(undone["history"])) == ("A", "first", 3)
    assert undone["history"][2]["undoes"] == undone["history"][1]["number"]
    assert served.client.post(f"{API}/{here}/undo").json()["grade"] is None
    assert served.client.post(f"{API}/{here}/undo").status_code == 400


def test_what_is_no_grade_is_refused(served, listed_ids):
    named(served, "Ann")
    wrong = [
        {"grade": "D"},
        {"grade": "a"},
        {"grade": None},
        {},
        "A",
        {"grade": "A", "by": "Bob"},
        {"grade": "A", "tags": ["disc"]},
    ]
    for said in [*wrong, {"grade": "A", "comment": "x" * 2001}]:
        assert served.client.post(f"{API}/{listed_ids[0]}", json=said).status_code == 400, said
    assert served.context.grades.standing() == ()


def test_names_addresses_and_forms_that_are_refused(served, listed_ids):
    for name in ("", "<b>", "a" * 41, "Ann; Path=/"):
        assert served.client.put(f"{API}/me", json={"name": name}).status_code == 400
    named(served, "Ann")
    assert give(served, "no-run/1/1", "A").status_code == 404
    assert give(served, listed_ids[0].rpartition("/")[0] + "/x", "A").status_code == 400
    # A form of another site's page can be of these types only; and its origin is told.
    as_form = {"content": b'{"grade": "A"}', "headers": {"Content-Type": "text/plain"}}
    assert served.client.post(f"{API}/{listed_ids[0]}", **as_form).status_code in (400, 415)
    assert give(served, listed_ids[0], "A", headers={"Origin": "https://elsewhere.example"}).status_code == 403
    assert served.context.grades.standing() == ()


def test_next_goes_through_all_that_are_ungraded(served, listed_ids):
    named(served, "Ann")
    give(served, listed_ids[1], "A")
    give(served, listed_ids[2], "C")

    def following(after=None):
        return served.get(f"{API}/next", params={} if after is None else {"after": after}).json()["candidate_id"]

    assert following() == listed_ids[0]
    assert following(listed_ids[0]) == listed_ids[3]
    assert following(listed_ids[-1]) == listed_ids[0]
    for candidate_id in listed_ids:
        give(served, candidate_id, "X")
    assert following(listed_ids[4]) is None
    assert served.get(f"{API}/next", params={"collection": "none"}).status_code == 404


def test_lists_of_what_one_has_graded_and_has_not(served, listed_ids):
    here = f"/api/v1/collections/{served.context.collections.default.slug}/candidates"

    def ask(status=200, **query):
        answer = served.get(here, params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    def ids(**query):
        return [item["id"] for item in ask(**query)["items"]]

    # Who has no name has graded nothing.
    assert (ids(graded="no"), ids(graded="yes"), ask()["graded"]) == (listed_ids, [], None)
    named(served, "Bob")
    give(served, listed_ids[0], "A")
    named(served, "Ann")
    for candidate_id in listed_ids[1:4]:
        give(served, candidate_id, "C")
    served.client.post(f"{API}/{listed_ids[3]}/undo")
    assert ids(graded="yes") == listed_ids[1:3]
    assert ids(graded="no") == [listed_ids[0], *listed_ids[3:]]
    first = ask(limit=2)
    assert (first["total"], first["graded"]) == (len(listed_ids), 2)
    assert ask(limit=2, after=first["next"])["graded"] is None
    assert "graded" in ask(400, graded="no", objects=True)["error"]["message"]
    table = served.get(here.replace("/candidates", "/table"), params={"graded": "yes"}).text
    assert len(table.splitlines()) == 3


def test_next_goes_through_the_list_that_is_asked_for(served, listed_ids):
    named(served, "Ann")
    here = f"/api/v1/collections/{served.context.collections.default.slug}/candidates"
    shuffled = [item["id"] for item in served.get(here, params={"sort": "random", "seed": 5}).json()["items"]]
    assert shuffled != listed_ids
    assert sorted(shuffled) == sorted(listed_ids)

    def following(after, **query):
        return served.get(f"{API}/next", params={"after": after, "sort": "random", "seed": 5, **query}).json()["candidate_id"]

    assert [following(candidate_id) for candidate_id in shuffled] == [*shuffled[1:], shuffled[0]]
    give(served, shuffled[1], "X")
    assert following(shuffled[0]) == shuffled[2]
    # From an object outside the list on, too.
    tile = shuffled[2].split("/")[1]
    of_tile = [candidate_id for candidate_id in shuffled if f"/{tile}/" in candidate_id and candidate_id != shuffled[1]]
    other = next(candidate_id for candidate_id in shuffled if f"/{tile}/" not in candidate_id)
    behind = [candidate_id for candidate_id in of_tile if shuffled.index(candidate_id) > shuffled.index(other)]
    assert following(other, tile=tile) == (behind or of_tile)[0]


def test_agreement_and_labels(served, listed_ids):
    marks = {"Ann": "AABX", "Bob": "ABBX"}
    for name, given in marks.items():
        named(served, name)
        for candidate_id, grade in zip(listed_ids, given, strict=False):
            give(served, candidate_id, grade)
    found = served.get(f"{API}/agreement").json()
    assert (found["graders"], found["n_shared"], found["complete"]) == ({"Ann": 4, "Bob": 4}, 4, 0.75)
    # Seen 3/4; by chance (2·1 + 1·2 + 1·1)/16.
    assert found["pairs"][0]["kappa"]["value"] == pytest.approx((3 / 4 - 5 / 16) / (1 - 5 / 16))
    labels = Table.read(served.get(f"{API}/export").text, format="ascii.ecsv")
    by_id = {row["candidate_id"]: (row["label"], row["grade"], row["n_graders"]) for row in labels}
    expected = [("lens", "A", 2), ("lens", "B", 2), ("lens", "B", 2), ("other", "X", 2)]
    assert by_id == dict(zip(listed_ids[:4], expected, strict=True))
    answer = served.get(f"{API}/export", params={"format": "parquet", "least_graders": 3})
    assert answer.headers["content-disposition"] == 'attachment; filename="labels.parquet"'
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.schema.equals(LABEL_SCHEMA, check_metadata=True)
    assert set(table["label"].to_pylist()) == {"unclear"}
    assert served.get(f"{API}/export", params={"format": "xlsx"}).status_code == 400


def test_blind_graders_see_neither_scores_nor_others_grades(blind, listed_ids, rows):
    server, headers = blind
    here, slug = listed_ids[0], server.context.collections.default.slug
    row = f"/api/v1/collections/{slug}/candidates/{here}"
    withheld = server.get(row, headers=headers["Ann"]).json()["row"]
    assert withheld["withheld"] is True
    assert all(withheld[name] is None for name in SCORE_NAMES)
    give(server, here, "A", "Bob was here", headers=headers["Bob"])
    mine = server.get(f"{API}/{here}", headers=headers["Ann"]).json()
    assert (mine["history"], mine["standing"], mine["withheld"]) == ([], [], True)
    # Whatever Ann may ask, no answer has Bob's words or a score of hers.
    score = rows.filter(rows["rank"].to_numpy() == 1)["p_calibrated"][0].as_py()
    digits = str(np.float32(score))
    listed = f"/api/v1/collections/{slug}"
    for path in (row, f"{API}/{here}", f"{API}/agreement", f"{listed}/candidates", "/", f"/c/{slug}/candidates/{here}"):
        text = server.get(path, headers=headers["Ann"]).text
        assert "Bob" not in text
        assert digits not in text
    for path in (
        "/scs?RA=0&DEC=0&SR=180", f"/datalink?ID={here}", f"{API}/export", f"{listed}/histogram",
        f"{listed}/candidates?sort=p_calibrated", f"{listed}/candidates?min_score=0.5", f"{listed}/candidates?min_rank=2",
        f"{listed}/candidates?systems=true",
        f"{listed}/candidates?sort=rank", f"{listed}/candidates?flags=any", f"{listed}/tsne", f"{row}/neighbours",
        "/tap/sync?LANG=ADQL&QUERY=SELECT+name+FROM+candidates", f"/explanation?id={here}",
    ):  # fmt: skip
        assert server.get(path, headers=headers["Ann"]).status_code == 403, path
    # Her own grade opens this candidate, and this one only.
    after = give(server, here, "C", headers=headers["Ann"]).json()
    assert [(entry["grader"], entry["blind"]) for entry in after["history"]] == [("Bob", True), ("Ann", True)]
    assert server.get(row, headers=headers["Ann"]).json()["row"]["p_calibrated"] == pytest.approx(score)
    items = server.get(f"/api/v1/collections/{slug}/candidates", headers=headers["Ann"]).json()["items"]
    assert [item["id"] for item in items if item["p_calibrated"] is not None] == [here]
    # What she says now, she says knowing.
    again = give(server, here, "B", headers=headers["Ann"]).json()
    assert again["history"][-1]["blind"] is False


def test_readers_see_all_and_grade_nothing(blind, listed_ids):
    server, headers = blind
    give(server, listed_ids[0], "A", "Bob was here", headers=headers["Bob"])
    seen = server.get(f"{API}/{listed_ids[0]}", headers=headers["Eve"]).json()
    assert [entry["comment"] for entry in seen["history"]] == ["Bob was here"]
    assert seen["grader"] == {"name": "Eve", "may_grade": False, "named_by_token": True, "blind": False}
    assert server.get(f"{API}/export", headers=headers["Eve"]).status_code == 200
    assert give(server, listed_ids[0], "A", headers=headers["Eve"]).status_code == 403
    assert server.client.post(f"{API}/{listed_ids[0]}/undo", headers=headers["Eve"]).status_code == 403
    assert give(server, listed_ids[0], "A").status_code == 401
    # A token's owner cannot be somebody else.
    assert server.client.put(f"{API}/me", json={"name": "Bob"}, headers=headers["Ann"]).status_code == 403
    assert {entry.grader for entry in server.context.grades.standing()} == {"Bob"}


def test_a_grade_that_cannot_be_kept_is_told_without_the_file(served, listed_ids):
    named(served, "Ann")
    served.context.grades.path.mkdir()
    answer = give(served, listed_ids[0], "A")
    assert answer.status_code == 500
    assert "grades.sqlite" not in answer.text
    assert "the operator of the service" in answer.json()["error"]["message"]


def test_where_grading_is_off_a_graders_token_reads(served_run, make_server, tmp_path, listed_ids):
    token, line = new_token("Ann", "grade")
    (tmp_path / "tokens").write_text(str(line))
    settings = {"access.tokens": str(tmp_path / "tokens"), "grading.enabled": "false", "grading.path": str(tmp_path / "g")}
    with make_server(load(None, settings, {}), served_run) as running:
        headers = {"Authorization": f"Bearer {token}"}
        assert running.client.get(f"{API}/me", headers=headers).json()["may_grade"] is False
        refused = give(running, listed_ids[0], "A", headers=headers)
        assert (refused.status_code, refused.json()["error"]["message"]) == (
            403, "You may read here, not grade: your token has not the role 'grade', or nobody may grade here.",
        )  # fmt: skip
    assert not (tmp_path / "g").exists()


#: `make attack` asks for 500 votes of each, and kills the server five times.
VOTES, KILLS = int(os.environ.get("SCANNER_VOTES", "3")), int(os.environ.get("SCANNER_VOTE_KILLS", "1"))
N_GRADERS = 20


def test_every_vote_is_there_once_whenever_the_server_is_killed(served_run, listed_ids, tmp_path):
    """Twenty graders who send a vote again, under its key, until they hear that it is kept, as the pages do."""
    (port,) = free_ports(1)
    (tmp_path / "serve.toml").write_text("[limits]\nrequests_per_minute = 0\nqueue = 200\n")
    words = ["serve", str(served_run), "--port", str(port), "--config", "serve.toml"]
    kept, lock = [], threading.Lock()

    def start():
        return start_scanner(words, log=tmp_path / "log", environment=os.environ, folder=tmp_path)

    def grade(number):
        url = f"http://127.0.0.1:{port}{API}"
        with httpx.Client(cookies={"scanner_grader": f"grader+{number}"}, timeout=LIMIT_S) as client:
            for vote in range(VOTES):
                said = {"grade": "ABCX"[(number + vote) % 4], "key": f"grader-{number}-vote-{vote}"}

                def taken(vote=vote, said=said):
                    try:
                        return client.post(f"{url}/{listed_ids[vote % len(listed_ids)]}", json=said).is_success
                    except httpx.TransportError:
                        return False

                wait_for("a vote to be kept", taken)
                with lock:
                    kept.append(said["key"])

    running = start()
    graders = [threading.Thread(target=grade, args=(number,)) for number in range(N_GRADERS)]
    try:
        for one in graders:
            one.start()
        for kill in range(1, KILLS + 1):
            wait_for("votes before the kill", lambda kill=kill: len(kept) >= kill * N_GRADERS * VOTES // (KILLS + 1))
            running.kill()
            running.wait()
            running = start()
        for one in graders:
            one.join()
    finally:
        running.kill()
    store = GradeStore.existing(tmp_path / "grades.sqlite")
    with reading(store.path) as opened:
        found = opened.execute("SELECT grader, key FROM entries").fetchall()
    everything = [(f"grader {number}", f"grader-{number}-vote-{vote}") for number in range(N_GRADERS) for vote in range(VOTES)]
    assert sorted(found) == sorted(everything)
