"""The networks that Wilde et al. (2022) published, as a bundle."""

from __future__ import annotations

import pickle
import tempfile
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from torch import nn

from scanner.atomic_file import file_sha256
from scanner.ensemble.bundle import Bundle, write_bundle
from scanner.errors import ContentError, InputMissingError
from scanner.networks import build
from scanner.records import MEMBERS, MemberName
from scanner.training.assemble import Assembly, Naming, regrid
from scanner.training.data import TrainingData
from scanner.training.export import bundle_content

FILES: dict[MemberName, str] = {member: f"{member.replace('-', '_')}_Weights.pt" for member in MEMBERS}
#: SHA-256 of the files as published. They are of a format of torch that has no checksums; files that torch writes today have.
SHA256: dict[MemberName, str] = {
    "OU-J": "0f156a8e8ec36d796436184240708c03335a6305defbf58075f24cd4e5e04a03",
    "OU-Y": "63053fadd5175bd845a537328b0bc364d7e80d2347785c190b83aedc024b16ad",
    "OU-H": "074b52357ac1dfe7c3cc1f9acbe0eb4b05646841658fc2788096b2a4e8c5146f",
    "OU-JYH": "59d30497837ae32a8164fcd157ce422b95f440137e366036d9de7b21b15a3f23",
    "OU-VIS": "4d757907a16a2bfe5b05804fad191d32c523233fb9d81d366079941674ce450a",
    "OU-66": "7f7520adee7c1d8d9a7ce18f7d87f6e412052ae954807d862eb909e55b8f7e43",
    "OU-200": "1b2a1f4b799fe449e314f8aaf7d78bbdbb6bc3b7378e693591bdb0ccd3dff808",
}
LICENCE_FILE = "LICENSE"
SOURCE = "as published by Wilde et al. (2022)"
NAME, VERSION = "published-wilde2022", "1"
DESCRIPTION = "The networks that Wilde et al. (2022) published (github.com/JoshWilde/LensFindery-McLensFinderFace)"
#: 72,000 of the 100,000 training images were lenses (section 2.1).
CLASS_PRIOR = 0.72


def read_member(path: Path, member: MemberName) -> nn.Sequential:
    """Read one published state dict into the member's network.

    Parameters
    ----------
    path
        File of ``torch.save``; loaded with ``weights_only``, so nothing in it is run.
    member
        Which network it is.

    Returns
    -------
    torch.nn.Sequential
        In evaluation mode, float32, on the CPU.

    Raises
    ------
    InputMissingError
        There is no such file.
    ContentError
        It is damaged or holds more than weights, or does not fit the network.
    """
    if not path.is_file():
        raise InputMissingError(
            f"{path}: the weights of {member} are missing; the folder must hold {', '.join(FILES.values())}."
        )
    if not _is_whole(path, member):
        raise ContentError(f"{path}: damaged, or not the published file; fetch it again.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        # What torch says is advice to load it unsafely.
        raise ContentError(f"{path}: damaged, or more than weights ({type(error).__name__}); fetch it again.") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ContentError(f"{path}: holds no weights, but something else; fetch it again.")
    network = build(member)
    renamed = {_layer(str(key), network): value for key, value in state.items()}
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in renamed.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            what = f"{key} has shape {found.get(key, 'none')}, not {expected.get(key, 'none')}"
            raise ContentError(f"{path}: these are not the weights of {member} ({what}); check the file's name.")
    network.load_state_dict(renamed)
    return network.eval()


def _is_whole(path: Path, member: MemberName) -> bool:
    """Whether a file is the published one, or the checksums of the archive that torch writes today are right."""
    if file_sha256(path) == SHA256[member]:
        return True
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except (BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
        return False


def _layer(key: str, network: nn.Sequential) -> str:
    """Our name of a published weight: ``layer.17.bias`` → ``17.bias``, ``fc_layer.2.bias`` → that of the last dense layer.

    The two members that see VIS alone and the rest differ in a prefix (``VIS_layer``). Other keys are returned as they are.
    """
    group, _, rest = key.partition(".")
    if group in ("layer", "VIS_layer"):
        return rest
    if group == "fc_layer":
        dense = [name for name, layer in network.named_children() if isinstance(layer, nn.Linear)]
        number, _, kind = rest.partition(".")
        # Dense layers alternate with ReLUs.
        if number in ("0", "2"):
            return f"{dense[int(number) // 2]}.{kind}"
    return key


def read_members(folder: Path) -> dict[MemberName, nn.Sequential]:
    """Read all seven published networks.

    Raises
    ------
    InputMissingError, ContentError
        The folder or a file is missing; see :func:`read_member`.
    """
    if not folder.is_dir():
        raise InputMissingError(f"{folder}: no such folder; give the one that holds {FILES['OU-66']} and the other six.")
    return {member: read_member(folder / FILES[member], member) for member in MEMBERS}


def import_published(
    folder: Path,
    out: Path,
    *,
    data: TrainingData | None = None,
    how: Assembly | None = None,
    name: str = NAME,
) -> Bundle:
    """Make a bundle of the published networks.

    What their files leave open was settled by trying, on real images whose scores their own code gives: the second output is
    the lens, channels are J, Y, H, VIS, and images are resized first and scaled to 0..1 afterwards.

    Their training set is not public, so its embedding cannot be had. With a labelled dataset, grid, calibration and threshold
    are made from that one; without, the bundle has no grid: objects are ranked and judged by the mean of the seven
    probabilities.

    Parameters
    ----------
    folder
        Holds the seven state dicts.
    out
        Folder of the bundle; replaced if it is one.
    data
        Labelled cutouts from which grid, calibration and threshold are made; ``None``: there will be no grid.
    how
        See :func:`scanner.training.assemble.regrid`.
    name
        Of the bundle.

    Raises
    ------
    InputMissingError, ContentError, OutputError
        Weights are missing or do not fit; the set is too small to set a threshold on; ``out`` cannot be written.
    """
    networks = read_members(folder)
    licence = folder / LICENCE_FILE
    content = replace(
        bundle_content(
            networks,
            "minmax",
            name=name,
            version=VERSION,
            description=f"{DESCRIPTION}, judged by the mean of their probabilities.",
            sources=dict.fromkeys(MEMBERS, SOURCE),
        ),
        class_prior=CLASS_PRIOR,
        texts={LICENCE_FILE: licence.read_text(encoding="utf-8")} if licence.is_file() else {},
    )
    if data is None:
        return write_bundle(out, content)
    described = f"{DESCRIPTION}, with grid, calibration and threshold from the dataset {data.paths[0].resolve().name}."
    with tempfile.TemporaryDirectory() as scratch:
        plain = write_bundle(Path(scratch) / "plain", content)
        how = how or Assembly(cache=Path(scratch))
        return regrid(plain, data, out, Naming(name, VERSION, described), how)
