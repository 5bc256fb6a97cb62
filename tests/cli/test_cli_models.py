"""The command `models`: the list, one card, and what it costs."""

import json
import subprocess
import sys

from command import run

from diffusion_engine import zoo
from diffusion_engine.cli import models


def test_the_list_names_every_network(capsys):
    text, _ = run(capsys, "models")
    made = json.loads(run(capsys, "models", "--json")[0])
    assert [one["name"] for one in made] == zoo.names()
    assert [line.split()[0] for line in text.splitlines()] == ["name", *zoo.names()]
    digits = next(one for one in made if one["name"] == "digits")
    assert digits["parameters"] == sum(p.numel() for p in zoo.load("digits").parameters())
    assert digits["bytes"] == 2_163_434
    line = next(line for line in text.splitlines() if line.startswith("digits "))
    assert "1,078,181" in line and "2,163  dpmpp_2m, 20 steps, guidance 2" in line


def test_a_card_is_printed(capsys):
    text, _ = run(capsys, "models", "digits")
    assert text.startswith(f"digits: {zoo.card('digits').about}\n")
    assert "licence CC BY-SA 3.0" in text and "  batch         64\n" in text
    assert json.loads(run(capsys, "models", "digits", "--json")[0])["null"] == 10


def test_a_run_in_words():
    sampler = {
        "solver": {"name": "consistency", "options": {"indices": [0, 22, 39]}}, "steps": 2,
        "guidance": 1.0, "end": "t_min",
    }  # fmt: skip
    assert models.run(sampler) == "consistency, indices=[0, 22, 39], 2 steps, end t_min"
    assert (
        models.run({"solver": "ddim", "steps": 1, "guidance": 2.5}) == "ddim, 1 step, guidance 2.5"
    )
    assert models.run(None) == "a part"


def test_nothing_is_loaded():
    code = (
        "import sys\nfrom diffusion_engine.cli.app import app\nsys.argv[1:] = ['models']\n"
        "try:\n    app()\nexcept SystemExit:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_damaged_header_is_named(capsys, tmp_path):
    (tmp_path / "x.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"[")
    (tmp_path / "x.json").write_text(json.dumps(zoo.config("digits")))
    _, error = run(capsys, "models", tmp_path / "x.safetensors", code=2)
    assert "x.safetensors is not a safetensors file" in error
    _, error = run(capsys, "models", "dgits", code=2)
    assert error.endswith("did you mean digits?\n")
