"""The seven finished runs that a bundle is made of.

In: a folder with one folder per member. Out: :class:`Ensemble`. Refused: a member that is missing, or was trained on other
data or with another preprocessing than the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from scanner.ensemble.preprocessing import Preprocessing
from scanner.errors import ContentError
from scanner.records import DRAWN, MEMBERS, MemberName
from scanner.training.checkpoint import KEPT_IN_WORDS, FitRecord, read_member


@dataclass(frozen=True)
class Ensemble:
    """Seven trained members, and what their runs say of themselves."""

    networks: dict[MemberName, nn.Sequential]
    records: dict[MemberName, FitRecord]

    @property
    def preprocessing(self) -> Preprocessing:
        """What all of them were trained with."""
        return self.records[MEMBERS[0]].plan.preset.preprocessing

    def trained_on(self, embedded: Collection[str]) -> tuple[str, ...]:
        """Fingerprints of all that they and the bundles that they began from have seen, and those of what is ``embedded``."""
        plans = [record.plan for record in self.records.values()]
        drawn = {plan.dataset_sha256 for plan in plans if plan.dataset_sha256.startswith(DRAWN)}
        before = {seen for plan in plans for seen in plan.seen_before}
        return tuple(sorted({*embedded, *drawn, *before}))

    @property
    def sources(self) -> Mapping[MemberName, str]:
        """One line per member on how it came to be."""
        return {member: _source(record) for member, record in self.records.items()}


def _source(record: FitRecord) -> str:
    plan = record.plan
    begins = {
        "random": "from random weights",
        "copy": f"from {plan.begins_as}",
        "bundle": f"from bundle {(plan.begins_as or '')[:12]}",
    }[plan.beginning]
    return (
        f"preset {plan.preset.name}, seed {plan.seed}, {begins}, {record.passes:.1f} passes over {plan.n_train} cutouts; "
        f"weights {KEPT_IN_WORDS[record.kept]}"
    )


def read_ensemble(folder: Path, dataset_sha256: str | None = None, drawn_from: Collection[str] = ()) -> Ensemble:
    """Read the seven runs in ``folder``, one folder each, named like the members.

    Parameters
    ----------
    folder
        Holds ``OU-J`` … ``OU-200``.
    dataset_sha256
        Fingerprint of what they must have been trained on; None: of anything, but all of the same. Members of
        :mod:`scanner.training.gpu_job` were trained on a set of their own, so that any dataset is new to them but
    drawn_from
        Those of these presets and seeds (``drawn:PRESET:SEED``).

    Raises
    ------
    InputMissingError
        A member has no finished run.
    ContentError
        The runs differ in preprocessing, or were made on other data.
    """
    networks, records = {}, {}
    for member in MEMBERS:
        networks[member], records[member] = read_member(folder / member)
        plan = records[member].plan
        if plan.member != member:
            raise ContentError(f"{folder / member}: holds {plan.member}, not {member}; train it again.")
        if plan.dataset_sha256 != (dataset_sha256 or records[MEMBERS[0]].plan.dataset_sha256) and not (
            plan.dataset_sha256.startswith(DRAWN) and plan.dataset_sha256.rpartition(":")[0] not in drawn_from
        ):
            raise ContentError(
                f"{folder / member}: was trained on another dataset; give that one as --data, or train it again."
            )
    if len({record.plan.preset.preprocessing for record in records.values()}) > 1:
        raise ContentError(f"{folder}: its members were trained with different preprocessing; train them with one preset.")
    return Ensemble(networks, records)
