"""A Ray cluster of two nodes on this machine, which leaves nothing behind; and networks for its workers."""

import os
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from diffusion_engine import ScoreNetwork
from diffusion_engine.processes import VP
from diffusion_engine.ray.cluster import DEFAULTS

ROOT = Path(__file__).parents[2]
HEAD, OTHER = "127.0.0.2", "127.0.0.3"  # loopback, and no name of this machine's own address
# A killed node is missed after seconds, and a busy one is not.
SETTINGS = {
    **DEFAULTS,
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "2",
    "OMP_WAIT_POLICY": "passive",
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'helpers'}",  # of the workers
}
STORE = 80 << 20  # bytes, the least that Ray takes


class Tiny(nn.Module):
    """Knows five classes, and gives other bits in calls of other sizes."""

    def __init__(self, seconds=0.0):
        super().__init__()
        made = torch.Generator().manual_seed(7)
        self.mix = nn.Parameter(0.3 * torch.randn(2, 2, generator=made))
        self.classes = nn.Parameter(torch.randn(6, generator=made))
        self.seconds = seconds

    def forward(self, x, label, y):
        time.sleep(self.seconds)
        mixed = torch.einsum("oc,nchw->nohw", self.mix, torch.tanh(x))
        shift = self.classes[y] + 1e-3 * label + 1e-4 * len(x)
        return mixed + shift.view(-1, 1, 1, 1)


def tiny(seconds=0.0):
    return ScoreNetwork(Tiny(seconds), VP(), (2, 3, 3), classes=5, null=5, name="tiny")


def slow():
    return tiny(0.06)


def broken():
    """Has no finite value for class 3."""
    network = tiny()
    with torch.no_grad():
        network.module.classes[3] = float("nan")
    return network


class Nodes:
    """The cluster: `cut` kills the node that is not the head, and `add` starts another in its place."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder, self.other = cluster, folder, None

    def add(self, cpus=1):
        self.other = self.cluster.add_node(
            num_cpus=cpus, object_store_memory=STORE, node_ip_address=OTHER, temp_dir=self.folder
        )

    def cut(self):
        self.cluster.remove_node(self.other, allow_graceful=False)
        self.other = None


@contextmanager
def two_nodes(cpus=1):
    """Ray with a head and another node, each with so many CPUs to give away."""
    import ray
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # the path of a Unix socket is short
    before = {name: os.environ.get(name) for name in SETTINGS}
    os.environ.update(SETTINGS)
    cluster = None
    try:
        head = {"num_cpus": cpus, "include_dashboard": False, "temp_dir": folder}
        head |= {"node_ip_address": HEAD, "object_store_memory": STORE}
        os.makedirs("/tmp/ray", exist_ok=True)  # where it keeps the cluster's address all the same
        cluster = Cluster(initialize_head=True, head_node_args=head)
        nodes = Nodes(cluster, folder)
        nodes.add(cpus)
        ray.init(cluster.address, _node_ip_address=HEAD, log_to_driver=False, logging_level="ERROR")
        yield nodes
    finally:
        ray.shutdown()
        if cluster is not None:
            cluster.shutdown()
        left = gone(folder)
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    assert not left, f"these did not end with the cluster: {left}"


def gone(folder, seconds=20.0):
    """Waits for the processes of a session to end; kills and returns the commands of those that do not."""
    until = time.monotonic() + seconds
    while (left := processes(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return list(left.values())


def processes(folder):
    """Who was started with this folder, other than this process: {pid: command}."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
                around = (entry / "environ").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            if folder.encode() in command + around:
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
