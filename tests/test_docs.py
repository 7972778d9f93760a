"""What the pages say exists: commands, flags, settings, exit codes, files, links, metrics."""

import html
import json
import re
import shlex
import ssl
import subprocess
import sys
import tomllib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import get_args

import click
import programs
import pytest

from scanner import errors
from scanner.cli import main as command_line
from scanner.cli.main import scanner
from scanner.cli.replay import EXIT_DIFFERENT
from scanner.config import EngineConfig, RunConfig, StorageConfig
from scanner.cutouts.store import CODECS
from scanner.service.collections import RENEWAL_S
from scanner.service.security import Reason
from scanner.service.settings import ServiceConfig
from scanner.storage import lease
from scanner.survey import objects
from scanner.survey.folder import fingerprint
from scanner.survey.status import LOCAL_INTERVAL_S, REMOTE_INTERVAL_S
from scanner.survey.workers import engine
from scanner.survey.workers.standing import WorkerRequest
from scanner.survey.workers.transport import certificates, security

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "deploy", "helm", "models", "examples", "benchmarks")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in ROOT.joinpath(folder).rglob("*.md"))])
#: Told of the past: its commands were right when they were given.
LOGS = {"CHANGELOG.md", "training-log.md", "training-log-first.md"}
OPERATORS = ROOT / "docs" / "running-a-survey.md"
SERVING = ROOT / "docs" / "serving.md"

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(?P<text>[^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
SETTING = re.compile(rf"(?P<section>{'|'.join(RunConfig.model_fields)})\.(?P<key>[a-z][a-z0-9_]*)")
VARIABLE = re.compile(r"SCANNER_(?P<section>[A-Z]+)__(?P<key>[A-Z_]+)")
PATH = re.compile(r"(?:scanner|benchmarks|docs|deploy|schemas|examples|tests|models)/[\w./-]+\.\w+")
FILES = (".zarr", ".parquet", ".json", ".fits")

#: Returned by a verb that compares two things, so no error's.
VERDICTS = {1, EXIT_DIFFERENT}

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@cache
def commands():
    """Every command by its words."""
    found = {}

    def walk(command, words):
        found[words] = command
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                walk(command.get_command(click.Context(command), name), (*words, name))

    walk(scanner, ("scanner",))
    return found


@cache
def flags(words):
    options = [option for parameter in commands()[words].params for option in (*parameter.opts, *parameter.secondary_opts)]
    return {*options, "--help", "--debug"}


def command_of(words):
    """The longest command that begins a line; of a group that has one, the command that is meant where none is named."""
    found = max((known for known in commands() if tuple(words[: len(known)]) == known), key=len, default=None)
    default = None if found is None else getattr(commands()[found], "default", None)
    return (*found, default) if isinstance(default, str) and len(words) > len(found) else found


def fences(page, *languages):
    return [match["text"] for match in FENCE.finditer(page.read_text()) if not languages or match["language"] in languages]


def prose(page):
    return FENCE.sub("", page.read_text())


def snippets(page):
    return [match["text"] for match in INLINE.finditer(prose(page))]


def command_lines(page):
    """Lines of the blocks that call something, prompts and comments removed, continued lines joined."""
    for text in fences(page, "", "console", "sh", "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            if line.startswith(("scanner ", "python ")) or " scanner " in line.partition("#")[0]:
                try:
                    words = shlex.split(line, comments=True)
                except ValueError:
                    continue
                while words and ("=" in words[0] or words[0] in ("exec", "nohup")):
                    words = words[1:]
                if words and words[0] in ("scanner", "python"):
                    yield words


def script_of(words):
    """The file that ``python …`` runs."""
    if words[1:2] == ["-m"] and len(words) > 2:
        return ROOT / (words[2].replace(".", "/") + ".py")
    return ROOT / words[1] if len(words) > 1 and words[1].endswith(".py") else None


def check_flags(words, page):
    """Every flag of one call is a flag of what is called; a script lies in the project or stands on the page."""
    used = [flag for word in words for flag in FLAG.findall(word.partition("=")[0])]
    if words[0] == "scanner":
        command = command_of(words)
        unknown = [flag for flag in used if flag not in flags(command)]
    else:
        script = script_of(words)
        on_page = script is not None and f"# {script.name}" in page.read_text()
        assert script is None or on_page or script.exists(), f"{' '.join(words)}: there is no {script}"
        text = page.read_text() if on_page else "" if script is None else script.read_text()
        unknown = [flag for flag in used if script is not None and f'"{flag}"' not in text]
    assert not unknown, f"{' '.join(words)}: {unknown}"


@by_page
def test_command_lines_can_be_given_as_they_stand(page):
    if page.name in LOGS:
        return
    for words in command_lines(page):
        words = [word for word in words if word not in ("...", "…", "|")]
        check_flags(words, page)
        if words[0] == "scanner":
            command = command_of(words)
            n_named = len(command) - (tuple(words[: len(command)]) != command)
            rest = [word for word in words[n_named:] if word != "--debug"]
            assert not isinstance(commands()[command], click.Group) or not rest, f"{' '.join(words)}: no such command"
            # Raises what the command line would refuse.
            commands()[command].make_context(words[0], rest)


@by_page
def test_commands_and_flags_in_the_text_exist(page):
    everywhere = {flag for words in commands() for flag in flags(words)}
    # Text goes on about the benchmark that it has just named.
    everywhere |= {flag for path in ROOT.joinpath("benchmarks").glob("*.py") for flag in FLAG.findall(path.read_text())}
    for text in snippets(page):
        words = text.split()
        if words[0] in ("scanner", "python"):
            command = command_of(words) if words[0] == "scanner" else None
            if command is not None and isinstance(commands()[command], click.Group) and len(words) > len(command):
                assert words[len(command)].startswith(("-", "…", "[")), f"`{text}`: no such command"
            check_flags(words, page)
        elif text.startswith("--"):
            assert FLAG.match(text)[0] in everywhere, f"`{text}`: no command has such a flag"


@by_page
def test_settings_exist(page):
    model = ServiceConfig if page == SERVING else RunConfig
    for text in fences(page, "toml"):
        model.model_validate(tomllib.loads(text))
    text = page.read_text()
    named = [(match["section"], match["key"]) for snippet in snippets(page) if (match := SETTING.fullmatch(snippet))]
    named += [(match["section"].lower(), match["key"].lower()) for match in VARIABLE.finditer(text)]
    for section, key in named:
        is_module = ROOT.joinpath("scanner", section, f"{key}.py").is_file()
        if not is_module and not f"{section}.{key}".endswith(FILES):
            assert key in RunConfig.model_fields[section].annotation.model_fields, f"{section}.{key}: no such setting"


@by_page
def test_links_lead_somewhere(page):
    for match in LINK.finditer(prose(page)):
        target, _, anchor = match["target"].partition("#")
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{match['target']}: there is no such file"
        if anchor:
            assert anchor in anchors(place), f"{match['target']}: there is no such heading"


def anchors(page):
    """Names that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@by_page
def test_files_of_the_project_exist(page):
    for text in snippets(page):
        for name in PATH.findall(text):
            assert (ROOT / name).exists() or "<" in text, f"`{name}`: there is no such file"


def test_the_way_of_a_photon_leads_through_modules():
    way = (ROOT / "CONTRIBUTING.md").read_text().split("## The way of a photon")[1].split("\n\n")[1]
    named = re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", way)
    assert len(named) > 5
    for name in named:
        assert ROOT.joinpath("scanner", *name.split(".")).with_suffix(".py").is_file(), name


def test_exit_codes_are_told_alike():
    """The operators' table, the README, the docstring of the command line and the classes of errors."""
    known = {kind.exit_code for kind in errors.ScannerError.__subclasses__()} | {errors.ScannerError.exit_code, 0}
    known |= {value for name, value in vars(command_line).items() if name.startswith("EXIT_")} | VERDICTS
    docstring = re.search(r"Exit codes: (.+?)\.\s*$", command_line.main.__doc__, re.MULTILINE | re.DOTALL)[1]
    assert {int(part.split()[0]) for part in docstring.split(";")} == known
    table = OPERATORS.read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == known
    sentence = re.search(r"Exit codes: (.+?)\.", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    assert {int(code) for code in re.findall(r"\b\d+\b", sentence)} <= known


def test_operators_learn_of_every_setting_of_engine_and_storage():
    text = OPERATORS.read_text()
    missing = [
        f"{section}.{key}"
        for section in ("engine", "storage")
        for key in RunConfig.model_fields[section].annotation.model_fields
        if f"`{section}.{key}`" not in text
    ]
    assert not missing


def test_operators_learn_of_every_setting_of_the_service():
    rows = dict(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|[^|]*\| ([^|]*) \|", SERVING.read_text(), re.MULTILINE))
    sections = {name: field.annotation for name, field in ServiceConfig.model_fields.items() if name != "storage"}
    known = {f"{section}.{key}": field for section, kind in sections.items() for key, field in kind.model_fields.items()}
    assert rows.keys() == known.keys()
    for name, field in known.items():
        if isinstance(field.default, int | float | str):
            told = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert rows[name].lower() == told.lower(), name
    text = " ".join(SERVING.read_text().split())
    assert f"is seen within {RENEWAL_S:.0f} s" in text
    assert f"reason: {', '.join(get_args(Reason))} |" in text


def test_figures_of_the_operators_page_are_those_of_the_code():
    text = " ".join(OPERATORS.read_text().split())
    grace = WorkerRequest(scheduler="tcp://head:8786").grace_s
    for sentence in (
        f"silent for {lease.SILENT_S:.0f} s is taken over",
        f"size and {fingerprint.SAMPLED_BLOCKS} blocks of a local file",
        f"writes every {LOCAL_INTERVAL_S:.0f} s ({REMOTE_INTERVAL_S:.0f} s on S3)",
        f"probabilities may differ by {objects.PROBABILITY_TOLERANCE:.1e} (".replace("e-04", "e-4"),
        f"pixels by {objects.PIXEL_TOLERANCE_SIGMA:.0e} σ".replace("e-03", "e-3"),
        f"within `--grace` ({grace:.0f} s)",
        f"{CODECS['compact'].bytes_per_object / 1000:.0f} kB a kept object, "
        f"{CODECS['exact'].bytes_per_object / 1000:.0f} kB with `--codec exact`",
        f"{engine.LONGEST_PAUSE_SECONDS / 60:.0f} minutes at most",
    ):
        assert sentence in text
    assert engine.ROW_OF_UNAVAILABLE == 5
    assert "Five tiles in a row" in text
    for name, field in [*EngineConfig.model_fields.items(), *StorageConfig.model_fields.items()]:
        if isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
            (row,) = (line for line in OPERATORS.read_text().splitlines() if line.startswith("| `") and f".{name}`" in line)
            told = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert row.split("|")[3].strip(" `") == told


@pytest.mark.parametrize("verb", ["run", "status", "replay", "scheduler", "worker", "serve"])
def test_operators_learn_of_every_flag(verb):
    text = "".join(page.read_text() for page in PAGES)
    assert not [flag for flag in flags(("scanner", verb)) if flag.startswith("--") and flag != "--help" and flag not in text]


def test_metrics_that_are_named_exist():
    folders = ("survey", "service", "training")
    source = "".join(path.read_text() for folder in folders for path in ROOT.joinpath("scanner", folder).rglob("*.py"))
    source += "".join(path.read_text() for path in ROOT.joinpath("deploy").rglob("*rules*.y*ml"))
    for page in PAGES:
        for name in re.findall(r"`(scanner_[a-z_]+)", page.read_text()):
            stem = re.sub(r"_(total|bucket|sum|count)$", "", name)
            assert stem in source or stem.removeprefix("scanner_") in source, f"{page.name}: {name}"


def test_the_certificates_of_the_operators_page_are_accepted_on_both_sides(tmp_path):
    """Made as the page says: a scheduler and a worker shake hands, a worker with another authority's does not."""
    programs.needed("openssl", target="debian")
    (recipe,) = (text for text in fences(OPERATORS, "bash") if "openssl" in text)
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
        subprocess.run(["bash", "-euc", recipe], cwd=tmp_path / folder, check=True, capture_output=True)

    def context(folder, role):
        paths = [str(tmp_path / folder / name) for name in ("ca.pem", f"{role}.pem", f"{role}-key.pem")]
        side = "listen" if role == "scheduler" else "connection"
        made = security(certificates(*paths))
        return (made.get_listen_args if side == "listen" else made.get_connection_args)(role)["ssl_context"]

    def shake_hands(client):
        here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
        sides = [
            context("ours", "scheduler").wrap_bio(here, there, server_side=True),
            client.wrap_bio(there, here, server_side=False),
        ]
        for _ in range(4):
            for side in reversed(sides):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        return sides[0].getpeercert()["subject"][0][0][1]

    assert shake_hands(context("ours", "worker")) == "worker"
    with pytest.raises(ssl.SSLError):
        shake_hands(context("theirs", "worker"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation, rendered as ``make docs`` does."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", str(ROOT / "docs"), str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert made.returncode == 0, made.stderr
    return folder


def test_every_page_is_rendered_and_can_be_searched(site):
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= {page.relative_to(site).with_suffix("").as_posix() for page in site.rglob("*.html")}
    index = json.loads((site / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    found = index["terms"]["mosaic"]
    assert "first-scan" in {index["docnames"][page] for page in (found if isinstance(found, list) else [found])}


def test_the_command_line_is_documented_as_it_is(site):
    text = html.unescape(re.sub("<[^>]+>", "", (site / "reference" / "cli.html").read_text()))
    for words, command in commands().items():
        assert "\n" + " ".join(words) in text, words
        for option in (option for parameter in command.params for option in parameter.opts if option.startswith("--")):
            assert option in text, (words, option)


def test_no_page_is_too_long_to_read():
    assert not {page.name: n for page in (ROOT / "docs").rglob("*.md") if (n := len(page.read_text().splitlines())) > 260}
