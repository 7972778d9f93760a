"""Bundles: folders that hold a trained ensemble, checked before they are believed.

In: the path or ``s3://`` URL of a bundle, the name of an installed one, what a store of bundles calls ``current`` or
``latest`` (:mod:`scanner.ensemble.bundle_pointer`), or nothing for the default. Out: a verified :class:`Bundle`. Refused: a
missing folder, bad or unknown manifests, files that are missing, altered or not listed. Nothing in a bundle is ever unpickled
or run, save the ONNX graph. They are written by :mod:`scanner.ensemble.bundle_writer`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

import scanner
from scanner.config import StorageConfig
from scanner.ensemble.bundle_cache import cached
from scanner.ensemble.bundle_pointer import followed
from scanner.ensemble.calibration import Calibration, MeanProbability
from scanner.ensemble.embedding_grid import EmbeddingGrid
from scanner.ensemble.f_beta import OperatingCurve
from scanner.ensemble.manifest import (
    CURVE_FILE,
    GRID_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    BundleManifest,
    parse,
)
from scanner.ensemble.second_look import SecondLook
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.records import Record
from scanner.storage.location import is_remote

__all__ = ["Bundle", "BundleManifest", "DefaultBundle", "find", "installed", "load", "models_folder"]

DEFAULT_FILE = "default.json"
#: Where no labelled set set a threshold: "greater than or equal to 0.5 are classified as lenses" (section 4).
PLAIN_THRESHOLD = 0.5


class DefaultBundle(Record):
    """``models/default.json``: the folder, beside it, of the bundle that is used when none is named."""

    bundle: str


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    ``path``: its local folder. ``location``: where any machine of the run finds it, the URL it was loaded from or the absolute
    path. ``fingerprint``: SHA-256 of ``bundle.json``, which lists those of all other files. ``model``: the ONNX graph.
    ``grid`` and ``curve`` (of the score that decides, on a labelled held-out set) are absent where no labelled set was at hand.
    """

    path: Path
    location: str
    manifest: BundleManifest
    fingerprint: str
    model: bytes
    grid: EmbeddingGrid | None
    curve: OperatingCurve | None

    @property
    def calibration(self) -> Calibration | MeanProbability:
        """The calibrated combination of the seven log-odds."""
        return self.manifest.calibration

    @property
    def second_look(self) -> tuple[SecondLook, Calibration] | None:
        """Which objects are looked at again, if any, and the calibration that this goes by."""
        rule, calibration = self.manifest.second_look, self.calibration
        return (rule, calibration) if rule is not None and isinstance(calibration, Calibration) else None

    @property
    def default_beta(self) -> float | None:
        """β of the threshold that decides where none is asked for; None: no labelled set was at hand, so no F-beta chose it."""
        return self.manifest.thresholds[0].beta if self.manifest.thresholds else None

    def threshold(self, beta: float | None = None) -> float:
        """Threshold on the score that decides (``manifest.decides_on``).

        Parameters
        ----------
        beta
            Weight of recall against precision; ``None``: the bundle's default.

        Raises
        ------
        UsageError
            The bundle was made without labelled objects, so no threshold can be derived for a β.
        """
        listed = self.manifest.thresholds
        if beta is None:
            return listed[0].threshold if listed else PLAIN_THRESHOLD
        for point in listed:
            if point.beta == beta:
                return point.threshold
        if self.curve is None:
            raise UsageError(
                f"{self.path}: this bundle was made without labelled objects and has no threshold for beta = {beta:g}; "
                "leave beta out, or import it again with --data."
            )
        return self.curve.best(beta, listed[0].prevalence if listed else None).threshold


def models_folder() -> Path:
    """Folder of the bundles that come with scanner: installed inside the package, at the root of a checkout beside it."""
    package = Path(scanner.__file__).parent
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def installed() -> list[Path]:
    """Folders of the bundles that come with scanner, by name."""
    return sorted(path.parent for path in models_folder().glob(f"*/{MANIFEST_FILE}"))


def find(bundle: str | Path | None) -> Path:
    """Resolve a path, the name of an installed bundle, or ``None`` for the default, to an existing folder.

    Raises
    ------
    InputMissingError
        There is no such folder.
    ContentError
        The default cannot be read.
    """
    folder = models_folder()
    if bundle is None:
        try:
            pointer = DefaultBundle.model_validate_json((folder / DEFAULT_FILE).read_bytes())
        except OSError:
            raise InputMissingError(
                f"{folder / DEFAULT_FILE}: no default bundle is installed; name one with --bundle."
            ) from None
        except ValidationError:
            raise ContentError(f"{folder / DEFAULT_FILE}: does not name the default bundle; install scanner again.") from None
        bundle = folder / pointer.bundle
    path = Path(bundle)
    if not path.is_dir() and path.name == str(bundle) and (folder / path.name).is_dir():
        path = folder / path.name
    if not path.is_dir():
        raise InputMissingError(f"{path}: no such bundle folder; 'scanner models list' shows the installed ones.")
    return path


def load(bundle: str | Path | None = None, storage: StorageConfig = StorageConfig()) -> Bundle:
    """Load a bundle, verifying all of it.

    Parameters
    ----------
    bundle
        See :func:`find`; or the URL of a bundle's folder, of which a local copy is kept; or ``STORE/current``.
    storage
        How object stores are reached.

    Raises
    ------
    InputMissingError
        There is no such folder.
    ContentError
        The folder is not a bundle, or a file is missing, altered, unlisted or unreadable; the message says which.
    ScannerError
        Of a bundle on an object store: see :mod:`scanner.ensemble.bundle_cache`.
    """
    if bundle is not None:
        bundle = followed(str(bundle), storage)
    remote = isinstance(bundle, str) and is_remote(bundle)
    path = cached(str(bundle), storage) if remote else find(bundle)
    text = _read(path / MANIFEST_FILE)
    manifest = parse(text, path / MANIFEST_FILE)
    listed = {MANIFEST_FILE, *manifest.sha256}
    for entry in sorted(path.iterdir()):
        if entry.name not in listed and not entry.name.startswith("."):
            raise ContentError(f"{entry}: not listed in {MANIFEST_FILE}; remove it or fetch the bundle again.")
    content = {}
    for name, expected in manifest.sha256.items():
        content[name] = _read(path / name)
        if hashlib.sha256(content[name]).hexdigest() != expected:
            raise ContentError(
                f"{path / name}: altered (its SHA-256 is not the one in {MANIFEST_FILE}); fetch the bundle again."
            )
    return Bundle(
        path=path,
        location=str(bundle) if remote else str(path.resolve()),
        manifest=manifest,
        fingerprint=hashlib.sha256(text).hexdigest(),
        model=content[MODEL_FILE],
        grid=EmbeddingGrid.load(path / GRID_FILE) if GRID_FILE in content else None,
        curve=OperatingCurve.load(path / CURVE_FILE) if CURVE_FILE in content else None,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ContentError(f"{path}: cannot be read ({error.strerror}); fetch or export the bundle again.") from None
