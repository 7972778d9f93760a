"""The ``scanner`` command: finds the verb, runs it, turns errors into one line and an exit code; and its manual pages.

Verbs are imported only when they run, so that ``scanner --help`` answers at once.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from scanner import __version__
from scanner.atomic_file import write_atomically
from scanner.errors import OutputError, ScannerError, UsageError, pip_install, printable

EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
INTERRUPTED = "interrupted; give the same command again and it goes on where it was."
#: Closing after Ctrl-C may take so long; until then nobody may break it off, which would show where it was, in many lines.
CLOSING_SECONDS = 3.0
#: What a scan does without, and the extra that brings it.
EXTRA_LIBRARIES = {
    **dict.fromkeys(("torch", "onnx", "openTSNE", "sklearn", "captum"), ("training side", "train")),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "multipart"), ("service", "service")),
}

#: Verb → where its command lives and what it does.
VERBS = {
    "run": ("scanner.cli.run:run", "Scan the tiles of a list: mosaics in, ranked candidates out."),
    "prepare": ("scanner.cli.prepare:prepare", "Make tiles to scan of any survey's images."),
    "replay": ("scanner.cli.replay:replay_", "Do one object of a run again: is the result the same?"),
    "rescore": ("scanner.cli.replay:rescore_", "Score a run's stored cutouts with another bundle: who moved?"),
    "status": ("scanner.cli.status:status", "Say how far a run is: tiles, failures and why, rate, time left."),
    "query": ("scanner.cli.query:query", "Ask a catalogue: by position, score, name or SQL; see or keep the answer."),
    "features": ("scanner.cli.query:features_", "Keep what a network sees in a run's cutouts, to ask for more like one."),
    "catalogue": ("scanner.cli.catalogue:catalogue", "Merge runs into the catalogue of a survey; list its versions."),
    "verify": ("scanner.cli.replay:verify", "Compare a run, survey, bundle or dataset with its checksums."),
    "scheduler": ("scanner.cli.cluster:scheduler", "Start a scheduler, where workers and a run meet."),
    "worker": ("scanner.cli.cluster:worker", "Start a worker, which scans tiles for the runs of a scheduler."),
    "serve": ("scanner.cli.serve:serve", "Serve runs and surveys: web pages, JSON, cone search, TAP."),
    "tokens": ("scanner.cli.serve:tokens", "Make tokens that let people read or grade what is served."),
    "models": ("scanner.cli.models:models", "Import, verify, list, publish and promote bundles of trained networks."),
    "simulate": ("scanner.cli.simulate:simulate", "Draw simulated tiles and labelled datasets."),
    "train": ("scanner.cli.train:train", "Train the seven networks and make a bundle of them."),
    "evaluate": ("scanner.cli.evaluate:evaluate", "Measure bundles on a labelled dataset."),
    "grades": ("scanner.cli.grades:grades", "Export grades as labels and datasets, say how far graders agree."),
    "labels": ("scanner.cli.prepare:labels", "Import labels that others gave: published tables, votes, lists."),
    "model": ("scanner.cli.model:model_", "Fit a lens model to the candidates of a run."),
    "export-model": ("scanner.cli.model:export_model_", "Hand a lens model to other software."),
    "recovery": ("scanner.cli.recovery:recovery_", "Paint lenses into a run's tiles: which does it find?"),
    "forecast": ("scanner.cli.recovery:forecast_", "Say what a survey of some area would yield, from a recovery."),
    "explain": ("scanner.cli.explain:explain", "Explain an object of a run, or the networks of a bundle."),
    "man": ("scanner.cli.main:man", "Write the manual pages: man scanner-run."),
    "schemas": ("scanner.cli.schemas:schemas", "Write the JSON Schema of every file and message."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order in which a user meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb.

        Raises
        ------
        UsageError
            There is none of this name.
        """
        if cmd_name not in VERBS:
            near = difflib.get_close_matches(cmd_name, VERBS, n=1)
            hint = f"did you mean {near[0]}?" if near else "'scanner --help' lists them."
            raise UsageError(f"There is no command {cmd_name}; {hint}")
        module, _, name = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, summary) for verb, (_, summary) in VERBS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scanner")
def scanner() -> None:
    """Find strong gravitational lenses in survey imaging.

    Start with `scanner run tile-list.txt`. `--debug`, anywhere, shows tracebacks.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Exit codes: 0 done; 1 the bundle was not promoted; 3 done, but some tiles failed; 4 a replayed object differs; 64 usage or
    configuration; 65 malformed tile list; 66 input missing; 70 internal error; 73 output cannot be written; 75 a store or
    scheduler does not answer, try again; 78 bad bundle or run folder; 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"] or ["--help"]
    with _interrupts_in_one_line(for_good=arguments is None):
        _run(words, debug)


def _run(words: list[str], debug: bool) -> None:
    try:
        code = scanner.main(words, prog_name="scanner", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        _fail(INTERRUPTED, EXIT_INTERRUPTED, debug)
    except click.exceptions.NoArgsIsHelpError as error:
        # A group without a word says what there is, as 'scanner' does.
        click.echo(error.format_message())
        code = 0
    except click.ClickException as error:
        message = error.format_message().rstrip(".")
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f" Try '{context.command_path} --help'." if context else ""
        _fail(f"{message}{'' if message.endswith('?') else '.'}{hint}", UsageError.exit_code, debug)
    except ScannerError as error:
        _fail(str(error), error.exit_code, debug)
    except BrokenPipeError:
        # The reader of our output has gone (`scanner … | head`); the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = OutputError.exit_code if full else EXIT_INTERNAL
        _fail(f"{error.filename or 'output'}: {error.strerror or error}.", code, debug)
    except Exception as error:
        missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if missing in EXTRA_LIBRARIES:
            part, extra = EXTRA_LIBRARIES[missing]
            message = f"this needs {missing}; install the {part}: {pip_install(extra)}"
            _fail(message, UsageError.exit_code, debug)
        reason = printable(f"{type(error).__name__}: {error}".splitlines()[0])
        _fail(f"internal error: {reason} (run again with --debug, and report it)", EXIT_INTERNAL, debug)
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _interrupts_in_one_line(*, for_good: bool) -> Iterator[None]:
    """Let the first Ctrl-C stop the command, and those that follow wait until it is closed, or has had time to.

    ``for_good``: the process ends with the block, and Ctrl-C while the interpreter takes itself down changes nothing any more.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler not in (signal.SIG_DFL, signal.default_int_handler):
        yield
        return
    first: list[float] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            raise KeyboardInterrupt
        if time.monotonic() > first[0] + CLOSING_SECONDS:
            os.write(2, f"scanner: {INTERRUPTED}\n".encode())
            os._exit(EXIT_INTERRUPTED)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN if for_good else handler)


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"scanner: {message}", err=True)
    sys.exit(code)


class Page(click.HelpFormatter):
    """Writes a command's help as a manual page, in the macros of man(7)."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """How the command is given."""
        self.write(f".SH SYNOPSIS\n.B {_escaped(prog)}\n{_escaped(args)}\n.SH DESCRIPTION\n")

    def write_text(self, text: str) -> None:
        """Paragraphs; one that begins with a backspace keeps its lines, as click has it."""
        for paragraph in text.split("\n\n"):
            lines, as_it_is = paragraph.removeprefix("\b\n"), paragraph.startswith("\b\n")
            self.write(".PP\n" + (f".nf\n{_escaped(lines)}\n.fi\n" if as_it_is else f"{_escaped(' '.join(lines.split()))}\n"))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Options, or commands, and what they mean."""
        for name, meaning in rows:
            self.write(f".TP\n.B {_escaped(name)}\n{_escaped(meaning)}\n")

    def write_paragraph(self) -> None:
        """Nothing: a paragraph begins with its text."""

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """A heading and what stands below it."""
        self.write(f".SH {_escaped(name.upper())}\n")
        yield


def _escaped(text: str) -> str:
    """Text that troff takes as it is, hyphens that can be copied into a shell included."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").split("\n")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def pages(context: click.Context) -> Iterator[tuple[str, str]]:
    """File name and text of the page of a command, then of those of the commands below it."""
    command, name = context.command, context.command_path.replace(" ", "-")
    names = command.list_commands(context) if isinstance(command, click.Group) else []
    page = Page()
    page.write(f'.TH {_escaped(name.upper())} 1 "" "scanner {__version__}" "scanner"\n')
    page.write(f".SH NAME\n{_escaped(name)} \\- {_escaped(command.get_short_help_str(200).rstrip('.'))}\n")
    command.format_help(context, page)
    near = [name.rpartition("-")[0]] if context.parent else []
    if near or names:
        others = ",\n".join(f".BR {_escaped(one)} (1)" for one in [*near, *(f"{name}-{one}" for one in names)])
        page.write(f".SH SEE ALSO\n{others}\n")
    yield f"{name}.1", page.getvalue()
    for one in names:
        assert isinstance(command, click.Group)
        below = command.get_command(context, one)
        assert below is not None
        yield from pages(click.Context(below, parent=context, info_name=one))


@click.command()
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder [default: share/man/man1 of the environment].")
def man(out: Path | None) -> None:
    """Write the manual pages: after that, 'man scanner-run' and its like show the help of each command.

    man finds those in the environment's own folder while its programs are on the PATH.
    """
    folder = Path(sys.prefix) / "share" / "man" / "man1" if out is None else out
    written = list(pages(click.Context(scanner, info_name="scanner", **scanner.context_settings)))
    for name, text in written:
        write_atomically(folder / name, text.encode())
    click.echo(f"{folder}: {len(written)} pages; begin with: man scanner")
