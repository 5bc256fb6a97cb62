"""The command line: what it writes, what it prints, and that bad input exits with 2."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from command import run
from PIL import Image

from diffusion_engine import SOLVERS, Plan, zoo
from diffusion_engine.cli import app as cli
from diffusion_engine.cli import files
from diffusion_engine.sampler.spec import Spec


def test_sample_writes_a_grid_with_its_recipe(capsys, tmp_path):
    out = tmp_path / "x.png"
    run(capsys, "sample", "--out", out, "--steps", 3, "--seeds", "0-19")
    with Image.open(out) as image:
        assert image.size == (10 * 34 + 2, 2 * 34 + 2)  # a column for each digit
        recipe = json.loads(image.text["diffusion_engine"])
    assert recipe["seeds"] == list(range(20))
    assert recipe["condition"] == [i % 10 for i in range(20)]
    assert recipe["solver"]["name"] == "dpmpp_2m"
    again = tmp_path / "y.png"
    run(capsys, "sample", "--out", again, "--recipe", out)
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(Image.open(again)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.png", "y.png"]


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_sample_writes_arrays(capsys, tmp_path, ending):
    out = tmp_path / f"x.{ending}"
    text, _ = run(
        capsys, "sample", "--out", out, "--steps", 2, "--n", 3, "--class", "7", "--json",
        "--solver", "ddim", "--option", "eta=0.5", "--save-plan", tmp_path / "plan.json",
    )  # fmt: skip
    about = json.loads(text)
    assert about["n"] == 3 and about["nfe"] == 2 and about["evaluations"] == 12
    assert about["recipe"]["solver"]["name"] == "ddim"
    assert {"eta": 0.5}.items() <= about["recipe"]["solver"]["options"].items()
    if ending == "npz":
        samples = np.load(out, allow_pickle=False)["samples"]
    else:
        samples = safetensors.numpy.load_file(out)["samples"]
    assert samples.shape == (3, 1, 32, 32) and np.isfinite(samples).all()
    assert files.read_recipe(out) == about["recipe"]
    assert Plan.from_json((tmp_path / "plan.json").read_text()).nfe == 2


def test_solvers_lists_every_solver(capsys):
    text, _ = run(capsys, "solvers")
    rows = json.loads(run(capsys, "solvers", "--json")[0])
    assert len(rows) == len(text.splitlines()) - 1
    heun = {"name": "heun", "order": 2, "asymptotic": 2, "nfe_per_step": 2, "stochastic": False}
    assert any(heun.items() <= row.items() for row in rows)
    order = {line.split()[0]: line[text.index("order") :] for line in text.splitlines()}
    assert order["heun"].startswith("2  ") and order["lms"].startswith("2 (4)  ")


@pytest.mark.parametrize("name", [name for name, rule in SOLVERS.items() if not rule.needs])
def test_every_solver_runs_on_an_exact_network(capsys, tmp_path, name):
    out = tmp_path / "x.npz"
    few = ("--model", "exact", "--solver", name, "--steps", 4, "--n", 3)
    text, _ = run(capsys, "sample", "--out", out, *few, "--json")
    assert json.loads(text)["recipe"]["solver"]["name"] == name
    samples = np.load(out)["samples"]
    assert samples.shape == (3, 1) and np.isfinite(samples).all()
    again = tmp_path / "y.npz"
    run(capsys, "sample", "--out", again, "--model", "exact", "--recipe", out)
    assert np.array_equal(np.load(again)["samples"], samples)


def test_a_network_of_the_users_own(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_networks.py").write_text(
        "from diffusion_engine.testing import cld_mixture\n"
        "def wide(): return cld_mixture(shape=(7,))\n"
        "narrow = cld_mixture()\n"
    )
    for name, size in (("wide", 7), ("narrow", 1)):
        few = ("--model", f"own_networks:{name}", "--solver", "sscs", "--steps", 3, "--n", 2)
        run(capsys, "sample", "--out", "x.npz", *few)
        assert np.load("x.npz")["samples"].shape == (2, size)


def test_sample_begins_with_an_image_and_takes_a_path(capsys, tmp_path):
    first, near, far = (tmp_path / name for name in ("x.npz", "near.npz", "far.npz"))
    few = ("--class", "3-4", "--steps", 12, "--solver", "ddim")
    run(capsys, "sample", "--out", first, "--n", 2, *few)
    for out, start in ((near, 0.1), (far, 0.9)):
        begin = (
            "--x",
            first,
            "--start",
            start,
            "--seeds",
            "7-8",
        )  # the noise of x was that of 0 and 1
        run(capsys, "sample", "--out", out, *begin, *few)
    x, a, b = (np.load(path)["samples"] for path in (first, near, far))
    assert 0 < np.abs(a - x).mean() < 0.5 * np.abs(b - x).mean()
    made = []
    for steps, noise in ((200, "brownian"), (100, "brownian"), (100, None)):
        out = tmp_path / "made.npz"
        few = ("--model", "exact", "--solver", "euler_ancestral", "--steps", steps, "--n", 20)
        run(capsys, "sample", "--out", out, *few, *(("--noise", noise) if noise else ()))
        made.append(np.load(out)["samples"])
    fine, coarse, other = made
    assert np.abs(coarse - fine).mean() < 0.3 * np.abs(other - fine).mean()


def test_encode_leads_back(capsys, tmp_path):
    made, latents, back = (tmp_path / name for name in ("x.npz", "z.safetensors", "y.npz"))
    few = ("--class", "3", "--guidance", 1, "--solver", "ddim", "--steps", 40)
    run(capsys, "sample", "--out", made, "--n", 2, *few, "--end", "t_min")
    text, _ = run(capsys, "encode", made, "--out", latents, "--refine", 3, *few, "--json")
    about = json.loads(text)
    assert about["n"] == 2 and about["recipe"]["encoding"] == 3
    again = ("--x", latents, "--noised", "--end", "t_min")
    run(capsys, "sample", "--out", back, *again, *few)
    assert np.abs(np.load(back)["samples"] - np.load(made)["samples"]).max() < 0.05
    image = tmp_path / "one.png"
    Image.fromarray(np.full((32, 32), 200, np.uint8)).save(image)
    text, _ = run(capsys, "encode", image, "--out", tmp_path / "one.npz", "--steps", 4)
    assert "1 latents, 3 calls each" in text


@pytest.mark.parametrize(
    "source, arguments, message",
    [
        ("missing.png", (), "holds no image"),
        ("wide.png", (), "holds images [1, 32, 40], and the network takes [1, 32, 32]"),
        ("fine.png", ("--out", "z.png"), "latents are no image"),
        ("fine.png", ("--solver", "ddpm"), "adds fresh noise"),
        ("fine.png", ("--guidance", "2"), "guidance needs a condition to guide to"),
    ],
)
def test_bad_encodings(capsys, tmp_path, monkeypatch, source, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name, width in (("wide.png", 40), ("fine.png", 32)):
        Image.fromarray(np.zeros((32, width), np.uint8)).save(name)
    arguments = arguments if "--out" in arguments else (*arguments, "--out", "z.npz")
    _, err = run(capsys, "encode", source, *arguments, code=2)
    assert message in err and err.count("\n") == 1
    assert not (tmp_path / "z.npz").exists() and not (tmp_path / "z.png").exists()


def test_plan_prints_a_table_or_json(capsys):
    text, _ = run(capsys, "plan", "--solver", "unipc", "--steps", 4)
    assert "unipc: 5 rows, 4 calls, 5 slots" in text
    text, _ = run(capsys, "plan", "--solver", "unipc", "--steps", 4, "--json")
    assert len(Plan.from_json(text).rows) == 5


def test_profile_prints_a_table_and_writes_json(capsys, tmp_path):
    out = tmp_path / "perf.json"
    few = ("--steps", 2, "--n", 2, "--runs", 1, "--class", "3-4")
    text, _ = run(capsys, "profile", "--out", out, *few)
    assert "\nnetwork " in text and "\n  convolution " in text and "\ntotal " in text
    saved = json.loads(out.read_text())
    assert saved["rows"] == 3 and saved["recipe"]["condition"] == [3, 4]
    text, _ = run(capsys, "profile", "--out", out, *few, "--solver", "ddim", "--json")
    assert json.loads(text)["recipe"]["solver"]["name"] == "ddim"
    assert text == out.read_text() and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--out", "no/perf.json"), "the folder no does not exist; make it first"),
        (("--out", "."), "is a folder; give a file's name"),
        (("--runs", "0"), "runs=0"),
        (("--n", "0"), "n=0"),
        (("--device", "gpu7"), "device 'gpu7' does not work here"),
    ],
)
def test_bad_profiles_are_one_sentence_and_no_file(
    capsys, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    _, err = run(capsys, "profile", *arguments, code=2)
    assert message in err and "Traceback" not in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_doctor_finds_the_backends_equal(capsys):
    found = json.loads(run(capsys, "doctor", "--json")[0])
    cpp = {"backend": "cpp", "device": "cpu", "ran": True, "ok": True}
    assert cpp.items() <= found["self_test"][0].items()
    chosen = {(row["op"], row["backend"]) for row in found["ops"] if row["chosen"]}
    assert ("step", "cpp") in chosen and ("noise", "cpp") in chosen
    printed = run(capsys, "doctor")[0]
    assert "cpp" in printed
    for name, reason in found["text"].items():
        assert f"text encoder {name}: {reason or 'installed'}\n" in printed


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--solver", "nope"), "unknown solver 'nope'"),
        (("--steps", "0"), "steps=0"),
        (("--model", "cats"), "cats"),
        (("--model", "missing.safetensors"), "does not exist"),
        (("--model", "nowhere:net"), "No module named 'nowhere'"),
        (("--model", "os:nothing"), "has no attribute 'nothing'"),
        (("--model", "os:getcwd"), "is a str; name a ScoreNetwork"),
        (("--x", "missing.npz"), "holds no image"),
        (("--noise", "pink"), "pink"),
        (("--class", "12"), "the network knows classes 0 to 9"),
        (("--class", "cat"), "no list of numbers"),
        (("--seeds", "9-3"), "runs from 9 to 3"),
        (("--seeds", "0-3", "--n", "2"), "n=2 samples and 4 seeds"),
        (("--n", "0"), "n=0"),
        (("--grid", "trailing"), "VP has none"),
        (("--option", "eta"), "name=value"),
        (("--option", "eta=3"), "has no option eta"),
        (("--backend", "cuda"), "cuda"),
        (("--device", "gpu7"), "device 'gpu7' does not work here"),
        (("--recipe", "missing.png"), "holds no recipe"),
    ],
)
def test_bad_input_is_one_sentence_and_no_file(capsys, tmp_path, arguments, message):
    out, err = run(capsys, "sample", "--out", tmp_path / "x.png", *arguments, code=2)
    assert message in err and "Traceback" not in err and err.count("\n") == 1
    assert out == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, message", [("x.gif", "choose a name ending in"), ("no/x.png", "does not exist")]
)
def test_bad_output_name(capsys, tmp_path, name, message):
    _, err = run(capsys, "sample", "--out", tmp_path / name, code=2)
    assert message in err


@pytest.mark.parametrize("damage", ["cut", "header", "nan", "json"])
def test_damaged_model(capsys, tmp_path, damage):
    source = zoo.cards.HERE / "digits.safetensors"
    model = tmp_path / "digits.safetensors"
    content, about = source.read_bytes(), json.loads(source.with_suffix(".json").read_text())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "header":
        content = b"\xff" * 8 + content[8:]
    elif damage == "nan":
        arrays = dict(safetensors.numpy.load(content))
        first = next(iter(arrays))
        arrays[first] = arrays[first] * np.float16(np.nan)
        content = safetensors.numpy.save(arrays)
        about["sha256"] = __import__("hashlib").sha256(content).hexdigest()
    model.write_bytes(content)
    model.with_suffix(".json").write_text("{" if damage == "json" else json.dumps(about))
    _, err = run(capsys, "sample", "--out", tmp_path / "x.png", "--model", model, code=2)
    assert "Traceback" not in err and err.startswith("diffusion-engine: ")
    assert not (tmp_path / "x.png").exists()


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.atomically(tmp_path / "x.png", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_saved_plan_on_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ("--seeds", "3-5", "--steps", 3, "--guidance", 3)
    run(capsys, "sample", "--out", "x.npz", *few, "--save-plan", "p.json")
    planned = ("--plan", "p.json", "--out", "y.npz")
    about = json.loads(run(capsys, "sample", *planned, "--seeds", "3-5", "--json")[0])
    assert about["recipe"]["needs"] == ["plan"] and about["nfe"] == 3
    run(capsys, "sample", "--recipe", "y.npz", "--plan", "p.json", "--out", "z.npz")
    one, *others = (np.load(name)["samples"] for name in ("x.npz", "y.npz", "z.npz"))
    assert all(np.array_equal(one, other) for other in others)
    (tmp_path / "bad.json").write_text("{}")
    for words, message in (
        ((*planned, "--solver", "ddim", "--steps", 3), "--plan says --solver, --steps itself: leave"),
        ((*planned, "--class", "none"), "the plan guides to a condition"),
        (("--plan", "bad.json", "--out", "z.npz"), "bad.json holds no plan of this engine"),
        (("--recipe", "x.npz", *planned), "as they were made: leave out --plan"),
        (("--recipe", "y.npz", "--out", "z.npz"), "the recipe was made with plan; give them again"),
    ):  # fmt: skip
        _, err = run(capsys, "sample", *words, code=2)
        assert message in err and err.count("\n") == 1


def test_commands_ask_what_a_spec_says():
    """Their options' words and a Spec's fields are the same; none of a Spec's is missing in `sample`."""
    own = {p.name: p for p in cli.typer.main.get_command(cli.app).commands["sample"].params}
    left = {"times", "sigmas", "interval", "classifier_scale", "clip", "encoding"}
    assert Spec.model_fields.keys() - own.keys() == left  # which Python alone says
    more = {"solver", "driver", "dtype"}  # one of yours, or auto
    for name in Spec.model_fields.keys() & own.keys() - more:
        assert own[name].help == Spec.model_fields[name].description


def test_the_command_line_settles_openmp_before_torch():
    code = "import sys, diffusion_engine.cli.app; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_light():
    """Importing the package loads neither triton, pydantic nor a compiled module, and starts no CUDA."""
    code = (
        "import sys, torch, diffusion_engine; from diffusion_engine import Sampler; "
        "assert 'pydantic' not in sys.modules; "
        "loaded = [m for m in sys.modules if m.startswith('triton') or m.endswith(('_cpu', '_cuda'))"
        " and m.startswith('diffusion_engine')]; "
        "assert not loaded, loaded; assert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
