"""One line of a tile list: its words, and what they name.

In: a line's text and the place of its list. Out: a :class:`~scanner.records.Tile`, the reason why it is none, or a
:class:`FolderLine` that is yet to be listed. Refused (:class:`~scanner.errors.TileListError`, naming file and line): what
cannot be understood. The form of a line: see :mod:`scanner.sky.tile_list`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scanner.errors import TileListError
from scanner.records import BANDS, TILE_ID_PATTERN, BandFiles, FailedTile, ImageRef, Tile
from scanner.storage.location import REMOTE, is_remote

COMPANIONS = ("RMS", "FLAG", "PSF")
KEYS = ("ID", *BANDS, "CATALOGUE", *(f"{band}_{companion}" for band in BANDS for companion in COMPANIONS))
#: URL schemes that an image may have; a local path has none.
SCHEMES = ("file", "s3")

_WORD = re.compile(r"""(?: [^\s"'\\] | \\. | "(?:[^"\\]|\\.)*" | '[^']*' )+""", re.VERBOSE)
_PIECE = re.compile(r"""\\(?P<escaped>.) | "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>[^']*)' | (?P<plain>.)""", re.VERBOSE)
_QUOTED = re.compile(r"""[\\"']""")
_ASSIGNMENT = re.compile(r"(?P<key>[A-Za-z_]+)=(?P<value>.*)")
_EXTENSION = re.compile(r"(?P<path>.+)\[(?P<extension>[^\[\]]+)\]")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://.*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class FolderLine:
    """A line that names a folder, and perhaps where its catalogue is: a file, or a folder, which ends in ``/``."""

    folder: str
    catalogue: str | None = None


def read_line(line: str, base: str, where: str) -> Tile | FailedTile | FolderLine | None:
    """Read one line.

    Parameters
    ----------
    line
        Its text.
    base
        Folder or prefix where relative paths begin.
    where
        ``list:line``, with which every message begins.

    Returns
    -------
    Tile, FailedTile, FolderLine or None
        None: a blank line, or a comment.

    Raises
    ------
    TileListError
        The line cannot be understood.
    """
    if _CONTROL.search(line.rstrip("\r")):
        raise TileListError(f"{where}: holds control characters; give a plain text file.")
    words = _split(line, where)
    if not words:
        return None
    first = _ASSIGNMENT.fullmatch(words[0])
    if first is not None and first["key"].upper() in KEYS:
        return _read_assignments(words, base, where)
    catalogue = None
    if len(words) == 2 and (second := _ASSIGNMENT.fullmatch(words[1])) and second["key"].upper() == "CATALOGUE":
        if not second["value"]:
            raise TileListError(f"{where}: {second['key']} is empty.")
        catalogue = _resolve(second["value"], base, where).rstrip("/") + ("/" if second["value"].endswith("/") else "")
    elif len(words) > 1:
        raise TileListError(
            f"{where}: cannot understand {words[1]!r} after {words[0]!r}; "
            "write one folder a line (in quotes if it has blanks; catalogue=… may follow), or id=… VIS=… Y=… J=… H=…."
        )
    return FolderLine(_resolve(words[0], base, where), catalogue)


def _split(line: str, where: str) -> list[str]:
    """Words of a line, quotes and backslashes undone, without its comment."""
    words = []
    position = 0
    while position < len(line):
        if line[position].isspace():
            position += 1
            continue
        if line[position] == "#":
            break
        match = _WORD.match(line, position)
        if match is None or (match.end() < len(line) and not line[match.end()].isspace()):
            raise TileListError(f"{where}: a quote or a backslash is left open.")
        # Most words have nothing to be undone, and a long list has a million of them.
        words.append("".join(map(_plain, _PIECE.finditer(match[0]))) if _QUOTED.search(match[0]) else match[0])
        position = match.end()
    return words


def _plain(piece: re.Match[str]) -> str:
    if piece["double"] is not None:
        return re.sub(r"\\(.)", r"\1", piece["double"])
    return next(text for text in piece.group("escaped", "single", "plain") if text is not None)


def _read_assignments(words: list[str], base: str, where: str) -> Tile | FailedTile:
    values: dict[str, str] = {}
    for word in words:
        match = _ASSIGNMENT.fullmatch(word)
        key = match["key"].upper() if match else ""
        if match is None or key not in KEYS:
            raise TileListError(f"{where}: cannot understand {word!r}; the keys are {', '.join(KEYS)}.")
        if key in values:
            raise TileListError(f"{where}: {match['key']} is given twice.")
        if not match["value"]:
            raise TileListError(f"{where}: {match['key']} is empty.")
        values[key] = match["value"]
    tile_id = values.pop("ID", None)
    if tile_id is None:
        raise TileListError(f"{where}: the line names files but no tile; add id=….")
    if not re.fullmatch(TILE_ID_PATTERN, tile_id):
        raise TileListError(f"{where}: {tile_id!r} cannot be a tile id; use letters, digits and ._+- (not a dot first).")
    files = {key: _image(value, base, where) for key, value in values.items()}
    for band in BANDS:
        orphans = [f"{band}_{companion}" for companion in COMPANIONS if f"{band}_{companion}" in files]
        if orphans and band not in files:
            raise TileListError(f"{where}: {orphans[0]} is given without {band}.")
    missing = [band for band in BANDS if band not in files]
    if missing:
        reason = f"{where}: no mosaic is given for {', '.join(missing)}; add {' '.join(f'{band}=…' for band in missing)}."
        return FailedTile(tile_id=tile_id, reason=reason)
    return Tile(
        tile_id=tile_id,
        bands={
            band: BandFiles(
                image=files[band],
                rms=files.get(f"{band}_RMS"),
                flag=files.get(f"{band}_FLAG"),
                psf=files.get(f"{band}_PSF"),
            )
            for band in BANDS
        },
        catalogue=files.get("CATALOGUE"),
    )


def _image(value: str, base: str, where: str) -> ImageRef:
    match = _EXTENSION.fullmatch(value)
    if match is None:
        return ImageRef(path=_resolve(value, base, where))
    extension = match["extension"]
    number = int(extension) if extension.isascii() and extension.isdigit() and len(extension) < 6 else extension
    return ImageRef(path=_resolve(match["path"], base, where), extension=number)


def _resolve(value: str, base: str, where: str) -> str:
    """Local path or URL, absolute or below the list's folder; ``file://`` undone; ``s3://`` as it stands."""
    match = _SCHEME.fullmatch(value)
    if match is None:
        return _below(value, base, where) if is_remote(base) and not value.startswith("/") else str(Path(base) / value)
    scheme = match["scheme"].lower()
    if scheme not in SCHEMES:
        raise TileListError(f"{where}: {value}: {scheme}:// cannot be read; give a local path, file:// or s3://.")
    try:
        url = urlsplit(value)
    except ValueError as error:
        raise TileListError(f"{where}: {value}: is not a URL ({error}).") from None
    if scheme == "s3":
        if not _BUCKET.fullmatch(url.netloc) or not url.path.strip("/"):
            raise TileListError(f"{where}: {value}: names no object; write s3://bucket/key.")
        return value
    local = unquote(url.path)
    if url.netloc not in ("", "localhost") or not local.startswith("/") or _CONTROL.search(local):
        raise TileListError(f"{where}: {value}: is no file of this machine; write file:///folder/name.")
    return local


def _below(value: str, base: str, where: str) -> str:
    """URL of a relative path; object stores know nothing of ``..``."""
    bucket, *parts = base[len(REMOTE) :].split("/")
    for part in value.split("/"):
        if part == "..":
            if not parts:
                raise TileListError(f"{where}: {value}: leads out of the bucket {bucket}.")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return REMOTE + "/".join([bucket, *parts])
