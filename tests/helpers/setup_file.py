"""The checkout, and its setup.py as a module."""

import importlib.util
from pathlib import Path

from optional import needs

ROOT = Path(__file__).parents[2]


def load_setup():
    needs("setuptools")
    spec = importlib.util.spec_from_file_location("de_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup_py = load_setup()
