import threading
from uuid import uuid4

import pytest

from scanner.config import StorageConfig

from .gcs_server import TOKEN, GcsServer


class GoogleStorage:
    """What :class:`GcsServer` offers, as ``s3`` does."""

    def __init__(self, server: GcsServer) -> None:
        self.config = StorageConfig(endpoint=server.endpoint)
        self._bucket = server.bucket

    def fresh(self) -> str:
        return f"gs://{self._bucket}/{uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def gcs():
    with GcsServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOOGLE_BEARER_TOKEN", TOKEN)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield GoogleStorage(server)
        server.shutdown()
        thread.join()
