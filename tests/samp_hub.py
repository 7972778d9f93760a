"""A SAMP hub with one program that loads tables and images, as TOPCAT is one."""

from contextlib import contextmanager
from queue import Queue
from threading import Thread
from urllib.request import urlopen

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient


class Program:
    """``heard``: type and parameters of what it was asked to load."""

    name = "topcat"

    def __init__(self, hub):
        self.heard = Queue()
        self.client = SAMPIntegratedClient(self.name, metadata={"samp.name": self.name})
        self.client.connect(hub)
        for message in ("table.load.votable", "table.load.fits", "image.load.fits"):
            self.client.bind_receive_notification(message, self._take)

    def _take(self, private_key, sender, message, parameters, extra):
        self.heard.put((message, parameters))

    def loaded(self, limit_s):
        """Type, name and content of the next one, read as such a program reads it."""
        message, parameters = self.heard.get(timeout=limit_s)
        with urlopen(parameters["url"]) as file:
            return message, parameters["name"], file.read()


class Consent:
    """Who is at the machine, and lets every page in."""

    queue_request = queue_result = None

    def watch(self):
        while (request := self.queue_request.get()) is not None:
            assert request[0]["samp.name"] == "scanner"
            self.queue_result.put(True)


@contextmanager
def running(folder):
    """A hub of this test alone, and the program; the hub's port for pages is ``hub._web_port``."""
    consent = Consent()
    hub = SAMPHubServer(addr="127.0.0.1", web_port=0, lockfile=str(folder / "lock"), web_profile_dialog=consent)
    hub.start()
    Thread(target=consent.watch, daemon=True).start()
    try:
        program = Program(hub)
        try:
            yield hub, program
        finally:
            program.client.disconnect()
    finally:
        consent.queue_request.put(None)
        hub.stop()
