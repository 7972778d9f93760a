"""Steps several writers of one run folder through every order of their calls, as a model checker does, over the real code.

An actor is a function that stops before each call that reads or writes the run folder: a call
of the system below a local folder, or a request to an object store (one in memory, with S3's conditions). :func:`explore` lets
one actor after the other do its next call, or dies there, until every state was seen; :func:`wander` draws one order by chance.
Two orders lead to the same state if the folder is the same and each actor has done the same calls and was answered the same.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from greenlet import greenlet
from obstore.exceptions import AlreadyExistsError, PreconditionError

from scanner.storage import object_store as object_stores
from scanner.storage.lease import Lease, LeaseRecord
from scanner.storage.requests import version_of

#: Which calls of the system are steps, and what of their answers an actor may act on.
READS = ("stat", "lstat", "scandir", "listdir")
WRITES = ("mkdir", "rename", "replace", "rmdir", "unlink", "link", "open")


#: What an actor that waits for something from outside stops before.
WAITS = "waits"


class Killed(BaseException):
    """The process of an actor is no more: nothing that it would do now has any effect."""


@dataclass
class Actor:
    """A process of the run.

    ``may_begin``: asked before its first step. ``mortal``: whether it may be killed. ``dies_after``: it is killed as soon as
    this holds.
    """

    name: str
    body: Callable[[], object]
    may_begin: Callable[[], bool] = lambda: True
    mortal: bool = False
    dies_after: Callable[[], bool] = lambda: False
    result: object = None
    begun: bool = False
    killed: bool = False
    over: bool = False
    has_written: bool = False
    calls: list[str] = field(default_factory=list)
    history: Any = field(default_factory=hashlib.sha1)
    _greenlet: Any = None
    _n_names: int = 0

    def step(self) -> None:
        """Let it go on to its next call."""
        self.begun = True
        if self._greenlet is None:
            self._greenlet = greenlet(self._run)
            self._greenlet.actor = self
        self._greenlet.switch()

    def kill(self) -> None:
        """End it before its next call; nothing of its clearing up has any effect."""
        self.killed = True
        while not self.over:
            self.step()

    @property
    def waits(self) -> bool:
        """Whether it has nothing to do of itself."""
        return self.over or (bool(self.calls) and self.calls[-1] == WAITS)

    def fresh_name(self) -> str:
        """Hexadecimal digits that no other call of any actor gets."""
        self._n_names += 1
        return hashlib.md5(f"{self.name} {self._n_names}".encode()).hexdigest()

    def before(self, call: str, *, writes: bool) -> None:
        """Stop before a call; from within the actor."""
        if not self.killed:
            self.calls.append(call)
            greenlet.getcurrent().parent.switch()
        if self.killed:
            raise Killed
        self.has_written = writes

    def answered(self, answer: object) -> None:
        """Note what a call gave."""
        self.history.update(repr((self.calls[-1], answer)).encode())

    def _run(self) -> None:
        try:
            self.result = self.body()
        except BaseException as error:
            self.result = error
        self.over = True


def acting() -> Actor | None:
    """The actor that runs; None: who steps them."""
    return getattr(greenlet.getcurrent(), "actor", None)


class Sorted:
    """What ``os.scandir`` gives, in an order that depends on nothing."""

    def __init__(self, found: Any) -> None:
        with found:
            entries = sorted(found, key=lambda entry: str(entry.name))
        self.names = [entry.name for entry in entries]
        self._ahead = iter(entries)

    def __enter__(self) -> Sorted:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self) -> Sorted:
        return self

    def __next__(self) -> os.DirEntry[str]:
        return next(self._ahead)


def _stepped(name: str, real: Callable[..., Any], root: str) -> Callable[..., Any]:
    def call(path: Any = ".", *more: Any, **options: Any) -> Any:
        actor = acting()
        if actor is None or options.get("dir_fd") is not None or not _is_shared(path, root):
            if actor is not None and actor.killed:
                raise Killed
            return real(path, *more, **options)
        named = [str(word).removeprefix(root) for word in (path, *more) if isinstance(word, (str, Path))]
        actor.before(f"{name} {' '.join(named)}", writes=name in WRITES)
        try:
            found = real(path, *more, **options)
        except OSError as error:
            actor.answered(error.errno)
            raise
        if name == "scandir":
            found = Sorted(found)
            actor.answered(found.names)
        elif name == "listdir":
            actor.answered(sorted(found))
        elif name in ("stat", "lstat"):
            actor.answered((found.st_mode, None if stat.S_ISDIR(found.st_mode) else _content(path)))
        elif name == "open":
            actor.answered(_content(path))
        else:
            actor.answered("done")
        return found

    return call


def _is_shared(path: Any, root: str) -> bool:
    """Whether others may meet this file: what is only being removed is nobody's any more."""
    return str(path).startswith((f"{root}/run/tiles", f"{root}/run/handover", f"{root}/run/.lock")) and "removed" not in str(
        path
    )


def _content(path: Any) -> bytes | None:
    try:
        with _open(path, "rb") as file:
            return bytes(file.read())
    except (OSError, TypeError):
        return None


_open = io.open


class Fresh:
    """Stands for ``uuid4()``."""

    def __init__(self) -> None:
        actor = acting()
        self.hex = actor.fresh_name() if actor is not None else os.urandom(16).hex()


class Serial:
    """Stands for a pool of threads."""

    def __init__(self, threads: int) -> None:
        pass

    def __enter__(self) -> Serial:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *words: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*words))
        except Exception as error:
            future.set_exception(error)
        return future


class Got:
    """What a bucket answers to ``get``."""

    def __init__(self, path: str, content: bytes, e_tag: str) -> None:
        self.meta = {"path": path, "size": len(content), "e_tag": e_tag, "version": None}
        self.attributes: dict[str, str] = {}
        self._content = content

    def bytes(self) -> bytes:
        return self._content


class Bucket:
    """Objects in memory. A request is one step, a removal of several objects one for each; versions are hashes of contents."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def _asked(self, call: str) -> None:
        if (actor := acting()) is not None:
            actor.before(call, writes=not call.startswith(("get", "list")))

    def _answered(self, answer: Any) -> Any:
        if (actor := acting()) is not None:
            actor.answered(answer)
        return answer

    def get(self, path: str, options: Any = None) -> Got:
        self._asked(f"get {path}")
        content = self._answered(self.objects.get(path))
        if content is None:
            raise FileNotFoundError(errno.ENOENT, path)
        return Got(path, content, hashlib.md5(content).hexdigest())

    def head(self, path: str) -> dict[str, Any]:
        return self.get(path).meta

    def put(self, path: str, content: Any, mode: Any = "overwrite", **_: Any) -> dict[str, str]:
        self._asked(f"put {path} {mode}")
        there = self.objects.get(path)
        if mode == "create" and there is not None:
            self._answered("exists")
            raise AlreadyExistsError(path)
        if isinstance(mode, dict) and (there is None or hashlib.md5(there).hexdigest() != mode["e_tag"]):
            self._answered("precondition")
            raise PreconditionError(path)
        self.objects[path] = content.read_bytes() if isinstance(content, Path) else bytes(content)
        return {"e_tag": self._answered(hashlib.md5(self.objects[path]).hexdigest()), "version": None}

    def delete(self, paths: Any) -> None:
        for path in [paths] if isinstance(paths, str) else paths:
            self._asked(f"delete {path}")
            self._answered(self.objects.pop(path, None) is not None)

    def list(self, prefix: str | None = None, chunk_size: int = 0) -> list[list[dict[str, Any]]]:
        self._asked(f"list {prefix}")
        found = {
            path: content for path, content in sorted(self.objects.items()) if path.startswith(f"{prefix or ''}/".lstrip("/"))
        }
        self._answered(sorted(found))
        return [[Got(path, content, "").meta for path, content in found.items()]]

    def list_with_delimiter(self, prefix: str | None = None) -> dict[str, Any]:
        (found,) = self.list(prefix)
        start = f"{prefix or ''}/".lstrip("/")
        names = [meta["path"].removeprefix(start) for meta in found]
        return {
            "common_prefixes": sorted({start + name.partition("/")[0] for name in names if "/" in name}),
            "objects": [
                meta | {"e_tag": "", "last_modified": datetime.now(UTC)}
                for meta in found
                if "/" not in meta["path"].removeprefix(start)
            ],
        }


class TakenOver(Lease):
    """A lease that whoever comes takes over, and whose earlier holder never notices: the worst that can happen to it."""

    def acquire(self) -> None:
        record = LeaseRecord(
            host="here", machine="", pid=1, process="", token=self.token, renewed=datetime(2026, 1, 1, tzinfo=UTC)
        )
        self._version = version_of(self._bucket.put(self._path, record.model_dump_json().encode()))

    def check(self) -> None:
        pass


Schedule = Sequence[tuple[int, str]]


@dataclass
class World:
    """One run folder and its actors, from the beginning."""

    actors: Sequence[Actor]
    #: Called outside of all actors, when something may have changed.
    check: Callable[[], None]
    snapshot: Callable[[], object]
    has_changed: bool = True
    _snapshot: object = None

    def choices(self, deaths: int) -> list[tuple[int, str]]:
        """What can happen next: an actor goes on, or dies."""
        ready = [
            (number, actor) for number, actor in enumerate(self.actors) if not actor.over and (actor.begun or actor.may_begin())
        ]
        dead = sum(actor.killed for actor in self.actors if actor.mortal)
        return [(number, "step") for number, _ in ready] + [
            # Between two writes it is all the same when.
            (number, "kill")
            for number, actor in ready
            if actor.mortal and actor.has_written and dead < deaths
        ]

    def do(self, choice: tuple[int, str]) -> None:
        """Let it happen."""
        actor = self.actors[choice[0]]
        actor.step() if choice[1] == "step" else actor.kill()
        self.has_changed |= actor.has_written or actor.over
        for mortal in self.actors:
            if not mortal.over and mortal.dies_after():
                mortal.kill()
                self.has_changed = True

    def look(self, schedule: Schedule) -> None:
        """Check the state, and say how it came to it if it is a bad one."""
        if not self.has_changed:
            return
        self.has_changed = False
        self._snapshot = self.snapshot()
        try:
            self.check()
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self._story(schedule)])) from error

    def _story(self, schedule: Schedule) -> Iterator[str]:
        done = [0] * len(self.actors)
        for number, what in schedule:
            actor = self.actors[number]
            call = actor.calls[done[number] - 1] if done[number] else "begins"
            yield f"{actor.name}: {'KILLED' if what == 'kill' else call}"
            done[number] += 1

    def key(self) -> object:
        """The state."""
        told = tuple((actor.begun, actor.over, actor.killed, len(actor.calls), actor.history.digest()) for actor in self.actors)
        return hash((told, self._snapshot))

    def end(self) -> None:
        """End all that goes on."""
        for actor in self.actors:
            if actor.begun and not actor.over:
                actor.kill()


def explore(make: Callable[[], World], deaths: int, preemptions: int | None = None) -> int:
    """Go through every state; returns how many there are.

    Parameters
    ----------
    make
        Makes a fresh world.
    deaths
        So many actors may be killed.
    preemptions
        Only orders in which so many times at most an actor is left that could go on (Musuvathi & Qadeer 2007); None: all.
    """
    seen: set[object] = set()
    ahead: list[tuple[tuple[int, str], ...]] = [()]
    while ahead:
        schedule = ahead.pop()
        world = make()
        try:
            last, left = None, 0
            for number, choice in enumerate(schedule, 1):
                if number == len(schedule):
                    # What the last step changes is only seen by who saw the state before.
                    world.look(schedule[:-1])
                left += _preempts(world, last, choice)
                world.do(choice)
                last = choice[0]
            while True:
                world.look(schedule)
                key = world.key() if preemptions is None else (world.key(), last, left)
                if key in seen:
                    break
                seen.add(key)
                choices = [
                    choice
                    for choice in world.choices(deaths)
                    if preemptions is None or left + _preempts(world, last, choice) <= preemptions
                ]
                if not choices:
                    break
                ahead += [(*schedule, choice) for choice in choices[1:]]
                schedule = (*schedule, choices[0])
                left += _preempts(world, last, choices[0])
                world.do(choices[0])
                last = choices[0][0]
        finally:
            world.end()
    return len(seen)


def _preempts(world: World, last: int | None, choice: tuple[int, str]) -> bool:
    return last is not None and choice[0] != last and not world.actors[last].waits


def wander(make: Callable[[], World], deaths: int, seed: int) -> None:
    """Go one way through, drawn by chance."""
    chance = random.Random(seed)
    world, schedule = make(), []
    try:
        while choices := world.choices(deaths):
            steps = [choice for choice in choices if choice[1] == "step"]
            kills = [choice for choice in choices if choice[1] == "kill"]
            choice = chance.choice(kills) if kills and chance.random() < 0.03 else chance.choice(steps)
            schedule.append(choice)
            world.do(choice)
            world.look(schedule)
    finally:
        world.end()


@contextmanager
def local_folder() -> Iterator[tuple[Callable[[], str], Callable[[str], object]]]:
    """Gives a maker of empty run folders on a disk, and what is in one, while calls of the system are steps."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root, _patched() as patches:
        for name in (*READS, *WRITES):
            patches(patch.object(os, name, _stepped(name, getattr(os, name), root)))
        patches(patch.object(io, "open", _stepped("open", io.open, root)))
        patches(patch("scanner.storage.disk.flush", lambda path: None))
        patches(patch("scanner.storage.disk.flush_tree", Path.stat))
        patches(patch("scanner.atomic_file.flush", lambda path: None))

        def fresh() -> str:
            shutil.rmtree(f"{root}/run", ignore_errors=True)
            return f"{root}/run"

        def snapshot(location: str) -> object:
            found = []
            for parent, folders, files in os.walk(location):
                found += [(parent, tuple(sorted(folders)))] + [
                    (f"{parent}/{name}", _content(f"{parent}/{name}")) for name in sorted(files)
                ]
            return tuple(sorted(found, key=str))

        yield fresh, snapshot


@contextmanager
def object_store() -> Iterator[tuple[Callable[[], str], Callable[[str], object]]]:
    """As :func:`local_folder`, for an object store."""
    bucket = Bucket()
    with _patched() as patches:
        patches(patch.object(object_stores, "_bucket", lambda *_: bucket))
        patches(patch.object(object_stores, "Lease", TakenOver))

        def fresh() -> str:
            bucket.objects.clear()
            return "s3://bucket/run"

        yield fresh, lambda _: tuple(sorted(bucket.objects.items()))


@contextmanager
def _patched() -> Iterator[Callable[[Any], Any]]:
    with ExitStack() as stack:
        for module in (
            "scanner.atomic_file",
            "scanner.storage.disk",
            "scanner.storage.object_store",
            "scanner.storage.lease",
        ):
            stack.enter_context(patch(f"{module}.uuid4", Fresh))
        stack.enter_context(patch("scanner.storage.contract.ThreadPoolExecutor", Serial))
        yield stack.enter_context
