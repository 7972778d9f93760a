"""Score arrays that somebody has at hand, with the networks, grid and threshold of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from scanner import config as configuration
from scanner.catalogue import columns
from scanner.cutouts import quality
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.session import Scorer
from scanner.errors import UsageError
from scanner.records import BANDS, NISP_BANDS, NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, CutoutBatch, Flag, Float32, Targets
from scanner.survey.scan.machine import cores
from scanner.survey.scan.tile import score_batch

if TYPE_CHECKING:
    from scanner.interface.table import ObjectTable

#: Objects scored together, which bounds the memory.
BATCH_SIZE = 256
#: Columns that an array without a place on the sky has no value for.
PLACE_COLUMNS = frozenset({"target_id", "tile_id", "ra", "dec", "x", "y", "offset_x", "offset_y", "magnitude_vis"})

_last: tuple[tuple[str, str, float | None, float], Scorer] | None = None


def load_bundle(
    bundle: str | Path | None = None,
    *,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
) -> Bundle:
    """Load a bundle of trained networks, every file checked against its SHA-256.

    Parameters
    ----------
    bundle
        A folder, the name of an installed bundle, an ``s3://…`` URL, or ``STORE/current``; the default bundle by default.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.

    Returns
    -------
    Bundle
        ``manifest`` (members, metrics, thresholds, what it was trained on), ``threshold()``, ``calibration``, ``grid``,
        ``fingerprint``.

    Raises
    ------
    InputMissingError
        There is no such bundle.
    ContentError
        It is damaged.

    Examples
    --------
    >>> import scanner
    >>> len(scanner.load_bundle().manifest.members)
    7
    """
    flags = {"storage.endpoint": endpoint, "storage.anonymous": anonymous}
    return bundles.load(bundle, configuration.load(None if config is None else Path(config), flags).storage)


def score(
    vis: ArrayLike,
    nisp: ArrayLike,
    sky: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
    bundle: Bundle | str | Path | None = None,
    *,
    beta: float | None = None,
    provider: str = "auto",
    max_bad_fraction: float = 0.25,
) -> ObjectTable:
    """Score cutouts as a scan does.

    Parameters
    ----------
    vis
        (200, 200) or (N, 200, 200): VIS around each object, 0.1″ a pixel, any unit; bad pixels, which are NaN, are filled with
        noise.
    nisp
        (3, 66, 66) or (N, 3, 66, 66): Y, J, H around the same centre, 0.3″ a pixel.
    sky, sigma
        (4,) or (N, 4): median and robust standard deviation of the sky in VIS, Y, J, H, in the unit of the images; measured
        on each cutout by default, as a scan does.
    bundle
        A bundle of :func:`load_bundle`, or what that takes.
    beta
        β of the F-beta threshold; the bundle's own by default.
    provider
        What runs the networks: ``auto``, ``cpu``, ``openvino``, ``cuda``, ``tensorrt``.
    max_bad_fraction
        Objects with more bad pixels than this in any band are not scored.

    Returns
    -------
    ObjectTable
        N rows: the seven probabilities (``p_ou_j`` …), position in the embedding, ``grid_value`` and ``cell_count``,
        ``p_calibrated``, the decision ``is_candidate``, bad fractions and flags; NaN where an object was not scored.

    Raises
    ------
    UsageError
        Arrays of other shapes, or a provider that is not here.
    ScannerError
        See :func:`load_bundle`.

    Examples
    --------
    >>> import numpy as np
    >>> import scanner
    >>> noise = np.random.default_rng(1)
    >>> scores = scanner.score(noise.normal(size=(2, 200, 200)), noise.normal(size=(2, 3, 66, 66)))
    >>> len(scores), bool(scores["is_candidate"].any())
    (2, False)
    """
    from scanner.interface.table import ObjectTable

    kept = [name for name in columns.SCORE_SCHEMA.names if name not in PLACE_COLUMNS]
    if not len(np.asarray(vis)):
        return ObjectTable.of(columns.SCORE_SCHEMA.empty_table().select(kept))
    batch = _batch(vis, nisp, sky, sigma)
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    scorer = _scorer(loaded, provider, beta, max_bad_fraction)
    parts = []
    for first in range(0, len(batch), BATCH_SIZE):
        part = batch.take(np.arange(first, min(first + BATCH_SIZE, len(batch))))
        parts.append(columns.score_table(part, score_batch(scorer, part), ""))
    return ObjectTable.of(pa.concat_tables(parts).select(kept))


def _scorer(bundle: Bundle, provider: str, beta: float | None, max_bad_fraction: float) -> Scorer:
    """The scorer that was used last, if it is the same: to open one takes a second."""
    global _last
    key = (bundle.fingerprint, provider, beta, max_bad_fraction)
    if _last is None or _last[0] != key:
        _last = (key, Scorer(bundle, provider, 1, beta, max_bad_fraction, cores()))
    return _last[1]


def _batch(vis: ArrayLike, nisp: ArrayLike, sky: ArrayLike | None, sigma: ArrayLike | None) -> CutoutBatch:
    images = _array("vis", vis, (VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS))
    n = len(images)
    bands = _array("nisp", nisp, (len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), n)
    measured = quality.measure(images, bands)
    flags = np.zeros(n, dtype=np.uint32)
    flags[quality.is_masked(measured.bad_fraction)] |= np.uint32(Flag.MASKED_PIXELS)
    flags[quality.saturated(images, bands, measured)] |= np.uint32(Flag.SATURATED)
    nowhere, number = np.full(n, np.nan), np.arange(n, dtype=np.int64)
    return CutoutBatch(
        targets=Targets(number, nowhere, nowhere, nowhere, nowhere, nowhere.astype(np.float32)),
        vis=images,
        nisp=bands,
        x0=np.zeros(n, dtype=np.int64),
        y0=np.zeros(n, dtype=np.int64),
        offset=np.zeros((n, 2), dtype=np.float32),
        bad_fraction=measured.bad_fraction,
        sky=measured.sky if sky is None else _array("sky", sky, (len(BANDS),), n),
        sigma=measured.sigma if sigma is None else _array("sigma", sigma, (len(BANDS),), n),
        flags=flags,
    )


def _array(name: str, values: ArrayLike, shape: tuple[int, ...], n: int | None = None) -> Float32:
    """Values as float32 of a shape, N times."""
    array = np.asarray(values)
    array = array[None] if array.shape == shape else array
    if array.shape[1:] != shape or (n is not None and len(array) != n):
        wanted = ", ".join(map(str, shape))
        raise UsageError(f"{name} has the shape {np.shape(values)}; give ({wanted}) or ({'N' if n is None else n}, {wanted}).")
    return np.ascontiguousarray(array, dtype=np.float32)
