"""What enters the last layers of a bundle's networks: of any cutouts, and of all stored cutouts of a run, as short vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble.bundle import MODEL_FILE, Bundle
from scanner.ensemble.session import BATCH, open_graph
from scanner.errors import ContentError, UsageError
from scanner.grading import similar
from scanner.grading.similar import MEMBER, Basis
from scanner.records import MEMBERS, CommitRecord, CutoutBatch, Float32, Int64, MemberName
from scanner.sky.local_files import temporary_folder
from scanner.survey.folder.ledger import RunFolder

#: Objects, the first of the run's, whose features the axes of the short vectors are taken from.
BASIS_OBJECTS = 2000
_BATCH = 64


@dataclass(frozen=True)
class Head:
    """The last layer of a member in an ensemble's graph: names of what enters it, and of its two constants."""

    member: MemberName
    features: str
    weight: str
    bias: str


@dataclass(frozen=True)
class Features:
    """What enters the last layers: ``values`` (N, F) float32 by member; ``logits`` (N, 7) float32: what all members say.

    Without log-odds, ``logits`` is (N, 0).
    """

    values: dict[MemberName, Float32]
    logits: Float32


def heads(graph: onnx.GraphProto) -> tuple[Head, ...]:
    """The last layer of each of the paper's seven.

    Raises
    ------
    ContentError
        The graph was not exported by scanner.
    """
    made = {output: node for node in graph.node for output in node.output}
    found = []
    for member in MEMBERS:
        difference = made.get(f"{member}/log-odds")
        last = None if difference is None else made.get(difference.input[0])
        if last is None or last.op_type != "Gemm" or len(last.input) != 3:
            raise ContentError(f"{MODEL_FILE}: was not exported by scanner, so its last layers are not known; export it again.")
        found.append(Head(member, *last.input))
    return tuple(found)


def features_graph(model: bytes, members: Sequence[MemberName], *, logits: bool) -> bytes:
    """The graph of an ensemble that gives what enters the last layers of some members, in this order; then all log-odds.

    What none of it needs is left out.
    """
    whole = onnx.load_model_from_string(model)
    graph = whole.graph
    wanted = [head for head in heads(graph) if head.member in members]
    sizes = {constant.name: constant.dims for constant in graph.initializer}
    said = graph.output[0]
    del graph.output[:]
    for head in wanted:
        size = int(sizes[head.weight][1])
        graph.output.append(helper.make_tensor_value_info(head.features, TensorProto.FLOAT, ["N", size]))
    if logits:
        graph.output.append(said)
    needed = {output.name for output in graph.output}
    for number in reversed(range(len(graph.node))):
        if needed.isdisjoint(graph.node[number].output):
            del graph.node[number]
        else:
            needed.update(graph.node[number].input)
    for constants in (graph.initializer, graph.input):
        for number in reversed(range(len(constants))):
            if constants[number].name not in needed:
                del constants[number]
    return bytes(whole.SerializeToString(deterministic=True))


class FeatureSession:
    """Computes the features of cutouts with members of a bundle, and all log-odds where they are asked for, on the CPU."""

    def __init__(self, bundle: Bundle, members: Sequence[MemberName] = MEMBERS, *, logits: bool = True) -> None:
        self.members = tuple(name for name in MEMBERS if name in members)
        #: Of these members.
        self.graph = features_graph(bundle.model, self.members, logits=logits)
        self._session = open_graph(onnxruntime, self.graph, bundle.path / MODEL_FILE, "cpu", 1)
        self._inputs = [node.name for node in self._session.get_inputs()]

    def __call__(self, batch: CutoutBatch) -> Features:
        """Features of a batch; missing pixels are filled as a scan fills them."""
        vis, nisp = fill_bad_pixels(batch)
        arrays = {"vis": vis, "nisp": nisp, "sky": batch.sky, "sigma": batch.sigma}
        # One by one, as a scan on a CPU: an object's numbers depend on nothing else, and the memory is small.
        step = BATCH["cpu"]
        parts = [
            self._session.run(None, {name: np.ascontiguousarray(arrays[name][row : row + step]) for name in self._inputs})
            for row in range(0, len(batch), step)
        ]
        found = [np.concatenate(part) for part in zip(*parts, strict=True)]
        logits = found[-1] if len(found) > len(self.members) else np.empty((len(batch), 0), np.float32)
        return Features(dict(zip(self.members, found, strict=False)), logits)


def _features(folder: RunFolder, commit: CommitRecord, session: FeatureSession) -> tuple[Int64, list[Float32]]:
    """Ids of a tile's stored objects, and their features, batch by batch."""
    with temporary_folder(None) as scratch:
        store = folder.cutouts(commit, scratch)
        if store is None:
            return np.empty(0, np.int64), []
        return store.target_id, [session(batch).values[MEMBER] for batch in store.batches(_BATCH)]


def write_run_features(folder: RunFolder, bundle: Bundle, report: Callable[[int, int], None]) -> int:
    """Compute the short feature vectors of a run's stored cutouts, tile by tile; what is there already is left.

    The vectors are the features of :data:`~scanner.grading.similar.MEMBER` on the principal axes of some of the run's objects.

    Parameters
    ----------
    folder, bundle
        The run, held, and its bundle.
    report
        Called with how many tiles of how many are done.

    Returns
    -------
    int
        Objects that have features now.

    Raises
    ------
    UsageError
        No cutout is stored.
    """
    session = FeatureSession(bundle, (MEMBER,), logits=False)
    commits = [commit for tile_id in sorted(folder.committed()) if (commit := folder.commit_of(tile_id)) is not None]
    basis, n = similar.read_basis(folder, bundle.fingerprint), 0
    known: dict[str, tuple[Int64, list[Float32]]] = {}
    if basis is None:
        for commit in commits:
            known[commit.tile_id] = _features(folder, commit, session)
            if sum(len(target_id) for target_id, _ in known.values()) >= BASIS_OBJECTS:
                break
        some = [part for _, parts in known.values() for part in parts]
        if not some:
            raise UsageError(f"{folder.location}: no cutouts are stored; scan with --keep candidates, sample:F or all.")
        basis = Basis.of(np.concatenate(some)[:BASIS_OBJECTS], session.graph)
        similar.write_basis(folder, bundle.fingerprint, basis)
    for number, commit in enumerate(commits, start=1):
        there = similar.read_tile(folder, bundle.fingerprint, commit)
        if there is None:
            if commit.tile_id not in known:
                known[commit.tile_id] = _features(folder, commit, session)
            target_id, parts = known.pop(commit.tile_id)
            values = np.concatenate([np.empty((0, len(basis.axes)), np.float32), *(basis.apply(part) for part in parts)])
            similar.write_tile(folder, bundle.fingerprint, commit, target_id, values)
            n += len(values)
        else:
            n += len(there)
        report(number, len(commits))
    return n
