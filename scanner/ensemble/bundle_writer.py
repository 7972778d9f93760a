"""Writing a bundle: a folder that appears whole or not at all.

In: an ONNX graph and everything that turns its log-odds into scores. Out: the folder, loaded back and so verified. Refused:
folders that exist and are something else, folders that cannot be written.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from scanner.ensemble.bundle import Bundle, load
from scanner.ensemble.calibration import Calibration, MeanProbability
from scanner.ensemble.embedding_grid import EmbeddingGrid
from scanner.ensemble.f_beta import OperatingCurve
from scanner.ensemble.manifest import CURVE_FILE, GRID_FILE, MANIFEST_FILE, MODEL_FILE, BundleManifest, MemberEntry, Metric
from scanner.ensemble.preprocessing import Preprocessing
from scanner.errors import OutputError

#: β of the thresholds that a manifest lists; the first is the default, the paper's.
BETAS = (0.03, 0.1, 0.3, 1.0, 2.0)


def write(
    out: Path,
    *,
    name: str,
    version: str,
    description: str,
    members: Sequence[MemberEntry],
    preprocessing: Preprocessing,
    model: bytes,
    calibration: Calibration | MeanProbability,
    training_fingerprint: str,
    class_prior: float | None = None,
    grid: EmbeddingGrid | None = None,
    curve: OperatingCurve | None = None,
    betas: Sequence[float] = BETAS,
    prevalence: float | None = None,
    metrics: Sequence[Metric] = (),
    texts: Mapping[str, str] | None = None,
) -> Bundle:
    """Write a bundle, all of it or nothing, and load it back.

    Parameters
    ----------
    out
        The folder to make; a bundle that is there already is replaced, anything else is refused.
    model
        The ONNX graph; see :mod:`scanner.training.export`.
    calibration, grid
        What turns log-odds into the two scores.
    curve
        Of the score that decides (the grid value where there is a grid, else the calibrated probability), on a labelled set.
    betas, prevalence
        β of the thresholds to list, the default one first, and the share of lenses to state them for (``None``: the set's).
    texts
        Further files, such as ``{"MODEL_CARD.md": ...}``.

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
        (partial / MODEL_FILE).write_bytes(model)
        if grid is not None:
            grid.save(partial / GRID_FILE)
        if curve is not None:
            curve.save(partial / CURVE_FILE)
        for file_name, text in (texts or {}).items():
            (partial / file_name).write_text(text, encoding="utf-8")
        manifest = BundleManifest(
            name=name,
            version=version,
            description=description,
            members=tuple(members),
            preprocessing=preprocessing,
            class_prior=class_prior,
            calibration=calibration,
            thresholds=() if curve is None else tuple(curve.best(beta, prevalence) for beta in betas),
            metrics=tuple(metrics),
            training_fingerprint=training_fingerprint,
            sha256={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(partial.iterdir())},
        )
        (partial / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
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
