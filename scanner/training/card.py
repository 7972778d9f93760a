"""``MODEL_CARD.md``: what a bundle is, made of measured numbers only.

In: the manifest, the records of the seven runs, the description of the training data, an evaluation. Out: Markdown. Refused:
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scanner.ensemble.bundle import BundleManifest
from scanner.evaluation.card import HEADING, card_section
from scanner.evaluation.results import Evaluation
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MEMBERS, MemberName
from scanner.training.checkpoint import KEPT_IN_WORDS, FitRecord

SECOND_LOOK = """Objects that score as high as the best {share:.0%} of the calibration set's non-lenses are scored in all eight
orientations, and the means of their log-odds count. All figures below include that, but for those that say eight ways."""
WHAT_IT_IS = """## What it is

Seven networks of Wilde et al. (2022), OU-66 and OU-200 layer for layer, trained on simulated images only, with a t-SNE grid and
a logistic calibration on top. It ranks objects for people to look at. A score is no probability that an object on the sky is a
lens: the calibrated one is stated for the prevalence in the manifest, and is as good as the simulation is true."""
LIMITS = """## Limits

- Simulations are not the sky. A published finder trained on simulations alone fell from 92% recall at 100% purity on them to
  50% completeness at 24% purity on Euclid Q1. Expect no better here.
- Trained on galaxy-scale lenses: Einstein radii of 0.5 to 3 arcsec. Arcs around groups and clusters were shown as non-lenses'
  surroundings only.
- The members that see NISP only mostly learn what kind of galaxy it is: see the figures against look-alikes.
- One seed a member.
- Recalls at low false-positive rates rest on few objects: their number is stated with them."""
DATA = """{n_objects:,} simulated cutouts, of which {n_train:,} were trained on (84%, less the lenses whose arcs have a
signal-to-noise ratio below {min_arc_snr:g}); 6% chose the best weights, 10% set the calibration and the thresholds. The default
threshold maximises F-beta at β = {beta:g}, which weights precision if β < 1. Preset `{preset}`, preprocessing
`{preprocessing}`."""
BEGINNINGS = {"random": "random", "copy": "{}", "bundle": "bundle {:.12}"}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _members(records: Mapping[MemberName, FitRecord]) -> str:
    rows = []
    for member in MEMBERS:
        record = records[member]
        plan = record.plan
        rows.append(
            [
                member,
                "+".join(MEMBER_BANDS[member]),
                str(MEMBER_PIXELS[member]),
                str(plan.seed),
                BEGINNINGS[plan.beginning].format(plan.begins_as),
                f"{record.passes:.1f}",
                f"{record.seconds / 60:.1f}",
                f"{record.device} × {record.threads}",
                KEPT_IN_WORDS[record.kept],
                f"{record.validation_loss:.3f}",
                f"{record.validation_auroc:.3f}",
                f"{record.validation_auroc_visible:.3f}",
            ]
        )
    header = ["member", "bands", "pixels", "seed", "begins as", "passes", "minutes", "on", "weights"]
    return table([*header, "loss", "AUROC", "AUROC, visible"], rows)


def _measured(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return f"{HEADING}\n\nNothing was measured yet: 'scanner evaluate' does, and --card puts it here."
    return card_section(evaluation)


def model_card(
    manifest: BundleManifest,
    records: Mapping[MemberName, FitRecord],
    dataset: str,
    n_objects: int,
    evaluation: Evaluation | None,
) -> str:
    """Write the card.

    Parameters
    ----------
    manifest
        Of the bundle.
    records
        Of the seven runs.
    dataset
        Text of the training set's ``dataset.json``.
    n_objects
        Cutouts in it.
    evaluation
        On held-out data; the bundle first, others to compare with after it. None: nothing was measured.
    """
    plan = records[MEMBERS[0]].plan
    data = DATA.format(
        n_objects=n_objects,
        n_train=plan.n_train,
        min_arc_snr=plan.preset.min_arc_snr,
        beta=manifest.thresholds[0].beta if manifest.thresholds else float("nan"),
        preset=plan.preset.name,
        preprocessing=manifest.preprocessing,
    )
    parts = [
        f"# {manifest.name} {manifest.version}",
        manifest.description,
        WHAT_IT_IS,
        *([] if manifest.second_look is None else [SECOND_LOOK.format(share=manifest.second_look.share)]),
        LIMITS,
        _measured(evaluation),
        "## Training",
        data,
        _members(records),
        "Minutes are wall-clock. The figures in this table are of the validation rows, which chose the weights; the ones "
        "above are of data that no step has seen.",
        f"```json\n{dataset.strip()}\n```",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"
