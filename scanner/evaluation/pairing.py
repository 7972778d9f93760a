"""Which bundles and sets are compared, under which names, and what is measured against what.

In: datasets, bundles, truths. Out: unique names, :class:`~scanner.evaluation.ranking_results.Pairing`. Refused
(UsageError): a set or bundle given twice, sets of which none has lenses or none has non-lenses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from scanner.ensemble import bundles as bundle_files
from scanner.ensemble.bundle import Bundle
from scanner.errors import UsageError
from scanner.evaluation.ranking_results import Pairing
from scanner.labelled_set import LabelledSet, Truth


def named_sets(datasets: Sequence[LabelledSet]) -> dict[str, LabelledSet]:
    """Datasets by the name of their folder, with its parent's before it where two share one.

    Raises
    ------
    UsageError
        One is given twice, under whatever name.
    """
    seen: dict[str, LabelledSet] = {}
    for dataset in datasets:
        if dataset.fingerprint in seen:
            raise UsageError(f"{dataset.path}: is the same set as {seen[dataset.fingerprint].path}; give each one once.")
        seen[dataset.fingerprint] = dataset
    short = [dataset.path.resolve().name for dataset in datasets]
    return {
        name if short.count(name) == 1 else f"{dataset.path.resolve().parent.name}/{name}": dataset
        for name, dataset in zip(short, datasets, strict=True)
    }


def named_bundles(paths: Sequence[Path | str | None]) -> dict[str, Bundle]:
    """Load bundles, by the manifest's name; with their version, then their fingerprint, where two share one."""
    loaded = [bundle_files.load(path) for path in paths]
    found: dict[str, Bundle] = {}
    for bundle in loaded:
        manifest = bundle.manifest
        names = [manifest.name, f"{manifest.name} {manifest.version}", f"{manifest.name} {bundle.fingerprint[:8]}"]
        rivals = [other.manifest for other in loaded if other is not bundle and other.manifest.name == manifest.name]
        clash = 0 if not rivals else 1 if all(other.version != manifest.version for other in rivals) else 2
        if names[clash] in found:
            raise UsageError(f"{bundle.path}: is the same bundle as {found[names[clash]].path}; give each one once.")
        found[names[clash]] = bundle
    return found


def pair(truths: Mapping[str, Truth], sky: str | None) -> tuple[Pairing, ...]:
    """What is measured against what.

    Lenses of every set against the sky; sets with both classes against themselves, and against sets of non-lenses only; where
    there is no sky, sets of lenses only against the first set that has non-lenses.

    Raises
    ------
    UsageError
        No set has lenses, or none has non-lenses.
    """
    with_lenses = [name for name, truth in truths.items() if truth.is_lens.any()]
    with_others = [name for name, truth in truths.items() if not truth.is_lens.all()]
    if not with_lenses or not with_others:
        kind = "lenses" if not with_lenses else "non-lenses"
        raise UsageError(f"--data {', '.join(truths)}: no set has {kind}; add one that has (such as preset eval).")
    found = []
    for name in with_lenses:
        mixed = name in with_others
        if mixed:
            found.append(Pairing(lenses=name, others=name))
            found += [Pairing(lenses=name, others=other) for other in with_others if other not in with_lenses and other != sky]
        if sky is not None and sky != name:
            found.append(Pairing(lenses=name, others=sky))
        elif not mixed:
            found.append(Pairing(lenses=name, others=with_others[0]))
    return tuple(found)


def main_pairings(pairings: Sequence[Pairing], sky: str | None) -> tuple[Pairing, ...]:
    """One pairing for every set of lenses: against the sky where there is one, else against its own non-lenses."""
    best: dict[str, Pairing] = {}
    for pairing in pairings:
        if pairing.lenses not in best or pairing.others == sky:
            best[pairing.lenses] = pairing
    # The sets with non-lenses of their own first: what leads stands for what a survey shows.
    own = {pairing.lenses for pairing in pairings if pairing.lenses == pairing.others}
    return tuple(sorted(best.values(), key=lambda pairing: pairing.lenses not in own))
