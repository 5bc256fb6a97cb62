"""A network that a server is given by its name, of which some classes do harm in the middle of a row."""

import ctypes
import os
import resource
import signal
import time

import torch

from diffusion_engine import ScoreNetwork
from diffusion_engine.processes import VP

SHAPE = (1, 8, 8)
# Classes below 10 are harmless; each of these does what its name says.
RAISES, HANGS, SPOILS, HOARDS, DIES, EXITS, BREAKS, SLOW, STICKS = HARM = range(10, 19)
PAUSE = 0.02  # seconds of a call with a slow sample
ROOM = 1 << 30  # bytes that the process may take beyond what it has when the network is made


def elementwise(x, label, y):
    """Every sample's bits are independent of its batch."""
    shape = -1, *[1] * (x.ndim - 1)
    return x * 0.7 + 0.1 * x.abs() - 0.05 * label.view(shape) + 0.01 * y.to(x.dtype).view(shape)


def harmful(x, label, y):
    labels = set(y.tolist())
    if RAISES in labels:
        raise RuntimeError("a secret of the network")
    if BREAKS in labels:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if DIES in labels:
        os.kill(os.getpid(), signal.SIGKILL)
    if EXITS in labels:
        os._exit(0)
    while HANGS in labels:
        time.sleep(1.0)
    while STICKS in labels:  # and no other thread runs
        ctypes.PyDLL(None).sleep(1000)
    if HOARDS in labels:
        held = []
        while True:
            held.append(torch.empty(1 << 26))  # of the process's room, not of the machine's memory
    if SLOW in labels:
        time.sleep(PAUSE)
    out = elementwise(x, label, y)
    out[y == SPOILS] = torch.nan
    return out


def network(run=harmful):
    return ScoreNetwork(
        run, VP(), SHAPE, null=len(HARM) + 10, classes=len(HARM) + 10, name="faulty"
    )


def faulty():
    """For a server: its process may not take all of the machine's memory."""
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, resource.RLIM_INFINITY))
    return network()


def harmless():
    """The same samples, made in the test's own process."""
    return network(elementwise)
