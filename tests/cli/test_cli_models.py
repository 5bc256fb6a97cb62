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
    assert "  teacher       none\n" in run(capsys, "models", "flow")[0]


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


def test_a_run_is_as_the_card_says_where_nobody_says(capsys, tmp_path):
    card = {
        "architecture": {"name": "unet", "channels": [8, 8, 32], "emb": 8, "inputs": 2, "outputs": 1},
        "process": {"name": "cld"}, "prediction": "mixed_velocity", "shape": [1, 16, 16],
        "classes": list("0123456789"), "null": 10,
        "sampler": {"solver": {"name": "sscs", "options": {}}, "steps": 3, "guidance": 1.5},
    }  # fmt: skip
    own = ("--model", tmp_path / "cld.safetensors")
    zoo.save(own[1], zoo.build(card["architecture"]), card)

    def recipe(command, *words):
        made = json.loads(
            run(capsys, command, *words, *own, "--out", tmp_path / "x.npz", "--json")[0]
        )
        return made["recipe"]

    said = recipe("sample", "--n", 2)
    assert (said["solver"]["name"], said["guidance"]) == ("sscs", [1.5, 1.5])
    assert said["points"] == recipe("sample", "--n", 2, "--solver", "sscs", "--steps", 3)["points"]
    told = recipe("sample", "--n", 2, "--solver", "cld_ode", "--guidance", 1)
    assert (told["solver"]["name"], told["guidance"]) == ("cld_ode", [1.0, 1.0])
    assert len(told["points"]) == len(said["points"])
    assert recipe("sample", "--n", 2, "--class", "none")["guidance"] == [1.0, 1.0]
    made = recipe("encode", tmp_path / "x.npz", "--steps", 2)
    assert made["solver"]["name"] == "cld_ode"
    assert run(capsys, "plan", *own)[0].startswith("sscs: ")
    text, _ = run(capsys, "compare", *own, "--steps", "2", "--fine-steps", 4, "--n", 1)
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["cld_ode", "cld_exp"]
