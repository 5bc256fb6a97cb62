"""The commands of a cluster as processes of their own, and what takes long: minutes in all."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import ray_cases
from optional import needs
from pages import commands
from pages.blocks import Page

needs("ray.serve")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COMMAND = [sys.executable, "-m", "diffusion_engine.cli", "ray"]
ASKED = {"model": "tiny", "spec": {"solver": "ddim", "steps": 30}, "condition": [1]}
NPZ = {"accept": "application/x-npz"}


@pytest.fixture
def environment():
    return os.environ | ray_cases.SETTINGS


def test_generate_makes_and_goes_on(environment, tmp_path):
    out = tmp_path / "out"
    words = [*COMMAND, "generate", "--table", "0-29", "--out", str(out), "--steps", "4", "--json"]
    words += ["--model", "ray_cases:tiny", "--samples-per-shard", "8", "--cpus", "0.5"]
    for _ in range(2):
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["shards"] == 4
        manifest = (out / "manifest.json").read_text()
        (out / "000000000008-000000000015.safetensors").write_bytes(b"")
    done = subprocess.run(
        [*words, "--steps", "5"], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 2 and "of another recipe: its spec is" in done.stderr
    assert (out / "manifest.json").read_text() == manifest


def test_the_page(environment, tmp_path):
    page = Page.at(ray_cases.ROOT / "docs" / "scaling.md")
    code = {block.marker: block.code.replace("999", "19") for block in page.blocks}
    for marker in ("ray table", "ray serve"):  # of a cluster, and without an end
        commands.check(code[marker].split(), page)
    words = [*COMMAND[:3], *code["ray generate"].split()[1:]]
    how = {"env": environment, "cwd": tmp_path, "timeout": 240}
    subprocess.run(words, **how, check=True)
    made = json.loads((tmp_path / "samples" / "manifest.json").read_text())
    # The same, in Python: the folder is not refused.
    program = code["ray python"].replace("1000", "20")
    subprocess.run([sys.executable, "-c", program], **how, check=True)
    assert json.loads((tmp_path / "samples" / "manifest.json").read_text()) == made


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@pytest.fixture
def server(environment):
    """Starts the command serve, and gives its process and address."""
    started = []

    def start(*more):
        port = free_port()
        words = [
            *COMMAND,
            "serve",
            "--model",
            "tiny=ray_cases:slow",
            "--port",
            str(port),
            "--cpus",
            "0.2",
        ]
        process = subprocess.Popen(
            [*words, *more], env=environment, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("serving tiny at ") for line in lines)
        return process, f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(90)


def test_what_was_accepted_is_answered_after_sigterm(server):
    process, address = server("--replicas", "2")
    answers = []

    def ask(seed):
        asked = ASKED | {"seeds": [seed]}
        answers.append(httpx.post(f"{address}/v1/samples", json=asked, headers=NPZ, timeout=60))

    threads = [threading.Thread(target=ask, args=[seed]) for seed in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.8)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert process.wait(90) == 0
    assert [answer.status_code for answer in answers] == [200] * 8


def test_waiting_work_brings_replicas(server):
    _, address = server("--replicas", "1", "--most", "2", "--seconds", "1")
    names, ended, until = set(), threading.Event(), time.monotonic() + 240

    def ask():
        while not ended.is_set():
            asked = ASKED | {"seeds": list(range(16)), "condition": [1] * 16}
            httpx.post(f"{address}/v1/samples", json=asked, headers=NPZ, timeout=60)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(12)]
    for thread in threads:
        thread.start()
    try:
        while len(names) < 2 and time.monotonic() < until:
            text = httpx.get(f"{address}/metrics", timeout=20).text
            names |= {line for line in text.splitlines() if "start_time" in line and line[0] != "#"}
            time.sleep(0.2)
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
    assert len(names) == 2
