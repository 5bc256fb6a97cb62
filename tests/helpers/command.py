"""The command line in this process."""

import sys

from diffusion_engine.cli import app as cli


def run(capsys, *arguments, code=0):
    """Runs the command in this process; returns (stdout, stderr)."""
    argv, sys.argv = sys.argv, ["diffusion-engine", *map(str, arguments)]
    try:
        cli.main()
        exited = 0
    except SystemExit as stop:
        exited = stop.code or 0
    finally:
        sys.argv = argv
    out, err = capsys.readouterr()
    assert exited == code, err
    return out, err
