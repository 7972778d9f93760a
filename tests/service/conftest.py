"""A real finished run for the tests of the service, and the real server over it."""

import io
import math
import shutil
import threading
from contextlib import contextmanager

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from waiting import LIMIT_S, wait_for

from scanner.atomic_file import tree_sha256
from scanner.catalogue.export import TableFact, TableHeading, ecsv_bytes, to_astropy
from scanner.catalogue.rank import LEAST_LISTED
from scanner.config import StorageConfig
from scanner.interface.opened import features
from scanner.modelling import lens_model
from scanner.modelling.lens_model import LensModel, ModelledMass
from scanner.service.app import context_of, server_of
from scanner.service.settings import load as load_service
from scanner.storage import open_store
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.published import MOVED
from scanner.survey.rescore import MOVED_COLUMNS


@pytest.fixture(scope="session")
def served_run(finished_run):
    """Folder of a finished run of the three tiles of ``sky``; only to be read."""
    return finished_run


class Server:
    """The service as clients find it: ``url`` without a slash at its end, the ``context`` that it works with."""

    def __init__(self, config, locations, port=0):
        # A machine that is busy with other tests takes longer than users should; tests of limits set their own.
        if "seconds" not in config.limits.model_fields_set:
            config = config.model_copy(update={"limits": config.limits.model_copy(update={"seconds": LIMIT_S})})
        self.context = context_of(config, [str(location) for location in locations])
        self._server = server_of(self.context)
        self._server.config.port = port
        self._thread = threading.Thread(target=self._server.run, name="server")

    def start(self):
        self._thread.start()
        collections = self.context.collections
        wait_for("the server", lambda: self._is_ready() or collections.error or not self._thread.is_alive())
        if not self._is_ready():
            raise RuntimeError(f"the server does not start: {collections.error!r}")
        (listening,) = self._server.servers
        self.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        self.client = httpx.Client(base_url=self.url, timeout=LIMIT_S)

    def _is_ready(self):
        return self._server.started and self.context.collections.is_ready

    def get(self, path, **arguments):
        """Ask for a path; arguments as of ``httpx.Client.get``."""
        return self.client.get(path, **arguments)

    def close(self):
        if hasattr(self, "client"):
            self.client.close()
        self._server.should_exit = True
        self._thread.join()


@contextmanager
def running_server(config, *locations, port=0):
    """A server of its own over run and survey folders, on a free port of the loopback."""
    server = Server(config, locations, port)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def rows(served_run):
    """Every object of the run's catalogue, by rank."""
    return pq.read_table(served_run / "catalogue" / "dataset", partitioning=None).sort_by("rank")


@pytest.fixture(scope="session")
def candidate_ids(rows):
    """Names of the candidates, by rank."""
    return [f"{row['run']}/{row['tile_id']}/{row['target_id']}" for row in rows.to_pylist() if row["is_candidate"]]


@pytest.fixture(scope="session")
def listed_ids(rows):
    """Names of what lists show, by rank: of so few objects, all."""
    assert len(rows) < LEAST_LISTED
    return [f"{row['run']}/{row['tile_id']}/{row['target_id']}" for row in rows.to_pylist()]


@pytest.fixture(scope="session")
def server(served_run, tmp_path_factory):
    """The real server over ``served_run``, read by everybody on this machine; only to be read from."""
    grades = tmp_path_factory.mktemp("grades") / "grades.sqlite"
    settings = {"grading.path": str(grades), "limits.requests_per_minute": 0}
    with running_server(load_service(None, settings, {}), served_run) as running:
        yield running


@pytest.fixture(scope="session")
def modelled_run(served_run, listed_ids, tmp_path_factory):
    """A copy of the run whose best object has a certified lens model, and whose second one could not be modelled.

    Its cutouts have feature vectors, and its best two objects changed places when it was scored again.
    """
    run = shutil.copytree(served_run, tmp_path_factory.mktemp("modelled") / "run")
    folder = RunFolder(open_store(str(run), StorageConfig()))
    (run_id, tile_id, first), (_, second_tile, second) = (one.split("/") for one in listed_ids[:2])
    mass = ModelledMass(
        theta_e_arcsec=1.25, theta_e_error_arcsec=0.04, q=0.75, q_error=0.05, angle_rad=0.3, x_arcsec=0.0, y_arcsec=0.0,
        gamma1=0.03, gamma2=0.04, position_angle_deg=72.0, shear_position_angle_deg=116.0,
    )  # fmt: skip
    made = LensModel(
        tile_id=tile_id, target_id=int(first), input_fingerprint=folder.commit_of(tile_id).input_fingerprint,
        status="converged", verdict="certified", psf={"VIS": "mean"}, bands=("VIS",), mass=mass, ln_evidence_ratio=31.5,
        chi2_lens=900.0, chi2_companions=963.0, n_pixels=1000.0, n_images=4, magnification=8.5, arc_snr=42.0,
        counter_image_snr=12.0, p_lens_modelled=0.93,
    )  # fmt: skip
    refused = LensModel(
        tile_id=second_tile, target_id=int(second), input_fingerprint=folder.commit_of(second_tile).input_fingerprint,
        status="refused", verdict="refused", reason="VIS is masked here",
    )  # fmt: skip
    panels = io.BytesIO()
    Image.new("RGB", (916, 194), "teal").save(panels, "PNG")
    for model in (made, refused):
        with folder.store.staged(lens_model.key(model.tile_id, model.target_id), lens_model.RECORD) as staging:
            if model is made:
                (staging.path / lens_model.PICTURE).write_bytes(panels.getvalue())
                (staging.path / lens_model.IMAGES).write_bytes(b"SIMPLE")
            written = model.model_copy(update={"place": staging.place, "sha256": tree_sha256(staging.path)})
            (staging.path / lens_model.RECORD).write_bytes(written.to_bytes())
    features(run, progress=False)
    best = pq.read_table(run / "catalogue" / "dataset", partitioning=None).sort_by("rank").slice(0, 4)
    places = [best[name].to_pylist() for name in ("name", "ra", "dec")]
    ranks = [[2, 1, 0, 9], [1, 2, 3, 0]]
    moved = pa.table(
        [
            *places,
            *ranks,
            [0.2, 0.6, math.nan, 0.1],
            [0.9, 0.5, 0.4, math.nan],
            [False, True, False, True],
            [True] * 3 + [False],
        ],
        schema=pa.schema([one.field() for one in MOVED_COLUMNS]),
    )
    facts = (TableFact("before", "BEFORE", "old 1", ""), TableFact("after", "AFTER", "new 2", ""))
    with folder.staged_results(folder.record()) as staging:
        pq.write_table(lens_model.table_of([made, refused], run_id), staging / "models.parquet")
        (staging / MOVED).write_bytes(ecsv_bytes(to_astropy(moved), TableHeading("moved", "Who moved", facts)))
    return run


@pytest.fixture(scope="session")
def modelled_server(modelled_run, tmp_path_factory):
    """The real server over ``modelled_run``; only to be read from."""
    grades = tmp_path_factory.mktemp("grades") / "grades.sqlite"
    settings = {"grading.path": str(grades), "limits.requests_per_minute": 0}
    with running_server(load_service(None, settings, {}), modelled_run) as running:
        yield running


@pytest.fixture(scope="session")
def make_server():
    """:func:`running_server`, for tests that need a server of their own."""
    return running_server
