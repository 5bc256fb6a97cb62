"""The server that a page starts, and the commands that speak to it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .checked import Refused, Words

if TYPE_CHECKING:
    from .runs import Run

WRITTEN = "127.0.0.1:8000"  # where pages say that it is
START = 120.0  # seconds


class Server:
    """A server on a free port, started by the words of a page, until the page ends.

    address  where it is
    """

    def __init__(self, words: Words, folder: Path) -> None:
        command = [sys.executable, "-m", "diffusion_engine.cli", *words, "--port", "0", "--json"]
        self._log = (folder / ".server.log").open("w+")
        self._child = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._log.seek(0)
            raise Refused(f"the server did not start: {self._log.read()}")
        self.address = re.sub(r"^https?://|/$", "", json.loads(line)["address"])

    def close(self) -> None:
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(START)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._log.close()


def curl(words: Words, run: Run) -> tuple[int, str, str]:
    """Runs it, where it is installed."""
    if shutil.which("curl") is None:
        return 0, "", ""
    done = subprocess.run(
        ["curl", "--fail", *words], cwd=run.folder, capture_output=True, text=True, timeout=START
    )
    return done.returncode, done.stdout, done.stderr
