"""A second place for training runs: a node, or a disk, may go, and the run goes on elsewhere from its last checkpoint.

In: the location of the mirror, a folder or ``s3://…``, and a member's folder as :mod:`scanner.training.checkpoint` has it.
Out: ``MEMBER/run`` on the mirror, replaced whole by every :meth:`Mirror.push`, ``state.json`` last; and the member's folder
brought to the mirror's state where that is further (:meth:`Mirror.pull`). Refused: a mirror that holds another run
(:class:`~scanner.errors.UsageError`), files that are not what ``state.json`` says (:class:`~scanner.errors.ContentError`), and
what :mod:`scanner.storage.contract` lists. Scaled images are not mirrored: they are made anew of the data.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError

from scanner.atomic_file import write_atomically, writing_to
from scanner.config import StorageConfig
from scanner.errors import ContentError, UsageError
from scanner.records import MemberName, Record
from scanner.storage.checksum import file_sha256
from scanner.storage.contract import Store
from scanner.storage.holding import held
from scanner.storage.location import join
from scanner.storage.open import open_store

RUN, STATE = "run", "state.json"
#: In the order in which they are put into a member's folder: a plan without a checkpoint is of no consequence, nor is a member
#: without ``fit.json``.
FILES = ("plan.json", "checkpoint.pt", "history.parquet", "accuracy.png", "loss.png", "member.npz", "fit.json")
PLAN = FILES[0]

logger = logging.getLogger(__name__)


class Standing(Record):
    """How far a run is: ``step`` steps into stage number ``stage``, or ``finished`` with all files written."""

    stage: int = Field(0, ge=0)
    step: int = Field(0, ge=0)
    finished: bool = False

    def beyond(self, other: Standing) -> bool:
        """Whether it is further than another one of the same run."""
        return (self.finished, self.stage, self.step) > (other.finished, other.stage, other.step)


class MirrorRecord(Record):
    """``state.json``: what the mirror holds of a member's run; ``place``: where below the record its files lie."""

    member: MemberName
    standing: Standing
    place: str
    sha256: dict[str, str]


class Mirror:
    """One member's run on the mirror.

    Parameters
    ----------
    location
        Of the mirror, which holds the runs of all members.
    member
        Whose run.
    storage
        How object stores are reached.
    """

    def __init__(self, location: str, member: MemberName, storage: StorageConfig) -> None:
        self.member: MemberName = member
        self._store: Store = open_store(join(location, member), storage)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other jobs from writing to it; what killed ones left half-written is removed."""
        with held(self._store):
            self._store.sweep("")
            yield

    def pull(self, folder: Path, local: Standing) -> bool:
        """Bring a member's folder to the state of the mirror, if that is further than ``local``.

        Returns
        -------
        bool
            Whether files were brought.

        Raises
        ------
        UsageError
            Folder and mirror hold different runs.
        ContentError
            What the mirror holds is damaged.
        """
        record = self._record()
        if record is None:
            return False
        plan = folder / PLAN
        if plan.exists() and file_sha256(plan) != record.sha256.get(PLAN):
            raise UsageError(
                f"{folder}: holds another training run than its mirror {self._store.root}; choose another --out or --mirror, "
                "or remove one of the two."
            )
        if not record.standing.beyond(local):
            return False
        with writing_to(folder), tempfile.TemporaryDirectory(prefix="scanner-mirror-") as scratch:
            fetched = Path(scratch) / RUN
            self._fetch(record, fetched)
            for name in FILES:
                if name in record.sha256:
                    write_atomically(folder / name, (fetched / name).read_bytes())
        logger.info("%s: goes on from the mirror, stage %d, step %d", self.member, record.standing.stage, record.standing.step)
        return True

    def push(self, folder: Path, standing: Standing) -> None:
        """Put the run's files in the place of those of an earlier state.

        Raises
        ------
        ScannerError
            The mirror cannot be written; it holds the earlier state still.
        """
        names = [name for name in FILES if (folder / name).exists()]
        with self._store.staged(RUN, STATE) as staging:
            for name in names:
                shutil.copyfile(folder / name, staging.path / name)
            sha256 = {name: file_sha256(staging.path / name) for name in names}
            record = MirrorRecord(member=self.member, standing=standing, place=staging.place, sha256=sha256)
            (staging.path / STATE).write_bytes(record.to_bytes())

    def _record(self) -> MirrorRecord | None:
        key = f"{RUN}/{STATE}"
        try:
            record = MirrorRecord.model_validate_json(self._store.read(key))
        except FileNotFoundError:
            return None
        except ValidationError:
            raise self._damaged(key) from None
        if record.member != self.member:
            raise self._damaged(key)
        return record

    def _fetch(self, record: MirrorRecord, target: Path) -> None:
        key = "/".join(filter(None, (RUN, record.place)))
        try:
            self._store.fetch(key, target)
        except FileNotFoundError:
            raise self._damaged(key) from None
        for name, expected in record.sha256.items():
            if name not in FILES or not (target / name).is_file() or file_sha256(target / name) != expected:
                raise self._damaged(f"{key}/{name}")

    def _damaged(self, key: str) -> ContentError:
        return ContentError(
            f"{self._store.where(key)}: missing, altered or not of a training run; "
            f"remove {self._store.where(RUN)} to train anew."
        )
