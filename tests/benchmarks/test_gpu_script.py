"""benchmarks/gpu.sh with stand-ins for Python and the tools: parts fail alone, and the end is always told."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
TEXT = SCRIPT.read_text()
PARTS = re.search(r"^parts=\((.*)\)$", TEXT, re.MULTILINE)[1].split()

GPU = 'case "$*" in *get_device_capability*) echo 9.0 ;; *"import xdist"*) exit 1 ;;'
NO_GPU = 'case "$*" in *get_device_capability*) echo "no driver" >&2; exit 1 ;;'


@pytest.fixture
def script(tmp_path):
    """Runs it with a `python3` of this text. Returns (exit code, stdout, summary as name -> result)."""

    def run(python, *parts):
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in ("python3", "nvcc", "compute-sanitizer", "ncu"):
            (tools / name).write_text(
                f"#!/bin/bash\n{python}\n" if name == "python3" else "#!/bin/bash\n"
            )
            (tools / name).chmod(0o755)
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "OUT")}
        env["PATH"] = f"{tools}:{env['PATH']}"
        out = tmp_path / "a folder"
        done = subprocess.run(
            ["bash", SCRIPT, out, *parts],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        summary = out / "summary.txt"
        lines = summary.read_text().splitlines() if summary.exists() else []
        found = {name: " ".join(result) for name, *result, _ in map(str.split, lines)}
        return done, found, out

    return run


def test_parts_fail_alone(script):
    python = GPU + ' *"-m pytest"*) echo 2 failed; exit 3 ;; *) echo did it ;; esac'
    done, found, out = script(python)
    assert done.returncode == 1
    failed = {"kernels", "captures", "large", "ops", "graphs", "compiled"}
    results = {name: "failed with exit code 3" if name in failed else "ok" for name in PARTS}
    assert list(found) == PARTS and found == results
    assert (out / "ops.log").read_text() == "2 failed\n"
    assert (out / "summary.txt").read_text() in done.stdout


def test_without_a_gpu_there_is_nothing_to_fail(script):
    done, found, _ = script(NO_GPU + " *) exit 0 ;; esac")
    assert done.returncode == 0
    assert [name for name in PARTS if found[name] == "ok"] == ["machine", "build"]
    assert found["ops"] == found["ncu"] == "skipped: torch sees no GPU: no driver"


def test_a_part_by_name(script):
    done, found, out = script(GPU + ' *) echo "$@" ;; esac', "norms")
    assert done.returncode == 0 and found == {"norms": "ok"}
    assert f"--folder {out}/rows" in (out / "norms.log").read_text()


def test_an_unknown_part(script):
    done, found, _ = script(GPU + " esac", "speed")
    assert done.returncode == 2 and done.stderr.startswith(
        "no part speed; there are: machine build"
    )
    assert not found


def test_the_limits_come_to_twelve_minutes():
    limits = [int(n) for n in re.findall(r"^ *(?:part|tests|bench) \S+ (\d+) ", TEXT, re.MULTILINE)]
    assert len(limits) == len(PARTS) - 1  # one of them is of two parts
    assert sum(limits) + 15 <= 720


def test_every_gpu_test_of_ops_and_graphs_is_run():
    marked = {
        path.name for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text()
    }
    named = set(re.findall(r"tests/\w+/(test_\w+\.py)", TEXT))
    assert marked - named <= {Path(__file__).name}
