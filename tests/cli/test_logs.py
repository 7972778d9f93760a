import io
import json
import logging
import re
import socket
import sys
from contextlib import suppress
from datetime import datetime

import pytest
from made_records import commit_record

from scanner.cli import output
from scanner.cli.main import main
from scanner.errors import UsageError
from scanner.interface import progress
from scanner.interface.progress import bar, followed
from scanner.records import FailedTile
from scanner.survey import metrics
from scanner.survey.messages import MergeStarted, RunStarted, TileFinished, TileProgress

logger = logging.getLogger("scanner.somewhere")
STARTED = RunStarted(
    n_tiles=3, n_done_before=1, n_workers=2, provider="cpu", run_folder="out", bundle_name="ou", bundle_version="1"
)


COMMIT = commit_record(tile_id="b", n_targets=10, n_scored=9, n_flagged=3, n_decided=2, seconds={"cut": 1.0, "tile": 4.0})


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self):
        return True


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_record_is_one_json_object_with_what_its_extra_says(capsys):
    with output.log_lines("json"):
        logger.info("tile %s: %s", "T1", "größer\nals", extra={"tile": "T1", "n_scored": 3})
        try:
            raise OSError("no space")
        except OSError:
            logger.exception("failed", extra={"tile": "T2"})
        logger.debug("nobody needs this")
    logger.warning("after the end")
    first, second = lines(capsys.readouterr().err)
    when = datetime.fromisoformat(first.pop("time"))
    assert when.utcoffset().total_seconds() == 0
    assert first == {
        "level": "info",
        "logger": "scanner.somewhere",
        "message": "tile T1: größer\nals",
        "tile": "T1",
        "n_scored": 3,
    }
    assert (second["level"], second["tile"]) == ("error", "T2")
    assert second["exception"].endswith("OSError: no space")


@pytest.mark.parametrize("in_container", [False, True])
def test_a_pipe_gets_words_and_a_container_json(capsys, monkeypatch, in_container):
    monkeypatch.setattr(output, "in_container", lambda: in_container)
    with output.log_lines("auto"):
        logger.info("tile T1: 3 scored")
    assert capsys.readouterr().err.startswith("{") is in_container


def test_kubernetes_and_docker_make_containers(monkeypatch, tmp_path):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(output, "CONTAINER_MARKS", (str(tmp_path / "mark"),))
    assert not output.in_container()
    (tmp_path / "mark").touch()
    assert output.in_container()
    (tmp_path / "mark").unlink()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert output.in_container()


def test_text_is_for_people(capsys):
    with output.log_lines("text"):
        logger.info("tile T1: 3 scored")
        logger.warning("trying again", extra={"tile": "T1"})
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d tile T1: 3 scored", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING: trying again", second)


@pytest.mark.parametrize(("log_format", "is_json"), [("auto", False), ("text", False), ("json", True)])
def test_a_terminal_gets_text_unless_json_is_asked_for(monkeypatch, log_format, is_json):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with output.log_lines(log_format):
        logger.info("hello")
    assert terminal.getvalue().startswith("{") is is_json


def test_a_run_is_told_line_by_line(capsys):
    with output.log_lines("json"), followed(False) as tell:
        tell(STARTED)
        tell(TileProgress(tile_id="b", n_done=0, n_targets=20))
        tell(TileFinished(tile_id="b", commit=COMMIT, failed=None))
        tell(TileFinished(tile_id="c", commit=None, failed=FailedTile(tile_id="c", reason="c.fits: 'cut' off")))
        tell(MergeStarted())
    started, done, failed, merging, finished = lines(capsys.readouterr().err)
    assert (started["n_tiles"], started["n_workers"], started["bundle"]) == (3, 2, "ou 1")
    assert done["tile"] == "b"
    assert (done["n_targets"], done["n_scored"], done["n_flagged"], done["n_decided"]) == (10, 9, 3, 2)
    assert (done["seconds"], done["stage_seconds"]) == (4.0, {"cut": 1.0})
    assert (failed["level"], failed["tile"], failed["reason"]) == ("error", "c", "c.fits: 'cut' off")
    assert "tile" not in merging
    assert (finished["n_done"], finished["n_failed"]) == (2, 1)
    assert finished["seconds"] >= 0


@pytest.mark.parametrize(("error", "reason"), [(KeyboardInterrupt(), "interrupted"), (UsageError("no."), "no.")])
def test_a_run_that_stops_says_so(capsys, error, reason):
    def stopped_run():
        with output.log_lines("json"), followed(False) as tell:
            tell(STARTED)
            raise error

    with pytest.raises(type(error)):
        stopped_run()
    stopped = lines(capsys.readouterr().err)[-1]
    assert (stopped["level"], stopped["reason"], stopped["n_done"]) == ("error", reason, 1)


def test_a_run_that_was_refused_is_no_line(capsys):
    with pytest.raises(UsageError), output.log_lines("json"), followed(False):
        raise UsageError("no.")
    assert capsys.readouterr().err == ""


def test_lines_appear_above_the_bar_of_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with output.log_lines("auto"):
        with followed() as tell:
            tell(STARTED)
            tell(TileProgress(tile_id="b", n_done=5, n_targets=10))
            tell(TileFinished(tile_id="b", commit=COMMIT, failed=None))
        logger.info("after the bar")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"\d\d:\d\d:\d\d \[2/3\] tile b: 9 scored, 2 above the threshold\n", shown)
    assert "2/3 tiles, 5 objects" in shown
    assert re.search(r"\d\d:\d\d:\d\d after the bar\n$", shown)


def test_a_worker_s_metrics_port_that_is_taken_is_one_line(sky, tmp_path, capsys):
    for first in range(21_000, 60_000, 7):
        with suppress(OSError), socket.create_server(("127.0.0.1", first)), socket.create_server(("0.0.0.0", first + 2)):
            break
    words = ["--out", str(tmp_path / "out"), "--workers", "3", "--metrics-port", str(first), "--log-format", "text"]
    with socket.create_server(("0.0.0.0", first + 2)), pytest.raises(SystemExit) as caught:
        main(["run", str(sky / "tile-list.txt"), *words])
    assert caught.value.code == 64
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"scanner: 0.0.0.0:{first + 2}: a worker cannot serve its metrics there")
    assert last.endswith("3 free ports after it.")


def test_a_metrics_port_that_is_taken_is_one_line(sky, tmp_path, capsys):
    with metrics.serve(0, "driver") as port, pytest.raises(SystemExit) as caught:
        main(["run", str(sky / "tile-list.txt"), "--out", str(tmp_path / "out"), "--metrics-port", str(port)])
    assert caught.value.code == 64
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"0.0.0.0:{port}: cannot serve metrics there" in err
    assert not (tmp_path / "out").exists()


def test_what_a_tile_is_at_is_named_before_there_are_objects_to_count(monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1.0)
    bar = []
    shown = progress.RunBar(lambda done, total=None, what=None, note="": bar.append(what))
    with output.log_lines("text"), followed(False) as tell:
        for event in (
            STARTED,
            TileProgress(tile_id="b", n_done=0, n_targets=0, doing="finding objects"),
            TileProgress(tile_id="b", n_done=5, n_targets=10),
        ):
            tell(event)
            shown(event)
    assert bar == ["scanning", "finding objects", "scanning"]
    said = [line[9:] for line in capsys.readouterr().err.splitlines()]
    assert said[1:3] == ["tile b: finding objects", "tile b: 5 of 10 objects"]


def test_in_a_pipe_a_command_says_how_far_it_is(capsys, monkeypatch):
    def lines(**settings):
        with bar("explaining", **settings) as move:
            move(0, 2_000)
            move(500, 2_000)
            move(1_000, 2_000, "drawing", "half of them")
        return re.sub(r"\d+ s", "N s", capsys.readouterr().err).splitlines()

    monkeypatch.setattr(progress, "QUIET_SECONDS", -1.0)
    said = [
        "explaining: 0 of 2,000 candidates",
        "explaining: 500 of 2,000 candidates, N s to go",
        "drawing: half of them, N s to go",
    ]
    assert lines(shown=True, unit="candidates") == said
    # A library is silent, and so is what has a log.
    assert lines(unit="candidates") == lines(shown=False, unit="candidates") == lines(shown=True) == []
    monkeypatch.setattr(progress, "QUIET_SECONDS", 60.0)
    assert lines(shown=True, unit="candidates") == []
