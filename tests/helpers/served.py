"""A server as its users start it: a process of its own, ended with all that it left, whatever a test does."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from diffusion_engine import Client

ROOT = Path(__file__).parents[2]
START = 120.0  # seconds; torch is loaded twice on a busy machine
AGAIN = (
    30.0  # seconds until a server whose worker is gone takes requests again; 10 on a quiet machine
)
PREFIX = "diffusion_engine_"  # of metrics
MARK = "SERVED_BY_TEST"  # in the environment of every process that a server starts


class Served:
    """A server that runs.

    process  of the parent; folder: of its sockets and temporary files; mark: of its processes
    flags    of the command
    full     whether nothing can be written: no file grows, and what it says goes to a full device
    """

    def __init__(self, folder, flags, environment=None, full=False):
        self.folder, self.mark = Path(folder), secrets.token_hex(8)
        self.run, self.temporary = self.folder / "run", self.folder / "temporary"
        for made in (self.run, self.temporary):
            made.mkdir(parents=True, exist_ok=True)
        self.ready_file, self.log = self.folder / "ready.json", self.folder / "log"
        more = dict(environment or {})
        given = (more.pop("PYTHONPATH", ""), os.environ.get("PYTHONPATH", ""))
        paths = [*filter(None, given), str(ROOT), str(ROOT / "tests" / "helpers")]
        self.environment = os.environ | {
            MARK: self.mark, "PYTHONPATH": ":".join(paths), "TMPDIR": str(self.temporary),
            "XDG_RUNTIME_DIR": str(self.run), "DIFFUSION_ENGINE_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
        } | more  # fmt: skip
        self.flags, self.full = list(map(str, flags)), full
        self.process = None

    def start(self):
        words = [sys.executable, "-m", "diffusion_engine.cli", "serve", *self.flags]
        if self.full:
            words = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *words]
        elif "--ready-file" not in words:
            words += ["--ready-file", str(self.ready_file)]
        with open("/dev/full" if self.full else self.log, "ab") as said:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=self.environment,
                start_new_session=True, cwd=self.folder,
            )  # fmt: skip

    @property
    def pid(self):
        return self.process.pid

    def said(self):
        return "nothing" if self.full else self.log.read_text(errors="replace")

    def wait_started(self, seconds=START):
        """Until it takes requests: how long that took."""

        def there():
            assert self.process.poll() is None, self.said()
            return self.ready_file.exists()

        return until(there, seconds, self.said)

    @property
    def address(self):
        return json.loads(self.ready_file.read_text())["address"]

    @property
    def place(self):
        """Where a client finds it."""
        if "--uds" in self.flags:
            return {"uds": self.flags[self.flags.index("--uds") + 1]}
        return {"base_url": self.address}

    def client(self, kind=Client, **how):
        return kind(**self.place, **how)

    def wait_ready(self, seconds=AGAIN):
        """Until it takes requests again: how long that took."""
        with self.client(retries=0) as client:
            return until(client.ready, seconds, self.said)

    def wait_unready(self, seconds=AGAIN):
        with self.client(retries=0) as client:
            return until(lambda: not client.ready(), seconds, self.said)

    def counts(self):
        """Its metrics without labels, by name without the prefix, and those of several workers summed."""
        with self.client(timeout=60) as client:
            text = client._http.get("/metrics").text
        found = {}
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith(PREFIX):
                name = name.removeprefix(PREFIX).partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
        return found

    def idle(self):
        """Whether no request waits or runs and no seat is taken."""
        found = self.counts()
        kinds = "requests_waiting", "requests_running", "seats_occupied"
        return not any(found.get(kind, 0.0) for kind in kinds)

    def wait_idle(self, seconds=AGAIN):
        return until(self.idle, seconds, self.said)

    def processes(self):
        """The pids of all that bear its mark and still run."""
        return [pid for pid in pids() if self.mark in environ(pid) and state(pid) not in "ZX"]

    def workers(self):
        """The pids of its workers."""
        return [pid for pid in self.processes() if b"workers.worker" in command(pid)]

    def signal(self, number, whom):
        """Sends a signal to the worker, the parent, or the tree: a terminal's or an init's way."""
        whole = {"worker": self.workers, "parent": lambda: [self.pid], "tree": self.processes}[
            whom
        ]()
        assert whole
        for pid in whole:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return whole

    def resume(self, pid):
        os.kill(pid, signal.SIGCONT)

    def wait_ended(self, seconds=60.0):
        """Its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it runs on after {seconds} s:\n{self.said()}") from None

    def check_nothing_left(self, seconds=20.0):
        """No process, and no file or socket where temporary ones go."""
        until(
            lambda: not self.processes(),
            seconds,
            lambda: f"{self.processes()} run on\n{self.said()}",
        )
        assert self.left() == [], self.said()

    def left(self):
        """Files and sockets."""
        found = [path for folder in (self.run, self.temporary) for path in folder.rglob("*")]
        return [str(path) for path in found if not path.is_dir()]

    def end(self):
        """Whatever it does: nothing of it runs on."""
        if self.process is None:
            return
        for _ in range(200):
            if not (running := self.processes()):
                break
            for pid in running:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self.process.wait(30)


@contextmanager
def serving(folder, *flags, start=True, **how):
    """A server of `--port 0` with these flags, that takes requests."""
    place = () if {"--uds", "--port"} & set(map(str, flags)) else ("--port", "0")
    server = Served(folder, [*place, *flags], **how)
    try:
        if start:
            server.start()
            server.wait_started()
        yield server
    finally:
        server.end()


def until(condition, seconds, said=lambda: ""):
    """Waits for what nobody announces: for how long."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds} s: {said()[-4000:]}")
        time.sleep(0.02)
    return time.monotonic() - began


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _read(pid, name):
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended, or is another's
        return b""


def environ(pid):
    return _read(pid, "environ").decode(errors="replace")


def command(pid):
    return _read(pid, "cmdline")


def state(pid):
    """R, S, T stopped, Z zombie; X of one that is gone."""
    return (
        _read(pid, "stat").rpartition(b")")[2].split(b" ")[1:2][0].decode()
        if _read(pid, "stat")
        else "X"
    )


def resident(pid):
    """Bytes in memory."""
    return int((_read(pid, "statm") or b"0 0").split()[1]) * os.sysconf("SC_PAGE_SIZE")
