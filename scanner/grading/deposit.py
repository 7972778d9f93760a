"""A catalogue as a deposit with a DOI: tables, cutouts, grades and provenance as flat files, as Zenodo takes them."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from scanner import __version__
from scanner.atomic_file import file_sha256, flush_tree, partial_name, remove, writing_to
from scanner.cutouts import framed
from scanner.errors import OutputError, UsageError
from scanner.grading.grade import Entry
from scanner.grading.labels import classifications, label_bytes, label_table
from scanner.grading.store import GradeStore
from scanner.sky.local_files import temporary_folder
from scanner.survey.published import CANDIDATES, TILES_TABLE, Published

#: Letters of a file's name in the archive of cutouts.
_OTHER = re.compile(r"[^A-Za-z0-9.+-]+")
#: What each file is, for the README.
FILES = {
    "catalogue.parquet": "every object, best first; units and descriptions are in the schema",
    "candidates.fits": "the best objects; also as candidates.ecsv and candidates.vot",
    "tiles.parquet": "the tiles, their files by name, their outlines, and why any failed",
    "cutouts.zip": "stored cutouts of the candidates: one FITS file each, VIS, Y, J and H with their WCS",
    "grades.csv": "graded objects: votes, median grade and label",
    "votes.csv": "a row a vote, in the layout of Zooniverse's classifications",
    "provenance.json": "software, bundle, settings and runs that the catalogue was made with",
    "CITATION.cff": "how to cite this",
    "zenodo.json": "metadata as Zenodo's API takes them",
    "SHA256SUMS": "checksums: sha256sum -c SHA256SUMS",
}


@dataclass(frozen=True)
class About:
    """What only its authors know of a deposit: ``creators`` as ``Family, Given``; ``licence`` an SPDX name, in any case."""

    title: str
    creators: tuple[str, ...]
    licence: str
    version: str = "1"


def write_deposit(published: Published, out: Path, about: About, store: GradeStore | None, most_cutouts: int) -> dict[str, int]:
    """Write the folder, whole or not at all; the same input gives the same bytes.

    Graders are called ``grader-1`` and so on, and what they wrote is left out: it was not written to be published.

    Parameters
    ----------
    published, store
        The run or survey, and its grades, if there are any.
    out
        Folder to make; must not be there.
    about
        Title, creators, licence.
    most_cutouts
        Cutouts of so many candidates at most.

    Returns
    -------
    dict
        Bytes of each file, by name.

    Raises
    ------
    OutputError
        The folder is there already, or cannot be written.
    UsageError
        There is no title or creator.
    """
    if not about.title.strip() or not all(name.strip() for name in about.creators) or not about.creators:
        raise UsageError("A deposit needs a title and the names of its creators: give --title and --creator 'Family, Given'.")
    if out.exists():
        raise OutputError(f"{out}: is there already; name a new folder with --zenodo-layout.")
    making = partial_name(out)
    with writing_to(out):
        try:
            making.mkdir(parents=True)
            catalogue = published.open_catalogue()
            relation = catalogue.source().relation
            rows = catalogue.query(f"SELECT * FROM {relation.sql} ORDER BY rank", relation.parameters)
            pq.write_table(rows, making / "catalogue.parquet", compression="zstd", write_page_checksum=True)
            for suffix in ("fits", "ecsv", "vot"):
                (making / f"candidates.{suffix}").write_bytes(published.files.read(f"{CANDIDATES}.{suffix}"))
            (making / TILES_TABLE).write_bytes(published.files.read(TILES_TABLE))
            wanted = rows.filter(rows["is_candidate"]).slice(0, most_cutouts).to_pylist()
            with zipfile.ZipFile(making / "cutouts.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in _cutouts(published, wanted):
                    # A fixed time: the same cutouts give the same bytes.
                    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
            if store is not None:
                entries = _unnamed(store.standing())
                (making / "grades.csv").write_bytes(label_bytes(label_table(entries, store.places()), "csv"))
                (making / "votes.csv").write_bytes(classifications(entries, store.places()))
            _describe(making, published, about, len(rows))
            sums = {path.name: file_sha256(path) for path in sorted(making.iterdir())}
            (making / "SHA256SUMS").write_text(
                "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()), encoding="ascii"
            )
            flush_tree(making)
            making.rename(out)
        finally:
            remove(making)
    return {path.name: path.stat().st_size for path in sorted(out.iterdir())}


def _cutouts(published: Published, rows: list[Mapping[str, object]]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the file of each object whose cutout is stored, tile by tile."""
    tiles = sorted({(str(row["run"]), str(row["tile_id"])) for row in rows})
    for run, tile_id in tiles:
        folder = published.run_folders.get(run)
        commit = None if folder is None else folder.commit_of(tile_id)
        with temporary_folder(None) as scratch:
            stored = None if folder is None or commit is None else folder.cutouts(commit, scratch)
            if stored is None:
                continue
            for row in rows:
                index = np.flatnonzero(stored.target_id == row["target_id"])
                if (row["run"], row["tile_id"]) == (run, tile_id) and len(index):
                    cutout = framed.of_store(stored.read(index[:1]), stored.attributes)
                    header = {"OBJECT": str(row["name"]), "RANK": str(row["rank"])}
                    yield f"{_OTHER.sub('_', str(row['name']))}.fits", framed.fits_bytes(cutout.images, header)


def _unnamed(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The same grades by graders without names, and without what they wrote."""
    number = {name: f"grader-{k}" for k, name in enumerate(sorted({entry.grader for entry in entries}), start=1)}
    return tuple(entry.model_copy(update={"grader": number[entry.grader], "comment": ""}) for entry in entries)


def _describe(folder: Path, published: Published, about: About, n_objects: int) -> None:
    """Write provenance, README, citation and Zenodo's metadata."""
    runs = [
        run.record().model_dump(
            mode="json",
            include={"scanner_version", "bundle_name", "bundle_version", "bundle_fingerprint", "config_fingerprint"}
            | {"provider", "decision", "tile_ids", "sky_area_deg2"},
        )
        | {"run": name, "settings": run.record().config.model_dump(mode="json", include={"targets", "cutouts", "catalogue"})}
        for name, run in sorted(published.run_folders.items())
    ]
    provenance = {"software": f"scanner {__version__}", "version": published.version, "state": published.state, "runs": runs}
    text = (
        f"{about.title}\n\nA catalogue of {n_objects:,} objects over {published.sky_area_deg2:.4f} deg², searched for strong "
        f"gravitational lenses with scanner {__version__} and the bundle {', '.join(published.bundles)}."
    )
    metadata = {
        "title": about.title,
        "upload_type": "dataset",
        "description": text.partition("\n\n")[2],
        "creators": [{"name": name} for name in about.creators],
        "license": about.licence.lower(),
        "version": about.version,
        "keywords": ["strong gravitational lensing", "catalogue", "machine learning"],
    }
    citation = [
        "cff-version: 1.2.0",
        "message: Cite this catalogue as below.",
        "type: dataset",
        # A JSON string is a YAML string.
        f"title: {json.dumps(about.title, ensure_ascii=False)}",
        f"version: {json.dumps(about.version)}",
        f"license: {json.dumps(about.licence)}",
        "authors:",
        *(line for name in about.creators for line in _author(name)),
    ]
    written = {
        "provenance.json": json.dumps(provenance, indent=2, ensure_ascii=False, sort_keys=True),
        "zenodo.json": json.dumps({"metadata": metadata}, indent=2, ensure_ascii=False),
        "CITATION.cff": "\n".join(citation),
    }
    for name, content in written.items():
        (folder / name).write_text(f"{content}\n", encoding="utf-8")
    files = "\n".join(f"- `{name}`: {what}" for name, what in FILES.items() if (folder / name).exists() or name == "SHA256SUMS")
    (folder / "README.md").write_text(f"# {text}\n\n{files}\n\nLicence: {about.licence}.\n", encoding="utf-8")


def _author(name: str) -> Iterator[str]:
    family, _, given = (part.strip() for part in name.partition(","))
    yield f"  - family-names: {json.dumps(family, ensure_ascii=False)}"
    if given:
        yield f"    given-names: {json.dumps(given, ensure_ascii=False)}"
