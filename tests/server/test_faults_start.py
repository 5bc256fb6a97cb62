"""What is wrong before a server serves, and around it: its models, its socket, the disk, the clock."""

import shutil
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from fault_load import Load, alone
from served import START, serving
from typer.testing import CliRunner

from diffusion_engine import zoo
from diffusion_engine.cli.app import app

FAULTY = ("--model", "faulty=fault_networks:faulty", "--capacity", "4")
SHIPPED = Path(zoo.__file__).parent
CLOCK = """\
import os, time
own = time.time
def jumped():
    with open(os.environ["CLOCK_JUMP"]) as file:
        return own() + float(file.read())
time.time = jumped
"""


def fails(server, said, code=1):
    """It does not start, says why in a sentence, and leaves nothing."""
    server.start()
    assert server.wait_ended() == code
    assert said in server.said() and "Traceback" not in server.said()
    server.check_nothing_left()
    assert not list(server.folder.glob("*ready.json*"))


def damaged(folder, content):
    """A model's file with other bytes."""
    shutil.copy(SHIPPED / "digits.json", folder / "model.json")
    (folder / "model.safetensors").write_bytes(content)
    return f"mine={folder / 'model.safetensors'}"


def weights():
    return (SHIPPED / "digits.safetensors").read_bytes()


def test_a_model_that_is_cut_short(tmp_path):
    model = damaged(tmp_path, weights()[:-100])
    with serving(tmp_path, "--model", "digits", "--model", model, start=False) as server:
        fails(server, "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("content", [
    b"", b"\xff" * 4096, (1 << 62).to_bytes(8, "little") + weights()[8:],
    weights().replace(b'"F16"', b'"I16"', 1),
], ids=["empty", "noise", "header", "dtype"])  # fmt: skip
def test_models_that_are_no_models(tmp_path, content):
    with serving(tmp_path, "--model", damaged(tmp_path, content), start=False) as server:
        fails(server, "model.safetensors")


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        flags = (*FAULTY, "--port", str(other.getsockname()[1]))
        with serving(tmp_path, *flags, start=False) as server:
            fails(
                server,
                "cannot be had (Address already in use); end who has it, or choose by --port",
            )


def test_a_server_that_does_not_start_leaves_the_ready_file_of_another(tmp_path):
    ready = tmp_path / "ready"
    ready.write_text("another's")
    with socket.create_server(("127.0.0.1", 0)) as other:
        flags = ["serve", "--port", str(other.getsockname()[1]), "--ready-file", str(ready)]
        done = CliRunner().invoke(app, flags)
    assert done.exit_code == 1 and "cannot be had" in done.output
    assert ready.read_text() == "another's"


def test_two_servers_on_one_socket(tmp_path):
    """The second is told so, and does not take what the first has; what a killed one left is taken."""
    (tmp_path / "other").mkdir()
    place = tmp_path / "run" / "socket"
    with serving(tmp_path, *FAULTY, "--uds", place) as first:
        with serving(tmp_path / "other", *FAULTY, "--uds", place, start=False) as second:
            fails(second, "a server listens on")
        assert place.stat().st_mode & 0o777 == 0o600
        Load(first, 2, steps=5).check_all_made()
        first.signal(signal.SIGKILL, "parent")
        first.wait_ended()
        assert place.exists()
        first.ready_file.unlink()
        first.start()
        first.wait_started()
        Load(first, 2, steps=5).check_all_made()
        first.signal(signal.SIGTERM, "parent")
        assert first.wait_ended() == 0
        first.check_nothing_left()


def test_a_disk_that_is_full(tmp_path):
    """Neither logs nor choices can be written, and no ready-file was asked for: it serves."""
    place = tmp_path / "run" / "socket"
    flags = (*FAULTY, "--uds", place, "--threads", "measured")
    with serving(tmp_path, *flags, start=False, full=True) as server:
        server.start()
        with server.client(retries=0) as client:
            server.wait_ready(START)
            made = client.sample("ddim", model="faulty", steps=4, seeds=[1, 2], condition=[1, 1])
            assert np.array_equal(made.samples, alone([1, 2], 4, 1))
        server.signal(signal.SIGTERM, "parent")
        server.wait_ended()
        server.check_nothing_left()


def test_a_ready_file_that_cannot_be_written(tmp_path):
    """Who waits for it would wait for ever: the server does not start."""
    with serving(tmp_path, *FAULTY, "--ready-file", "/nowhere/ready", start=False) as server:
        fails(server, "/nowhere/ready cannot be written")


def test_a_clock_that_jumps(tmp_path):
    """Days ahead and back: nothing is late, old or dead for that."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    jump = tmp_path / "jump"
    jump.write_text("0")
    environment = {"CLOCK_JUMP": str(jump), "PYTHONPATH": str(tmp_path)}
    with serving(tmp_path, *FAULTY, environment=environment) as server, server.client() as client:
        workers, load = server.workers(), Load(server, 4, steps=60)
        kept = client.submit("ddim", model="faulty", steps=3, seed=1, condition=1, deadline=60.0)
        kept.result(60)
        for seconds in (1e6, -1e6, 0):
            jump.write_text(str(seconds))
            time.sleep(0.3)
            created = client.submit("ddim", model="faulty", condition=1).about()["created"]
            assert abs(created - seconds - time.time()) < 100
            assert client.ready() and kept.result(5).samples.shape[0] == 1
        load.check_all_made()
        assert server.workers() == workers
        server.wait_idle()
