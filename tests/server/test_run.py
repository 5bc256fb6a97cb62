"""A server as a process: its start, what it does on signals, and what it leaves."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from server_cases import TIMEOUT
from typer.testing import CliRunner

from diffusion_engine.cli.app import app

HELPER = Path(__file__).parents[1] / "helpers" / "fake_server.py"


class Process:
    def __init__(self, settings, slow=0.0, **environment):
        self.settings = {"port": 0} | settings
        words = [sys.executable, str(HELPER), json.dumps(self.settings, default=str), str(slow)]
        self.running = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        )  # fmt: skip

    def line(self):
        """What it says next."""
        return json.loads(self.running.stdout.readline() or "{}")

    def client(self):
        about = self.line()
        while "address" not in about:
            assert about, self.running.stderr.read()
            about = self.line()
        assert about["pid"] == self.running.pid
        place = about["address"]
        if place.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=place.removeprefix("unix:"))
            return httpx.Client(transport=transport, base_url="http://localhost", timeout=TIMEOUT)
        return httpx.Client(base_url=place, timeout=TIMEOUT)

    def signal(self, number=signal.SIGTERM):
        self.running.send_signal(number)

    def end(self):
        """(exit code, stderr)."""
        _, said = self.running.communicate(timeout=TIMEOUT)
        return self.running.returncode, said


@contextmanager
def process(settings=None, slow=0.0, **environment):
    made = Process(settings or {}, slow, **environment)
    try:
        yield made
    finally:
        made.running.kill()
        made.running.communicate()


def in_thread(function):
    """What it returns, later."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()

    def wait():
        thread.join(TIMEOUT)
        return found[0]

    return wait


def eventually(condition):
    until = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < until, "it never became so"
        time.sleep(0.01)


def running(client):
    return "requests_running 1" in client.get("/metrics").text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_done_and_nothing_more_is_taken(number):
    with process(slow=1.5) as server, server.client() as client:
        answer = in_thread(lambda: client.post("/v1/samples", json={"seed": 5}))
        eventually(lambda: running(client))
        server.signal(number)
        eventually(lambda: client.get("/readyz").status_code == 503)
        refused = client.post("/v1/samples", json={})
        assert refused.status_code == 503 and refused.headers["retry-after"]
        assert client.get("/livez").status_code == 200
        assert answer().json()["seeds"] == [5]
        assert server.end()[0] == 0


def test_what_is_not_done_in_time_is_given_up():
    with process({"drain": 0.3}, slow=60) as server, server.client() as client:
        answer = in_thread(lambda: client.post("/v1/samples", json={}))
        eventually(lambda: running(client))
        server.signal()
        assert answer().status_code == 503
        code, said = server.end()
        assert code == 1 and "1 requests" in said


def test_a_second_signal_does_not_wait():
    with process({"drain": 60.0}, slow=60) as server, server.client() as client:
        in_thread(lambda: client.post("/v1/samples", json={}))
        eventually(lambda: running(client))
        server.signal()
        eventually(lambda: client.get("/readyz").status_code == 503)
        server.signal()
        assert server.end()[0] == 1


def test_it_says_that_it_lives_while_it_loads():
    with process({"port": 0}, SLOW_START="1.5") as server:
        server.line()
        ports = [
            c.split() for c in Path(f"/proc/{server.running.pid}/net/tcp").read_text().splitlines()
        ]
        inodes = {os.readlink(p) for p in Path(f"/proc/{server.running.pid}/fd").iterdir()}
        mine = [c for c in ports[1:] if f"socket:[{c[9]}]" in inodes and c[3] == "0A"]
        port = int(mine[0][1].rpartition(":")[2], 16)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert client.get("/livez").status_code == 200
            assert client.get("/readyz").status_code == 503
            assert client.post("/v1/samples", json={}).status_code == 503
            eventually(lambda: client.get("/readyz").status_code == 200)


def test_a_signal_while_it_loads():
    with process(SLOW_START="60") as server:
        server.line()
        server.signal()
        assert server.end()[0] == 0


def test_a_model_that_does_not_load(tmp_path):
    place = tmp_path / "s"
    with process(
        {"uds": place}, UNABLE="the model 'digits' makes no samples: it is damaged"
    ) as server:
        code, said = server.end()
        assert code == 1 and said == "the model 'digits' makes no samples: it is damaged\n"
        assert not place.exists()


def test_a_server_that_can_serve_no_more_ends_and_says_so():
    with process(LOST="1") as server:
        code, said = server.end()
    assert code == 1 and "no worker starts any more" in said and "Traceback" not in said


def test_a_port_in_use():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with process({"port": other.getsockname()[1]}) as server:
            code, said = server.end()
            assert code == 1 and "cannot be had" in said and said.count("\n") == 1


def test_a_socket_for_one_server(tmp_path):
    place = tmp_path / "s"
    with process({"uds": place}) as server, server.client() as client:
        assert client.get("/readyz").status_code == 200
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        with process({"uds": place}) as second:
            code, said = second.end()
            assert code == 1 and "listens on" in said
        assert client.get("/readyz").status_code == 200
        server.running.kill()
        server.end()
    assert place.exists()
    with process({"uds": place}) as server:
        with server.client() as client:
            assert client.get("/readyz").status_code == 200
        server.signal()
        assert server.end()[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_socket_stays(tmp_path):
    place = tmp_path / "notes"
    place.write_text("mine")
    with process({"uds": place}) as server:
        code, said = server.end()
        assert code == 1 and "is no socket" in said
    assert place.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "give a key"),
        (["--port", "99999"], "port=99999"),
        (["--model", "a:b"], "needs a name"),
        (["--executor", "fast"], "executor='fast'"),
    ],
)
def test_settings_that_are_wrong(words, said):
    done = CliRunner().invoke(app, ["serve", *words])
    assert isinstance(done.exception, ValueError) and said in str(done.exception)


def test_settings_are_printed():
    words = ["serve", "--print-config", "--model", "digits", "--model", "mine=a:b", "--port", "0"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert (
        "port = 0" in done.stdout
        and 'models = { "digits" = "digits", "mine" = "a:b" }' in done.stdout
    )
