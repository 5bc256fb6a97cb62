"""The process that serves imports no torch: workers have it."""

import subprocess
import sys

CODE = """
import sys
from diffusion_engine.cli.serve import service_of
from diffusion_engine.server import run
from diffusion_engine.server.app import make_app
from diffusion_engine.server.settings import Settings

settings = Settings(devices=["cpu"])
make_app(service_of(settings), settings)
print(*sys.modules)
"""


def test_the_parent_imports_no_torch():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "triton"}
