"""A process with one contender in one setting, which loads and times what it is asked to: a line of JSON is
a question, and another the answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...agreement import difference
from ...timing import Others, cpu_clock
from .cases import Case, Files
from .contenders import CONTENDERS, Place, Ready

# Names of instruction sets, as torch and as oneDNN, which OpenVINO is built on too, are told them. ONNX
# Runtime listens to nobody, and keeps its newest.
ISAS = {"avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}


class Worker:
    """The other end: the process, which stands still unless it has been asked, so that none of its threads
    takes a core from others."""

    def __init__(
        self, contender: str, threads: int, waiting: str, folder: Path, isa: str = ""
    ) -> None:
        self.contender, self.threads, self.waiting = contender, threads, waiting
        self.objection: str | None = None
        own = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": waiting or "passive"}
        words = ["--part", "worker", "--contender", contender, "--models", str(folder)]
        words += ["--threads", str(threads), "--waiting", waiting]
        if isa:
            words, own = [*words, "--isa", isa], own | ISAS[isa]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.runs.native", *words],
            env=os.environ | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of {self.contender} ended")
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(answer)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def serve(contender: str, threads: int, waiting: str, folder: Path, isa: str = "") -> None:
    """Answers until nobody asks."""
    if isa:
        from diffusion_engine.backends.native import loaded

        loaded("_cpu").set_isa(isa)
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    made: Ready | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "load":
            made = None  # its memory is free before the next is loaded
            place = Place(Files(folder), Case(**asked["case"]), threads, waiting)
            made, answer = load(contender, place)
        else:
            assert made is not None
            answer = timed(made, made.samples if asked["do"] == "run" else made.call, **asked["of"])
        print(json.dumps(answer), file=out, flush=True)


def load(contender: str, place: Place) -> tuple[Ready | None, dict[str, Any]]:
    began = time.perf_counter()
    try:
        made = CONTENDERS[contender].make(place)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        return None, {"objection": f"{type(error).__name__}: {said}"}
    answer = {"first_s": time.perf_counter() - began, "version": made.version}
    exact = place.files.exact(place.case)
    output = torch.as_tensor(made.call())
    answer["call"] = difference(output, exact["call"])
    if "run" in exact:
        answer["run"] = difference(made.samples(), exact["run"])
    return made, answer


def timed(
    made: Ready, what: Callable[[], object], seconds: float, least: int, most: int
) -> dict[str, Any]:
    """The seconds of calls for so long, at most `most`, after one that warms the caches; four times as long
    before there are `least`."""
    made.call()
    others, took = Others(), [cpu_clock(what)]
    while len(took) < most and sum(took) < seconds * (4 if len(took) < least else 1):
        took.append(cpu_clock(what))
    return {"seconds": took, "used": others.seconds()}
