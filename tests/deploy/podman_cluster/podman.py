"""The program podman, with a storage, a network and control groups of its own.

Comes in: folder of images that others have built. Goes out: what podman prints. What it refuses raises ``PodmanError`` with its
words.
"""

import json
import shutil
import subprocess
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
#: Control groups that podman understands, seen by the processes of one mount namespace only.
ROOM = 'umount -R "$0" && mount -t cgroup2 none "$0" && echo ready && exec cat'
#: No limits: they need control groups that may be written to.
CONTAINERS = """
[containers]
cgroups = "disabled"
pids_limit = 0
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
[storage.options]
additionalimagestores = ["{images}"]
"""


class PodmanError(Exception):
    """Podman did not do what it was asked to."""


class Podman:
    """One storage and one network of pods; ``close`` takes all of it away."""

    def __init__(self, folder, images):
        self.folder = folder
        self.network = f"play{folder.stat().st_ino % 100_000}"
        self._room = None
        (folder / "containers.conf").write_text(CONTAINERS)
        (folder / "storage.conf").write_text(STORAGE.format(folder=folder, images=images))
        (folder / "networks").mkdir()
        if not (CONTROL_GROUPS / "cgroup.controllers").exists():
            self._room = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", ROOM, CONTROL_GROUPS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            if self._room.stdout.readline() != "ready\n":
                raise PodmanError("control groups of the second version cannot be mounted here")
        self.call("network", "create", self.network)
        self.gateway = json.loads(self.call("network", "inspect", self.network))[0]["subnets"][0]["gateway"]

    def command(self, *words):
        """What to run for ``podman WORDS``."""
        room = [] if self._room is None else ["nsenter", f"--mount=/proc/{self._room.pid}/ns/mnt"]
        settings = [f"CONTAINERS_CONF={self.folder}/containers.conf", f"CONTAINERS_STORAGE_CONF={self.folder}/storage.conf"]
        return [*room, "env", *settings, "podman", f"--network-config-dir={self.folder}/networks", *map(str, words)]

    def call(self, *words, check=True, timeout=120):
        """What ``podman WORDS`` prints on standard output."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False, timeout=timeout)
        if done.returncode and check:
            raise PodmanError(f"podman {' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout

    def inspect(self, name):
        """All that podman knows of a container."""
        return json.loads(self.call("container", "inspect", name))[0]

    def play(self, *manifests):
        """Make the pod that is among some manifests, and do not start it."""
        words = self.command("kube", "play", "--start=false", "--network", self.network, "-")
        # JSON is YAML.
        text = "\n---\n".join(map(json.dumps, manifests))
        done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PodmanError(f"podman kube play: {done.stderr}{text}")

    def start_network(self, pod):
        """Start the network of a pod, and nothing else of it; its address, and a process in it."""
        found = json.loads(self.call("pod", "inspect", pod))
        container = (found[0] if isinstance(found, list) else found)["InfraContainerID"]
        self.call("start", container)
        known = self.inspect(container)
        return known["NetworkSettings"]["Networks"][self.network]["IPAddress"], known["State"]["Pid"]

    def with_aliases(self, names):
        """The network, for a pod that is found under these names."""
        return ":".join([self.network, ",".join(f"alias={name}" for name in names)])

    def close(self):
        """Take away pods, volumes, network and storage."""
        self.call("pod", "rm", "--all", "--force", "--time=0", check=False)
        self.call("network", "rm", "--force", self.network, check=False)
        if self._room is not None:
            # Without its input it ends.
            self._room.communicate()
        shutil.rmtree(self.folder / "storage", ignore_errors=True)
