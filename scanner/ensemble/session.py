"""The ensemble at work: cutouts to scores, through an ONNX Runtime session on the provider that was asked for."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from scanner.ensemble.bundle import AUGMENTATION_FILE, MODEL_FILE, SCREEN_FILE, Bundle
from scanner.ensemble.calibration import Calibration, MeanProbability
from scanner.ensemble.preprocessing import Augmentation, average_orientations
from scanner.errors import ContentError, UsageError, pip_install
from scanner.processes import script_kept_from_children
from scanner.records import (
    BANDS,
    MEMBERS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    Flag,
    Float32,
    Int64,
    Provider,
    Scores,
    ScreenChoice,
    UInt32,
)

PROVIDERS: tuple[Provider, ...] = get_args(Provider)
#: What ``auto`` tries, best first. TensorRT is left to those who ask for it: it builds an engine for minutes before it scores.
#: So is bfloat16, which moves log-odds by tenths.
AUTO: tuple[Provider, ...] = ("cuda", "openvino", "cpu")
ONNX_NAME: Mapping[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "openvino-bfloat16": "OpenVINOExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
#: The extra that brings a provider.
EXTRA: Mapping[Provider, str] = {
    "cpu": "cpu",
    "openvino": "openvino",
    "openvino-bfloat16": "openvino",
    "cuda": "gpu",
    "tensorrt": "gpu",
}
#: The provider, and what takes the nodes that it does not support.
FALLBACK: Mapping[Provider, tuple[Provider, ...]] = {
    "cpu": ("cpu",),
    "openvino": ("openvino", "cpu"),
    "openvino-bfloat16": ("openvino-bfloat16", "cpu"),
    "cuda": ("cuda", "cpu"),
    "tensorrt": ("tensorrt", "cuda", "cpu"),
}
#: Objects of one call. On a CPU the rate does not depend on it, the memory does (50 MB an object); one by one, an object's
#: score cannot depend on what it came with. A GPU needs many to be busy.
BATCH: Mapping[Provider, int] = {"cpu": 1, "openvino": 1, "openvino-bfloat16": 1, "cuda": 64, "tensorrt": 64}
#: Where the processor's instructions stand, and those that compute in bfloat16.
PROCESSOR = Path("/proc/cpuinfo")
BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})
#: Those that add products of 8-bit integers without overflow. Others than x86 need none.
VNNI = frozenset({"avx_vnni", "avx512_vnni"})
SHAPES: Mapping[str, tuple[int, ...]] = {
    "vis": (VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS),
    "nisp": (len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS),
    "sky": (len(BANDS),),
    "sigma": (len(BANDS),),
}
OUTPUT = "logits"


class Scorer:
    """Scores batches of cutouts with one bundle on one provider.

    Parameters
    ----------
    bundle, provider, threads, parallel
        See :func:`open_session`.
    beta
        Of the F-beta whose threshold decides; None: the bundle's default.
    max_bad_fraction
        A band with more bad pixels than this is not looked at. Without VIS an object is not scored.
    require_all_bands
        Do not score objects that lack a NISP band either.
    threshold
        Decides in the place of F-beta's; None: that one.
    screen
        Whether a few members choose what all members score, see :meth:`~scanner.ensemble.bundle.Bundle.screening`.

    Attributes
    ----------
    provider
        What the session runs on.
    rule
        Which objects are candidates.
    screening, session
        The screen that is used, if any, and what computes log-odds.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "auto",
        threads: int = 1,
        beta: float | None = None,
        max_bad_fraction: float = 0.25,
        parallel: int = 1,
        require_all_bands: bool = False,
        threshold: float | None = None,
        screen: ScreenChoice = "none",
    ) -> None:
        self.bundle = bundle
        self.rule = bundle.decision_rule(beta, threshold)
        self.max_bad_fraction = max_bad_fraction
        self.require_all_bands = require_all_bands
        self._partial: dict[bytes, Calibration | MeanProbability | None] = {}
        self.screening = bundle.screening(screen)
        self.session = open_session(bundle, provider, threads, parallel, screens=self.screening is not None)
        self.provider = self.session.provider

    @property
    def core_seconds(self) -> float:
        """Processor time, so far, of scoring threads other than the caller's."""
        return self.session.core_seconds

    def score(self, vis: Float32, nisp: Float32, sky: Float32, sigma: Float32, bad_fraction: Float32, flags: UInt32) -> Scores:
        """Score ``N`` cutouts.

        An object whose NISP bands are not all there is scored by the members that see only what is there
        (:meth:`~scanner.ensemble.calibration.Calibration.distilled`). It has no place in the embedding: its probability, at the
        prevalence of the training set, stands in for the grid's lens fraction where that decides. So it is with an object that
        does not pass the screen: the members of the stage that it does not pass alone score it. What passes is scored to the
        last bit as without a screen. An object that some member of a stage does not see passes.

        Parameters
        ----------
        vis, nisp
            (N, 200, 200) and (N, 3, 66, 66; Y, J, H) float32, bad pixels already filled.
        sky, sigma
            (N, 4) float32: median and robust σ of VIS, Y, J, H.
        bad_fraction
            (N, 4) float32 of VIS, Y, J, H.
        flags
            (N,) uint32 of :class:`~scanner.records.Flag`; those of the scores are added.

        Returns
        -------
        Scores
            NaN, and ``decision`` False, where an object was not scored: its VIS has too many bad pixels or, with
            ``require_all_bands``, another band, or its pixels overflow float32 (TOO_MANY_BAD_PIXELS). NaN log-odds of members
            that do not see an object (BANDS_MISSING), or were not asked (SCREENED).
        """
        n = len(vis)
        scores = Scores(
            logits=np.full((n, len(self.bundle.manifest.members)), np.nan, dtype=np.float32),
            tsne=np.full((n, 2), np.nan, dtype=np.float32),
            grid_value=np.full(n, np.nan, dtype=np.float32),
            cell_count=np.zeros(n, dtype=np.int64),
            calibrated=np.full(n, np.nan, dtype=np.float32),
            decision=np.zeros(n, dtype=np.bool_),
            flags=flags.astype(np.uint32),
        )
        usable = bad_fraction <= self.max_bad_fraction
        for bands in np.unique(usable, axis=0):
            members = seeing(self.bundle, bands)
            if not bands[0] or (self.require_all_bands and not members.all()):
                continue
            combination = self._combination(members)
            if combination is None:
                continue
            rows = np.flatnonzero((usable == bands).all(axis=1))
            if not members.all():
                scores.flags[rows] |= np.uint32(Flag.BANDS_MISSING)
            stage, logits_of = self.screening, self.session.screen_logits
            while stage is not None and members[stage.members].all():
                some = logits_of(*_of(rows, vis, nisp, sky, sigma))
                passes = stage.passing(some)
                scores.flags[rows[~passes]] |= np.uint32(Flag.SCREENED)
                self._enter(scores, rows[~passes], some[~passes], stage.members, stage.calibration)
                rows = rows[passes]
                stage, logits_of = stage.second, self.session.turned_logits
            given = combination if isinstance(combination, Calibration) else None
            found = self.session.logits(*_of(rows, vis, nisp, sky, sigma), given)
            self._enter(scores, rows, found, members, combination)
        unscored = ~np.isfinite(scores.calibrated)
        scores.flags[unscored] &= ~np.uint32(Flag.BANDS_MISSING | Flag.SCREENED)
        scores.flags[unscored] |= np.uint32(Flag.TOO_MANY_BAD_PIXELS)
        scores.decision[:] = self.rule.decide(scores.grid_value, scores.calibrated)
        return scores

    def _enter(
        self,
        scores: Scores,
        rows: Int64,
        found: Float32,
        members: NDArray[np.bool_],
        combination: Calibration | MeanProbability,
    ) -> None:
        """Put into the rows of ``scores`` what follows from their log-odds (n, M), of which those of ``members`` (M,) count."""
        known = np.isfinite(found[:, members]).all(axis=1)
        rows, found = rows[known], found[known]
        scores.logits[rows[:, None], np.flatnonzero(members)] = found[:, members]
        scores.calibrated[rows] = combination.apply(found if isinstance(combination, Calibration) else found[:, members])
        if members.all() and self.bundle.grid is not None:
            place = self.bundle.grid.lookup(found)
            scores.tsne[rows], scores.grid_value[rows], scores.cell_count[rows] = place.positions, place.value, place.cell_count
            scores.flags[rows] |= place.flags

    def _combination(self, members: NDArray[np.bool_]) -> Calibration | MeanProbability | None:
        """See :meth:`~scanner.ensemble.bundle.Bundle.combination`; made once, as distilling takes a while."""
        key = members.tobytes()
        if key not in self._partial:
            self._partial[key] = self.bundle.combination(members)
        return self._partial[key]


def _of(rows: Int64, vis: Float32, nisp: Float32, sky: Float32, sigma: Float32) -> tuple[Float32, Float32, Float32, Float32]:
    """These rows of each array, in rising order; the arrays themselves where that is all of them."""
    return (vis, nisp, sky, sigma) if len(rows) == len(vis) else (vis[rows], nisp[rows], sky[rows], sigma[rows])


def seeing(bundle: Bundle, bands: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which members of a bundle (M,) see nothing but bands that are there, (4,) bool of VIS, Y, J, H."""
    there = {band for band, is_there in zip(BANDS, bands.tolist(), strict=True) if is_there}
    return np.array([there.issuperset(member.bands) for member in bundle.manifest.members])


#: A session of some members, and which of all members these are, (M,) bool.
_Some = tuple[Any, NDArray[np.bool_]]


@dataclass(frozen=True)
class _Part:
    """One graph: its session, the inputs that it reads, the columns of log-odds that it gives, and objects of one call."""

    session: Any
    inputs: tuple[str, ...]
    columns: slice | Int64
    one_by_one: bool = False

    def run(self, feed: Mapping[str, Float32]) -> Float32:
        """Log-odds of a batch, (n, columns)."""
        mine = {name: feed[name] for name in self.inputs}
        n = len(mine[self.inputs[0]])
        if n == 1 or not self.one_by_one:
            return self.session.run([OUTPUT], mine)[0]  # type: ignore[no-any-return]
        rows = [
            self.session.run([OUTPUT], {name: values[row : row + 1] for name, values in mine.items()})[0] for row in range(n)
        ]
        return np.concatenate(rows)


class EnsembleSession:
    """A session that is ready to score; made by :func:`open_session`.

    On a CPU several objects are scored at a time, each by itself: an object's bits depend neither on what it came with nor on
    how many there are at a time. ONNX Runtime comes in three wheels that overwrite one another (``cpu``, ``openvino``,
    ``gpu``), and it falls back without a word: what a session really runs on is asked of the session.

    A bundle without a grid has no embedding: position and grid value are NaN and the cell count 0, the threshold applies to the
    calibrated probability.

    ``further``: sessions of the members beyond the paper's seven, one column of log-odds each. ``screen``, ``turning``: those
    of the members of the screen and of the members that score turned cutouts, and which of all these are (M,) bool; where none
    is given, all turn. ``provider``: what it runs on.
    ``inputs``: the inputs that its graphs read, among ``vis``, ``nisp``, ``sky``, ``sigma``.
    ``parallel``: objects that are scored at a time. ``core_seconds``: processor time of the threads that did so, so far;
    without them (``parallel`` is 1) the caller's thread does the work, and it is 0. ``augmentation``: which objects
    get test-time augmentation, if any.
    """

    def __init__(
        self,
        session: Any,
        provider: Provider,
        parallel: int = 1,
        augmentation: Augmentation | None = None,
        further: Sequence[Any] = (),
        screen: _Some | None = None,
        turning: _Some | None = None,
    ) -> None:
        self._parts = [_Part(session, _inputs(session), slice(0, len(MEMBERS)))]
        for column, one in enumerate(further, len(MEMBERS)):
            alone = any(node.shape[0] == 1 for node in one.get_inputs())
            self._parts.append(_Part(one, _inputs(one), slice(column, column + 1), one_by_one=alone))
        self.n_members = len(MEMBERS) + len(further)
        self._screen = [] if screen is None else [_Part(screen[0], _inputs(screen[0]), np.flatnonzero(screen[1]))]
        self._turning = self._parts if turning is None else [_Part(turning[0], _inputs(turning[0]), np.flatnonzero(turning[1]))]
        self._augmentation = augmentation
        self.provider: Provider = provider
        self.inputs: tuple[str, ...] = tuple(dict.fromkeys(name for part in self._parts for name in part.inputs))
        # A GPU is kept busy by many objects in one call, not by many calls.
        self.parallel = parallel if BATCH[provider] == 1 else 1
        self.core_seconds = 0.0
        self._threads = ThreadPoolExecutor(self.parallel, thread_name_prefix="score") if self.parallel > 1 else None

    def logits(
        self, vis: Float32, nisp: Float32, sky: Float32, sigma: Float32, calibration: Calibration | None = None
    ) -> Float32:
        """Lens log-odds of ``N`` cutouts, with test-time augmentation where the bundle asks for it.

        Parameters and errors are those of :meth:`plain_logits`, which it is without test-time augmentation. ``calibration``:
        decides what is augmented, instead of the bundle's.

        Returns
        -------
        numpy.ndarray
            (N, M) float32 in the order of the bundle's members.
        """
        if self._augmentation is None:
            return self.plain_logits(vis, nisp, sky, sigma)
        how = self._augmentation if calibration is None else replace(self._augmentation, calibration=calibration)
        return average_orientations(self.plain_logits, self.turned_logits, how, vis, nisp, sky, sigma)

    def plain_logits(self, vis: Float32, nisp: Float32, sky: Float32, sigma: Float32) -> Float32:
        """Lens log-odds of ``N`` cutouts as they are.

        Parameters
        ----------
        vis, nisp
            (N, 200, 200) and (N, 3, 66, 66; Y, J, H) float32, any unit, no NaN.
        sky, sigma
            (N, 4) float32: median and robust σ of VIS, Y, J, H in the unit of the cutouts; not read by ``minmax`` bundles.

        Returns
        -------
        numpy.ndarray
            (N, M) float32 in the order of the bundle's members. On the CPU providers a row does not depend on the others.

        Raises
        ------
        ValueError
            An array has another shape.
        """
        return self._computed(self._parts, vis, nisp, sky, sigma)

    def screen_logits(self, vis: Float32, nisp: Float32, sky: Float32, sigma: Float32) -> Float32:
        """Log-odds of the members of the screen, which the session was opened with; otherwise :meth:`plain_logits`.

        Returns
        -------
        numpy.ndarray
            (N, M) float32, 0 for every member that is not of the screen.
        """
        return self._computed(self._screen, vis, nisp, sky, sigma)

    def turned_logits(self, vis: Float32, nisp: Float32, sky: Float32, sigma: Float32) -> Float32:
        """Log-odds of the members that turn, and decide in a screen's second stage; otherwise :meth:`plain_logits`.

        Returns
        -------
        numpy.ndarray
            (N, M) float32, 0 for every other member.
        """
        return self._computed(self._turning, vis, nisp, sky, sigma)

    def _computed(self, parts: Sequence[_Part], vis: Float32, nisp: Float32, sky: Float32, sigma: Float32) -> Float32:
        arrays = {"vis": vis, "nisp": nisp, "sky": sky, "sigma": sigma}
        n = len(vis)
        for name in self.inputs:
            if arrays[name].shape != (n, *SHAPES[name]):
                raise ValueError(f"{name} has shape {arrays[name].shape}, not {(n, *SHAPES[name])}")
        found: NDArray[np.float32] = np.zeros((n, self.n_members), dtype=np.float32)
        step = BATCH[self.provider]

        def score(start: int) -> float:
            began = time.thread_time()
            rows = slice(start, start + step)
            feed = {name: np.ascontiguousarray(arrays[name][rows], dtype=np.float32) for name in self.inputs}
            for part in parts:
                found[rows, part.columns] = part.run(feed)
            return time.thread_time() - began

        if self._threads is None:
            for start in range(0, n, step):
                score(start)
        else:
            self.core_seconds += sum(self._threads.map(score, range(0, n, step)))
        return found


def _inputs(session: Any) -> tuple[str, ...]:
    return tuple(node.name for node in session.get_inputs())


def open_session(
    bundle: Bundle, provider: str = "auto", threads: int = 1, parallel: int = 1, screens: bool = False
) -> EnsembleSession:
    """Open a session of a bundle.

    Parameters
    ----------
    bundle
        A verified bundle.
    provider
        ``cpu``, ``openvino``, ``openvino-bfloat16``, ``cuda``, ``tensorrt``, or ``auto``: the best of CUDA, OpenVINO and CPU
        that works.
    threads
        Threads that compute one object on the CPU. The last digits of a log-odds (1e-6) depend on their number, not on chance.
    parallel
        Objects scored at a time on the CPU, which no digit depends on. Each takes 50 MB.
    screens
        Open the graph of the bundle's screen too, for :meth:`EnsembleSession.screen_logits`.

    Raises
    ------
    UsageError
        ONNX Runtime is not installed, the provider is unknown, or it is missing or does not start; the message says what to
        install.
    ContentError
        The graph cannot be run or does not have the inputs and outputs of an ensemble.
    """
    onnxruntime = _import_onnxruntime()
    if provider != "auto" and provider not in PROVIDERS:
        raise UsageError(f"provider {provider!r} is unknown; choose auto, {', '.join(PROVIDERS)}.")
    available = onnxruntime.get_available_providers()
    if provider == "openvino-bfloat16" and ONNX_NAME["openvino"] in available and not _has_some_of(BFLOAT16):
        raise UsageError(
            "provider 'openvino-bfloat16' needs a processor with AMX or AVX-512 for bfloat16, which this one has not; choose "
            "'openvino', which computes in float32."
        )
    if bundle.manifest.arithmetic == "int8" and platform.machine() == "x86_64" and not _has_some_of(VNNI):
        raise UsageError(
            f"{bundle.location}: computes in 8-bit integers, which this processor adds with errors, as it has no VNNI; choose "
            "the bundle that it was made from."
        )
    wanted = AUTO if provider == "auto" else tuple(name for name in PROVIDERS if name == provider)
    for candidate in wanted:
        if ONNX_NAME[candidate] not in available:
            continue
        session = open_graph(onnxruntime, bundle.model, bundle.path / MODEL_FILE, candidate, threads)
        if session.get_providers()[0] == ONNX_NAME[candidate]:
            _check_graph(session, bundle)
            further = [_open_further(onnxruntime, bundle, number, candidate, threads) for number in range(len(bundle.further))]
            manifest, turning = bundle.manifest, None if bundle.augmentation is None else bundle.augmentation.rule.members

            def some(members: Sequence[str] | None, graph: bytes | None, file: str, on: Provider = candidate) -> _Some | None:
                return None if members is None else _open_some(onnxruntime, bundle, members, graph, file, on, threads)

            return EnsembleSession(
                session,
                candidate,
                parallel,
                bundle.augmentation,
                further,
                some(manifest.screen.members if screens and manifest.screen else None, bundle.screen_model, SCREEN_FILE),
                some(turning, bundle.augmentation_model, AUGMENTATION_FILE),
            )
    asked = wanted[-1]
    if asked == "tensorrt" and ONNX_NAME[asked] in available:
        raise UsageError(
            "provider 'tensorrt' does not start: it needs NVIDIA's TensorRT libraries, which neither scanner[gpu] nor the "
            "container image brings; install the TensorRT of your ONNX Runtime's release yourself, or choose 'cuda'."
        )
    if ONNX_NAME[asked] in available:
        raise UsageError(
            f"provider '{asked}' is installed but does not start on this machine; see that the device, its driver and, in a "
            "container, access to it are there, or choose another provider."
        )
    present = ", ".join(name for name in PROVIDERS if ONNX_NAME[name] in available) or "none"
    raise UsageError(
        f"provider '{asked}' is not in this ONNX Runtime (it has: {present}); remove the installed onnxruntime wheel and "
        f"{pip_install(EXTRA[asked])}, or choose another provider."
    )


def run_apart(graph: bytes, feeds: Sequence[Mapping[str, Float32]], memory: int, seconds: float) -> list[Float32]:
    """Run a graph that is not trusted yet, in a process of its own whose memory and time are bounded.

    Parameters
    ----------
    graph
        An ONNX model of one output, float32.
    feeds
        Inputs by name, one call each.
    memory, seconds
        What the process may take, in bytes beyond what Python needs, and in all.

    Raises
    ------
    ValueError
        It cannot be run within these bounds; the message says why, without a full stop.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run_here, args=(theirs, graph, list(feeds), memory))
    with script_kept_from_children():
        process.start()
    theirs.close()
    try:
        answer = mine.recv() if mine.poll(seconds) else f"it takes longer than {seconds:g} s"
    except EOFError:
        answer = f"it needs more than {memory / 1e9:.0f} GB of memory, or crashes"
    finally:
        process.kill()
        process.join()
        mine.close()
    if isinstance(answer, str):
        raise ValueError(answer)
    return list(answer)


def _run_here(answer: Any, graph: bytes, feeds: Sequence[Mapping[str, Float32]], memory: int) -> None:
    onnxruntime = _import_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    with contextlib.suppress(OSError, ValueError):
        # Of all that is mapped: what Python has taken, and what it may take.
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    try:
        session = onnxruntime.InferenceSession(graph, settings, providers=[ONNX_NAME["cpu"]])
        found = [np.array(session.run(None, dict(feed))[0], dtype=np.float32) for feed in feeds]
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own.
        text = str(error)
        too_much = any(sign in text for sign in ("bad_alloc", "bad allocation", "bfc_arena", "allocate memory"))
        reason = (
            f"it needs more than {memory / 1e9:.0f} GB of memory" if too_much else f"ONNX Runtime cannot run it: {text[:200]}"
        )
        found = reason.partition("\n")[0]  # type: ignore[assignment]
    answer.send(found)


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UsageError(
            f"ONNX Runtime is not installed; install it with {pip_install('cpu')} (or the extra openvino, or gpu)."
        ) from None
    return onnxruntime


def _has_some_of(instructions: frozenset[str]) -> bool:
    """Whether the processor does; without, OpenVINO computes in float32 instead of bfloat16, and integers overflow, unsaid."""
    try:
        words = PROCESSOR.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not instructions.isdisjoint(words)


def _options(provider: Provider, threads: int) -> dict[str, str]:
    if provider == "openvino":
        # Without the hint OpenVINO may compute in bfloat16 where the CPU has it.
        return {"device_type": "CPU", "precision": "ACCURACY", "num_of_threads": str(threads)}
    if provider == "openvino-bfloat16":
        hint = json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}})
        return {"device_type": "CPU", "num_of_threads": str(threads), "load_config": hint}
    if provider == "cuda":
        # TF32 keeps 10 bits of the mantissa, and exhaustive search picks kernels by the clock: both change the scores.
        return {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    return {}


def open_graph(onnxruntime: Any, graph: bytes, path: Path, provider: Provider, threads: int) -> Any:
    """ONNX Runtime's session of one graph, deterministic; ``path``: its file, for the message.

    Raises
    ------
    ContentError
        The graph cannot be run.
    """
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.use_deterministic_compute = True
    settings.log_severity_level = 4
    providers = [(ONNX_NAME[name], _options(name, threads)) for name in FALLBACK[provider]]
    if "cuda" in FALLBACK[provider]:
        # The extra ``gpu`` brings CUDA as Python packages, where the system's loader does not look. It prints what it misses.
        with redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()
    try:
        return onnxruntime.InferenceSession(graph, settings, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own.
        reason = str(error).splitlines()[0][:200]
        raise ContentError(f"{path}: ONNX Runtime cannot run it ({reason}); fetch the bundle again.") from None


def _open_further(onnxruntime: Any, bundle: Bundle, number: int, provider: Provider, threads: int) -> Any:
    """The session of a member beyond the paper's seven, whose graph must have the inputs and the output of one."""
    path = bundle.path / bundle.manifest.further[number].file
    session = open_graph(onnxruntime, bundle.further[number], path, provider, threads)
    inputs = {node.name: tuple(node.shape[1:]) for node in session.get_inputs()}
    outputs = {node.name: tuple(node.shape[1:]) for node in session.get_outputs()}
    if any(SHAPES.get(name) != shape for name, shape in inputs.items()) or outputs != {OUTPUT: (1,)}:
        raise ContentError(
            f"{path}: its inputs {sorted(inputs)} and outputs {sorted(outputs)} are not those of a member; add it again."
        )
    return session


def _open_some(
    onnxruntime: Any, bundle: Bundle, members: Sequence[str], graph: bytes | None, file: str, provider: Provider, threads: int
) -> _Some:
    """The session of a graph of some members, and which of all members these are."""
    path = bundle.path / file
    if graph is None:
        raise ValueError(f"{path} is not there")
    session = open_graph(onnxruntime, graph, path, provider, threads)
    inputs = {node.name: tuple(node.shape[1:]) for node in session.get_inputs()}
    outputs = {node.name: tuple(node.shape[1:]) for node in session.get_outputs()}
    if any(SHAPES.get(name) != shape for name, shape in inputs.items()) or outputs != {OUTPUT: (len(members),)}:
        raise ContentError(
            f"{path}: its inputs {sorted(inputs)} and outputs {sorted(outputs)} are not those of {', '.join(members)}; set it "
            "again with 'scanner models cascade'."
        )
    return session, np.array([name in members for name in bundle.manifest.member_names])


def _check_graph(session: Any, bundle: Bundle) -> None:
    """Refuse a graph whose inputs and outputs are not those of an ensemble with the manifest's preprocessing."""
    inputs = {node.name: tuple(node.shape[1:]) for node in session.get_inputs()}
    needed = ("vis", "nisp") if bundle.manifest.preprocessing == "minmax" else tuple(SHAPES)
    outputs = {node.name: tuple(node.shape[1:]) for node in session.get_outputs()}
    if inputs != {name: SHAPES[name] for name in needed} or outputs != {OUTPUT: (len(MEMBERS),)}:
        raise ContentError(
            f"{bundle.path / MODEL_FILE}: its inputs {sorted(inputs)} and outputs {sorted(outputs)} are not those of a "
            f"{bundle.manifest.preprocessing} ensemble ({', '.join(needed)}; {OUTPUT}); export the bundle again."
        )
