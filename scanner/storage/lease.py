"""Who holds a folder of an object store: an object that its holder renews as long as it lives."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from obstore.exceptions import AlreadyExistsError, PreconditionError
from pydantic import ValidationError

from scanner.errors import OutputError, ScannerError
from scanner.records import Record
from scanner.storage.contract import held_by_another
from scanner.storage.requests import asking, version_of

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion
    from obstore.store import ObjectStore as Bucket


RENEW_S = 10.0
SILENT_S = 60.0
_LOOK_S = 1.0
_log = logging.getLogger(__name__)


class LeaseRecord(Record):
    """``.lock`` of a run folder on an object store; ``machine`` and ``process`` tell one start of either from the next.

    ``token``: of this hold; "" once it was given back.
    """

    host: str
    machine: str
    pid: int
    process: str
    token: str
    renewed: datetime

    @property
    def holder(self) -> str:
        """The holder, for messages."""
        return f"process {self.pid} on {self.host}"


class Lease:
    """One process's hold of an object; ``token`` tells it from all others.

    It is made, renewed and taken over by conditional writes only, so two processes never have it by the server's account. Every
    :data:`RENEW_S` it gets new content. Who finds it held waits until it changes (then it is refused) or has not changed for
    :data:`SILENT_S` by its own clock, whatever the clocks of others say (then it takes over); a holder on this machine need not
    be waited for: its process is there or not.
    """

    def __init__(self, bucket: Bucket, path: str, where: str) -> None:
        self._bucket, self._path, self._where = bucket, path, where
        self.token = uuid4().hex
        self._version: UpdateVersion = {}
        self._renewed = (0.0, 0.0)
        self._lost = False
        self._writing = threading.Lock()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease and keep it until :meth:`release`.

        Raises
        ------
        OutputError
            Another process holds it, or it cannot be written.
        """
        while not self._put("create"):
            found = self._read()
            if found is None:
                continue
            record, version = found
            if record is not None and record.token == self.token:
                # The answer to an earlier try was lost.
                self._version = version
                break
            alive = _is_alive(record) if record is not None else None
            if not _given_back(record) and (alive or (alive is None and not self._falls_silent(version))):
                raise held_by_another(self._where, record.holder if record is not None else "")
            if self._put(version):
                break
        self._refuse_servers_that_know_no_conditions()
        self._thread.start()

    def check(self) -> None:
        """Make sure that the lease is still this process's; asks the server only after a pause in which it may have gone.

        Raises
        ------
        OutputError
            Another process has taken it over.
        """
        pause = max(abs(now - then) for now, then in zip(_clocks(), self._renewed, strict=True))
        if not self._lost and pause > SILENT_S:
            self._renew()
        if self._lost:
            raise OutputError(
                f"{self._where}: another scanner run took this folder over while this one could not be heard of; "
                "this one stops, the other goes on."
            )

    def release(self) -> None:
        """Give the lease back: write it without a token; what another process holds by now is left alone."""
        self._released.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(ScannerError):
            found = self._read()
            if found is not None and found[0] is not None and found[0].token == self.token:
                # Not removed, which no condition could keep from being done to the lease of a holder that took over just now.
                self._put(found[1], token="")

    def _refuse_servers_that_know_no_conditions(self) -> None:
        """Ask for what must fail: a server that does it would let several holders write, and two attempts at a tile mix."""
        if self._put("create") or self._put({"e_tag": '"of no content"', "version": "1"}):
            self.release()
            raise OutputError(
                f"{self._where}: the object store ignores the conditions of writes (If-None-Match, If-Match), which "
                "keep runs from being corrupted; use one that knows them, or a local folder."
            )

    def _keep(self) -> None:
        while not self._lost and not self._released.wait(RENEW_S):
            try:
                self._renew()
            except ScannerError as error:
                # Others may take it over meanwhile: no write is made any more before the store has answered.
                _log.warning("%s", error)

    def _renew(self) -> None:
        with self._writing:
            if self._put(self._version):
                return
            found = self._read()
            self._lost = found is None or found[0] is None or found[0].token != self.token
            if found is not None and not self._lost:
                self._version, self._renewed = found[1], _clocks()

    def _put(self, mode: PutMode, token: str | None = None) -> bool:
        """Write the lease, or return False where the condition does not hold."""
        record = LeaseRecord(
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            process=_process(os.getpid()) or "",
            token=self.token if token is None else token,
            renewed=datetime.now(UTC),
        )
        begun = _clocks()
        with asking(self._where, "write"):
            try:
                self._version = version_of(self._bucket.put(self._path, record.model_dump_json().encode(), mode=mode))
            except (AlreadyExistsError, PreconditionError):
                return False
        self._renewed = begun
        return True

    def _read(self) -> tuple[LeaseRecord | None, UpdateVersion] | None:
        """The lease that is there, None for a damaged one, and its version."""
        try:
            with asking(self._where, "read"):
                found = self._bucket.get(self._path)
                content, version = bytes(found.bytes()), version_of(found.meta)
        except FileNotFoundError:
            return None
        try:
            return LeaseRecord.model_validate_json(content), version
        except ValidationError:
            return None, version

    def _falls_silent(self, version: UpdateVersion) -> bool:
        """Watch the lease until it has not changed for long, or is given back (True), or its holder renews it (False)."""
        _log.info("%s: is held; waiting up to %.0f s for a sign of its holder.", self._where, SILENT_S)
        end = time.monotonic() + SILENT_S
        while time.monotonic() < end:
            time.sleep(min(_LOOK_S, SILENT_S / 10))
            found = self._read()
            if found is None or _given_back(found[0]):
                return True
            if found[1] != version:
                return False
        return True


def _clocks() -> tuple[float, float]:
    """Seconds by the clock that goes on while this machine sleeps, and by the one that is set; the first need not be there."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)), time.time()


def _given_back(record: LeaseRecord | None) -> bool:
    return record is not None and not record.token


def _is_alive(record: LeaseRecord) -> bool | None:
    """Whether a lease's holder lives; None where it ran on another machine, or where that cannot be known."""
    if not record.process or (record.host, record.machine) != (socket.gethostname(), _machine()):
        return None
    return _process(record.pid) == record.process


def _machine() -> str:
    """One boot of one machine, and one of its containers: where a process id means one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process(pid: int) -> str | None:
    """When a process of this machine began, which tells it from a later one of the same id; None where there is none."""
    try:
        # The second field is the program's name in brackets, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
