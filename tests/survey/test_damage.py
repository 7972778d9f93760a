"""A bit that flips in any file of a finished run or survey is named, or the answers are those of before."""

import json
import shutil

import pyarrow as pa
import pytest
from damage import flipped

import scanner
from scanner.cli.main import main
from scanner.errors import ContentError, InputMissingError, ScannerError
from scanner.interface.opened import Opened
from scanner.survey.merge_runs import MergeRequest, merge_runs
from scanner.survey.published import FOOTPRINT, read_tiles

#: Bits that flip in each file.
FLIPS = 3


def answers(location):
    """What readers get of a catalogue: its rows, tiles and footprint, and the list of candidates."""
    opened = Opened(str(location))
    objects = opened.catalogue.source().relation
    rows = opened.catalogue.query(f"SELECT * FROM {objects.sql} ORDER BY rank", objects.parameters)
    files = opened.published.files
    tables = [table.combine_chunks() for table in (rows, read_tiles(files))]
    return [_bytes(table) for table in tables] + [files.read(FOOTPRINT), files.read("candidates.fits")]


def _bytes(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.fixture(params=["run", "survey"])
def published(request, finished_run, tmp_path):
    """A copy of a finished run, or a survey of it."""
    if request.param == "run":
        return shutil.copytree(finished_run, tmp_path / "out")
    merge_runs(MergeRequest((str(finished_run),), str(tmp_path / "out")))
    return tmp_path / "out"


def listed(folder):
    """The files that the record of a run or survey lists."""
    (record,) = [*folder.glob("versions/*/version.json"), *folder.glob("run.json")]
    return [record, *(record.parent / name for name in json.loads(record.read_text())["sha256"])]


def outcome(location, path, whole):
    """``named``, ``same``, or what else came of reading it."""
    try:
        found = answers(location)
    except (ContentError, InputMissingError) as error:
        return "named" if str(path) in str(error) else str(error)
    return "same" if found == whole else "wrong"


def test_a_flipped_bit_is_named_or_the_answers_are_the_same(published):
    whole = answers(published)
    # The margin cache is for LSDB: nothing here reads it.
    kinds = {
        ("margin " if "catalogue_10arcs" in path.parts else "") + ("Npix" if path.name.startswith("Npix") else path.name): path
        for path in listed(published)
    }
    outcomes = {(kind, outcome(published, path, whole)) for kind, path in kinds.items() for _ in flipped(path, 6, FLIPS)}
    served = {"hats.properties", "partition_info.csv", "_common_metadata", "Npix", "tiles.parquet", "footprint.fits"}
    served |= {"candidates.fits", "run.json" if "run.json" in kinds else "version.json"}
    assert outcomes == {(kind, "named" if kind in served else "same") for kind in kinds}
    assert answers(published) == whole


def test_verify_names_every_flipped_bit(published):
    assert scanner.verify(published, deep=True).problems == ()
    for path in (*listed(published), *published.glob("survey.json")):
        for place in flipped(path, 7, FLIPS):
            (problem,) = scanner.verify(published).problems
            assert problem.startswith(f"{path}: "), (path, place)
    assert scanner.verify(published).is_whole


def test_verify_names_every_flipped_bit_of_a_tile(finished_run, tmp_path):
    out = shutil.copytree(finished_run, tmp_path / "out")
    tile = min((out / "tiles").iterdir())
    for path in sorted(path for path in tile.rglob("*") if path.is_file()):
        for place in flipped(path, 8, 1):
            (problem,) = scanner.verify(out, deep=True).problems
            assert problem.startswith(f"{path}: "), (path, place)
    shutil.rmtree(tile)
    (problem,) = scanner.verify(out).problems
    assert problem == f"{tile}: has no commit.json; 'scanner run' scans the tile again."
    assert scanner.verify(finished_run, deep=True).n_files == sum(path.is_file() for path in finished_run.rglob("*")) - 2


def test_the_command_says_what_is_whole(published, capsys):
    def given(*words):
        with pytest.raises(SystemExit) as ending:
            main(["verify", *words])
        return ending.value.code, *capsys.readouterr()

    code, said, _ = given(str(published), "--deep")
    assert (code, said.endswith("are what was written.\n")) == (0, True)
    tiles = next(published.rglob("tiles.parquet"))
    for _ in flipped(tiles, 9, 1):
        code, said, summed_up = given(str(published))
        assert (code, said.startswith(f"{tiles}: damaged")) == (78, True)
        assert f"{published}: 1 problem in a " in summed_up
        code, said, _ = given(str(published), "--json")
        assert (code, json.loads(said)["problems"][0].startswith(f"{tiles}: damaged")) == (78, True)
    assert given(str(published.parent / "gone"))[0] == 66


def test_what_cannot_be_verified(tmp_path):
    with pytest.raises(InputMissingError, match="holds no run, survey, bundle, dataset or cutout store"):
        scanner.verify(tmp_path)
    with pytest.raises(ScannerError, match="holds no run"):
        scanner.verify(tmp_path / "gone")
