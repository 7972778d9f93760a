"""Writing a bundle: a folder that appears whole or not at all.

In: an ONNX graph and everything that turns its log-odds into scores, as one :class:`BundleContent`. Out: the folder, loaded
back and so verified. Refused: folders that exist and are something else, folders that cannot be written.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scanner.ensemble.bundle import Bundle, load
from scanner.ensemble.calibration import Calibration, MeanProbability
from scanner.ensemble.embedding_grid import EmbeddingGrid
from scanner.ensemble.f_beta import OperatingCurve
from scanner.ensemble.manifest import CURVE_FILE, GRID_FILE, MANIFEST_FILE, MODEL_FILE, BundleManifest, MemberEntry, Metric
from scanner.ensemble.preprocessing import Preprocessing
from scanner.ensemble.second_look import SecondLook
from scanner.errors import OutputError
from scanner.storage.checksum import file_sha256

#: β of the thresholds that a manifest lists; the first is the default, the paper's.
BETAS = (0.03, 0.1, 0.3, 1.0, 2.0)


@dataclass(frozen=True)
class BundleContent:
    """What a bundle is made of.

    ``model``: the ONNX graph (:func:`scanner.training.export.merge_onnx`). ``calibration``, ``grid``: what turns log-odds into
    the two scores. ``second_look``: what is scored in all orientations, if anything. ``curve``: of the score that decides (the
    grid value where there is a grid, else the calibrated probability), on a labelled set. ``betas``, ``prevalence``: β of the
    thresholds to list, the default one first, and the share of lenses to state them for (``None``: the set's). ``texts``:
    further files, such as ``{"MODEL_CARD.md": ...}``.
    """

    name: str
    version: str
    description: str
    members: Sequence[MemberEntry]
    preprocessing: Preprocessing
    model: bytes
    trained_on: Sequence[str] = ()
    calibration: Calibration | MeanProbability = field(default_factory=MeanProbability)
    class_prior: float | None = None
    second_look: SecondLook | None = None
    grid: EmbeddingGrid | None = None
    curve: OperatingCurve | None = None
    betas: Sequence[float] = BETAS
    prevalence: float | None = None
    metrics: Sequence[Metric] = ()
    texts: Mapping[str, str] = field(default_factory=dict)

    def manifest(self, sha256: dict[str, str]) -> BundleManifest:
        """What ``bundle.json`` says of it."""
        points = () if self.curve is None else tuple(self.curve.best(beta, self.prevalence) for beta in self.betas)
        return BundleManifest(
            name=self.name,
            version=self.version,
            description=self.description,
            members=tuple(self.members),
            preprocessing=self.preprocessing,
            class_prior=self.class_prior,
            calibration=self.calibration,
            second_look=self.second_look,
            thresholds=points,
            metrics=tuple(self.metrics),
            trained_on=tuple(self.trained_on),
            sha256=sha256,
        )


def content_of(bundle: Bundle) -> BundleContent:
    """What a bundle was written from, its texts included."""
    manifest = bundle.manifest
    binary = {MODEL_FILE, GRID_FILE, CURVE_FILE}
    return BundleContent(
        name=manifest.name,
        version=manifest.version,
        description=manifest.description,
        members=manifest.members,
        preprocessing=manifest.preprocessing,
        model=bundle.model,
        trained_on=manifest.trained_on,
        calibration=bundle.calibration,
        second_look=manifest.second_look,
        class_prior=manifest.class_prior,
        grid=bundle.grid,
        curve=bundle.curve,
        betas=tuple(point.beta for point in manifest.thresholds) or BETAS,
        prevalence=_stated_prevalence(bundle),
        metrics=manifest.metrics,
        texts={name: (bundle.path / name).read_text(encoding="utf-8") for name in manifest.sha256 if name not in binary},
    )


def _stated_prevalence(bundle: Bundle) -> float | None:
    if bundle.curve is None or not bundle.manifest.thresholds:
        return None
    stated = bundle.manifest.thresholds[0].prevalence
    return None if stated == bundle.curve.prevalence else stated


def write(out: Path, content: BundleContent) -> Bundle:
    """Write a bundle, all of it or nothing, and load it back.

    Parameters
    ----------
    out
        The folder to make; a bundle that is there already is replaced, anything else is refused.
    content
        What to write.

    Raises
    ------
    OutputError
        The folder cannot be written, or is something else than a bundle.
    """
    if out.exists() and not (out / MANIFEST_FILE).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"{out}: exists and is not a bundle; choose another folder.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError.of(out, error) from None
    try:
        partial.chmod(0o755)
        _fill(partial, content)
        load(partial)
        if out.exists():
            replaced = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
            out.replace(replaced)
            partial.replace(out)
            shutil.rmtree(replaced)
        else:
            partial.replace(out)
    except OSError as error:
        raise OutputError.of(out, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load(out)


def _fill(folder: Path, content: BundleContent) -> None:
    (folder / MODEL_FILE).write_bytes(content.model)
    if content.grid is not None:
        content.grid.save(folder / GRID_FILE)
    if content.curve is not None:
        content.curve.save(folder / CURVE_FILE)
    for file_name, text in content.texts.items():
        (folder / file_name).write_text(text, encoding="utf-8")
    sha256 = {file.name: file_sha256(file) for file in sorted(folder.iterdir())}
    (folder / MANIFEST_FILE).write_text(content.manifest(sha256).model_dump_json(indent=2) + "\n", encoding="utf-8")
