import shutil

import pyarrow.parquet as pq
import pytest
from damage import resealed

from scanner.atomic_file import tree_sha256
from scanner.errors import ContentError, InputMissingError
from scanner.survey.merge_runs import MergeRequest, merge_runs
from scanner.survey.published import TILES_TABLE, open_published


@pytest.fixture(scope="module")
def survey(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("opening") / "wide survey"
    for names in (("north",), ("north", "south")):
        merge_runs(MergeRequest(tuple(str(runs[name]) for name in names), str(out)))
    return out


def test_a_run(runs) -> None:
    found = open_published(str(runs["south"]))
    (run_id,) = found.run_folders
    assert run_id.startswith("south-")
    assert (found.slug, found.title, found.version, found.bundles, found.files.key) == (run_id, "south", None, ("ou 1",), "")
    assert [folder.record().run_id for folder in found.runs] == [run_id]


@pytest.mark.parametrize(("version", "number", "names"), [(None, 2, ["north", "south"]), (1, 1, ["north"])])
def test_a_survey(survey, version, number, names) -> None:
    found = open_published(str(survey), version)
    assert (found.version, found.files.key, found.slug, found.title) == (
        number, f"versions/{number}", "wide-survey", "wide survey",
    )  # fmt: skip
    assert [run_id.split("-")[0] for run_id in found.run_folders] == names
    tiles = pq.read_table(found.files.store.local(found.files.key_of(TILES_TABLE)))
    assert set(tiles["run"].to_pylist()) == set(found.run_folders)
    assert all(folder.record().run_id == run_id for run_id, folder in found.run_folders.items())


def test_refusals(survey, runs, tmp_path) -> None:
    for location, version, error, message in (
        (survey, 3, InputMissingError, "has no version 3; there are 1, 2"),
        (runs["north"], 1, InputMissingError, "a single run, which has no versions"),
        (tmp_path, None, InputMissingError, "neither a run folder .* nor a survey folder"),
    ):
        with pytest.raises(error, match=message):
            open_published(str(location), version)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "run.json").write_bytes((runs["north"] / "run.json").read_bytes())
    with pytest.raises(InputMissingError, match="_common_metadata: is not there; give the run's command again"):
        open_published(str(unfinished))
    resealed(unfinished / "run.json", sha256={})
    with pytest.raises(InputMissingError, match="have not been merged yet"):
        open_published(str(unfinished))
    (unfinished / "run.json").write_bytes((runs["north"] / "run.json").read_bytes())
    metadata = unfinished / "catalogue" / "dataset" / "_common_metadata"
    metadata.parent.mkdir(parents=True)
    metadata.write_bytes(b"nothing")
    with pytest.raises(ContentError, match="damaged"):
        open_published(str(unfinished))
    schema = pq.read_schema(runs["north"] / "catalogue" / "dataset" / "_common_metadata")
    pq.write_metadata(schema.remove(3), metadata)
    resealed(unfinished / "run.json", sha256=tree_sha256(unfinished))
    with pytest.raises(ContentError, match="made by another version of scanner"):
        open_published(str(unfinished))


def test_damaged_records(survey, tmp_path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copy(survey / "survey.json", broken)
    with pytest.raises(InputMissingError, match=r"versions/2/version\.json: is not there"):
        open_published(str(broken))
    resealed(broken / "survey.json", colour="red")
    with pytest.raises(ContentError, match=r"survey\.json: damaged .*colour"):
        open_published(str(broken))


@pytest.mark.parametrize("lost", ["survey.json", "versions/1/version.json", "versions/1/catalogue"])
def test_a_damaged_survey_is_made_again_as_the_message_says(runs, tmp_path, lost) -> None:
    out = tmp_path / "survey"
    request = MergeRequest((str(runs["north"]),), str(out))
    merge_runs(request)
    written = {path: path.read_bytes() for path in out.rglob("*.parquet")}
    if (out / lost).is_dir():
        shutil.rmtree(out / lost)
    elif lost == "survey.json":
        (out / lost).write_text("{")
    else:
        (out / lost).unlink()
    with pytest.raises((ContentError, InputMissingError), match=r"remove \S+/survey\.json and merge the runs anew\."):
        open_published(str(out))
    (out / "survey.json").unlink()
    assert merge_runs(request).is_new
    assert {path: path.read_bytes() for path in out.rglob("*.parquet")} == written
    assert open_published(str(out)).version == 1
