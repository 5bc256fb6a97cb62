"""The tree is laid out so that it installs everywhere; the slow tests install it everywhere."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from optional import needs
from setup_file import ROOT, load_setup, setup_py


def readme_command(marker):
    text = (ROOT / "README.md").read_text()
    return re.search(rf"<!-- {marker} -->\n```\w*\n(.*?)\n```", text, re.S)[1]


@pytest.mark.parametrize(("name", "folder"), setup_py.LINKS.items())
def test_a_link_of_the_package_leads_to_its_folder(name, folder):
    link = ROOT / name.replace(".", "/")
    assert link.is_symlink() and not os.path.isabs(os.readlink(link))
    assert link.resolve() == ROOT / folder


def test_kernels_has_no_init():
    # With one, this folder would hide Hugging Face's package `kernels` from processes started here.
    assert not (ROOT / "kernels" / "__init__.py").exists()


def make_package(root, *folders):
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / "module.py").touch()


def test_layout_finds_kernels_through_a_folder(tmp_path):
    make_package(tmp_path, "diffusion_engine/kernels", "diffusion_engine/ops/__pycache__", "tests")
    packages, package_dir = setup_py.package_layout(tmp_path)
    expected = ["diffusion_engine", "diffusion_engine.kernels", "diffusion_engine.ops"]
    assert sorted(packages) == expected
    assert package_dir == {}


def test_layout_maps_what_a_link_that_became_a_file_leads_to(tmp_path):
    make_package(tmp_path, "diffusion_engine/zoo", "kernels", "docs/gallery")
    for name in setup_py.LINKS:
        (tmp_path / name.replace(".", "/")).write_text("where it led to")
    packages, package_dir = setup_py.package_layout(tmp_path)
    assert sorted(packages) == sorted(["diffusion_engine", "diffusion_engine.zoo", *setup_py.LINKS])
    assert package_dir == setup_py.LINKS


def test_every_package_of_the_tree_is_installed():
    packages, _ = setup_py.package_layout(ROOT)
    folders = {path.parent for path in (ROOT / "diffusion_engine").rglob("*.py")}
    folders = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert folders <= set(packages)
    assert "diffusion_engine.kernels" in packages


def test_build_does_not_require_torch():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in build["requires"]}
    assert names == {"setuptools", "pybind11", "ninja"}


def test_every_native_file_reaches_a_build(monkeypatch, tmp_path):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.touch(mode=0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("WITH_CUDA", raising=False)
    modules = setup_py.extensions(ROOT, x86=True)
    assert [module.name for module in modules] == [
        "diffusion_engine._cpu",
        "diffusion_engine._cuda",
    ]
    assert [bool(module.optional) for module in modules] == [False, True]
    reached = {file for module in modules for file in module.sources + module.depends}
    suffixes = {".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".inc", ".inl"}
    files = (path for path in (ROOT / "csrc").rglob("*") if path.suffix in suffixes)
    assert {path.relative_to(ROOT).as_posix() for path in files} <= reached


def test_only_x86_gets_x86_files(tmp_path):
    names = ["a_avx512.cpp", "b_avx2.cpp", "c.cpp"]
    (tmp_path / "csrc" / "cpu").mkdir(parents=True)
    for name in names:
        (tmp_path / "csrc" / "cpu" / name).touch()

    def sources(x86):
        return [Path(file).name for file in setup_py.extensions(tmp_path, x86)[0].sources]

    assert sources(x86=False) == ["c.cpp"]
    assert sources(x86=True) == ["c.cpp", "b_avx2.cpp", "a_avx512.cpp"]  # the order of linking


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_arm_gets_no_flags_of_x86(monkeypatch, machine):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setenv("WITH_CUDA", "0")
    needs("pybind11")
    arm = load_setup()
    (module,) = arm.extensions(ROOT)
    assert not re.search(r" -m|DE_X86", arm.ninja_text(module, "_cpu.so"))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    x86 = load_setup()
    (module,) = x86.extensions(ROOT)
    text = x86.ninja_text(module, "_cpu.so")
    assert " -mavx2" in text and "DE_X86" in text


def test_nothing_is_compiled_elsewhere_than_on_linux(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert setup_py.extensions(ROOT) == []


def test_arch_list():
    assert setup_py.arch_flags("8.0;9.0a+PTX") == (
        "-gencode arch=compute_80,code=sm_80 "
        "-gencode arch=compute_90a,code=sm_90a "
        "-gencode arch=compute_90a,code=compute_90a"
    )
    with pytest.raises(setup_py.OptionError, match=r"'Hopper' is not an architecture. Write"):
        setup_py.arch_flags("8.0 Hopper")


def test_with_cuda_decides(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("WITH_CUDA", "1")
    with pytest.raises(setup_py.OptionError, match="WITH_CUDA=1 needs nvcc"):
        setup_py.find_nvcc()
    (tmp_path / "nvcc").touch(mode=0o755)
    assert setup_py.find_nvcc() == str(tmp_path / "nvcc")
    monkeypatch.setenv("WITH_CUDA", "0")
    assert setup_py.find_nvcc() is None


def test_readme_has_the_commands():
    install = "pip install 'torch==2.13.*' . && diffusion-engine sample --out samples.png"
    assert readme_command("install") == install
    assert readme_command("test") == (
        "pip install 'torch==2.13.*' -e '.[test]' && pytest -n auto --dist loadfile"
    )


# Stands in for `python -m venv FOLDER`: every tool it installs writes down how it was called.
FAKE_PYTHON = """\
#!/bin/sh
mkdir -p "$3/bin"
for tool in pip pytest ruff mypy codespell zensical; do
    cat > "$3/bin/$tool" <<'END'
#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
[ "$(basename "$0")" != "$BROKEN" ]
END
    chmod +x "$3/bin/$tool"
done
"""


@pytest.mark.parametrize("broken", ["", "pip", "pytest", "ruff", "mypy", "codespell", "zensical"])
def test_ci_runs_the_readme_command(tmp_path, broken):
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    calls = tmp_path / "calls"
    env = os.environ | {"PYTHON": str(python), "CALLS": str(calls), "BROKEN": broken}
    done = subprocess.run(
        [ROOT / ".ci" / "run"], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert (done.returncode == 0) == (not broken), done.stderr
    docs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    expected = ["pip install torch==2.13.* -e .[test]"]
    expected += [] if broken == "pip" else ["pytest -n auto --dist loadfile"]
    assert calls.read_text().splitlines() == [
        *expected,
        "ruff check .",
        "ruff format --check .",
        "mypy ",
        f"pip install --quiet {' '.join(docs['docs'])}",
        "codespell ",
        "zensical build --strict",
        "pytest -q tests/package/test_api_page.py tests/package/test_site.py",
    ]


BUILD_PRODUCTS = shutil.ignore_patterns(
    ".*", "build", "dist", "*.egg-info", "*.so", "__pycache__", "shared"
)
PROBE = """\
import importlib.util, json
import diffusion_engine, diffusion_engine._cpu, diffusion_engine.kernels
from diffusion_engine.kernels import packaging_probe
print(json.dumps({
    "package": diffusion_engine.__file__,
    "cuda": importlib.util.find_spec("diffusion_engine._cuda") is not None,
    "kernels": getattr(importlib.util.find_spec("kernels"), "origin", None),
}))
"""


class Venv:
    def __init__(self, folder, path=os.environ["PATH"], **variables):
        self.folder = folder
        ours = ("CUDA_HOME", "MAX_JOBS", "PYTHONPATH", "TORCH_CUDA_ARCH_LIST", "WITH_CUDA")
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        self.env = kept | {"PATH": path} | variables
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.python = folder / "bin" / "python"

    def run(self, *arguments, cwd):
        done = subprocess.run(
            [self.python, *arguments], cwd=cwd, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{arguments}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, *arguments, cwd):
        # --no-deps leaves torch out of the new environment; probe() borrows this one's.
        self.run("-m", "pip", "install", "--no-deps", "--quiet", *arguments, cwd=cwd)

    def probe(self, cwd):
        """Imports the package from `cwd`; the dependencies come from the running environment."""
        (site,) = self.folder.glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return json.loads(self.run("-c", PROBE, cwd=cwd))


@pytest.fixture
def tree(tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=BUILD_PRODUCTS)
    (tree / "kernels" / "packaging_probe.py").touch()
    return tree


def path_without_nvcc():
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(f for f in folders if not os.path.exists(os.path.join(f, "nvcc")))


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


regular_and_editable = pytest.mark.parametrize(
    "how", [["."], ["-e", "."]], ids=["regular", "editable"]
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestRealInstall:
    """Each in its own copy of the tree and its own virtual environment."""

    @regular_and_editable
    def test_from_the_tree(self, tree, elsewhere, tmp_path, how):
        venv = Venv(tmp_path / "venv")
        venv.install(*how, cwd=tree)
        found = venv.probe(elsewhere)
        assert found["cuda"] == (shutil.which("nvcc") is not None)
        assert (Path(found["package"]).parent.parent == tree) == ("-e" in how)
        assert found["kernels"] is None

    def test_without_nvcc(self, tree, elsewhere, tmp_path):
        venv = Venv(tmp_path / "venv", path=path_without_nvcc())
        venv.install(".", cwd=tree)
        assert not venv.probe(elsewhere)["cuda"]

    @regular_and_editable
    def test_with_an_nvcc_that_fails(self, tree, elsewhere, tmp_path, how):
        nvcc = tmp_path / "bin" / "nvcc"
        nvcc.parent.mkdir()
        nvcc.write_text("#!/bin/sh\nexit 1\n")
        nvcc.chmod(0o755)
        venv = Venv(tmp_path / "venv", path=f"{nvcc.parent}{os.pathsep}{os.environ['PATH']}")
        venv.install(*how, cwd=tree)
        assert not venv.probe(elsewhere)["cuda"]

    def test_sdist_then_wheel(self, tree, elsewhere, tmp_path):
        needs("build")
        venv = Venv(tmp_path / "venv", WITH_CUDA="0")
        build = [sys.executable, "-m", "build", "--outdir", tmp_path]
        subprocess.run(build, cwd=tree, env=venv.env, check=True)
        (wheel,) = tmp_path.glob("*.whl")
        names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        package = ROOT / "diffusion_engine"
        data = {package / "py.typed", *(package / "zoo" / "gallery").iterdir()}
        data |= {path for end in ("safetensors", "json") for path in package.rglob(f"*.{end}")}
        data |= {*(package / "server" / "page").iterdir()}
        tree = {*package.rglob("*.py"), *(package / "kernels").glob("*.py"), *data}
        expected = {path.relative_to(ROOT).as_posix() for path in tree}
        (module,) = (name for name in names if name.endswith(".so"))
        assert names == expected | {module, "diffusion_engine/kernels/packaging_probe.py"}
        (sdist,) = tmp_path.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            large = [f.name for f in archive if f.size > 2**20 or f.name.endswith(".so")]
        assert {Path(name).suffix for name in large} == {".safetensors"}
        venv.install(wheel, cwd=tmp_path)
        venv.probe(elsewhere)

    def test_zip_of_the_tree(self, tree, elsewhere, tmp_path):
        link = tree / "diffusion_engine" / "kernels"
        link.unlink()
        link.write_text("../kernels")  # what zip tools without links leave behind
        archive = shutil.make_archive(tmp_path / "tree", "zip", tree)
        shutil.unpack_archive(archive, tmp_path / "unpacked")
        venv = Venv(tmp_path / "venv", WITH_CUDA="0")
        venv.install(".", cwd=tmp_path / "unpacked")
        venv.probe(elsewhere)
        with pytest.raises(AssertionError, match=r"ln -sf ../kernels diffusion_engine/kernels"):
            venv.install("-e", ".", cwd=tmp_path / "unpacked")

    @regular_and_editable
    def test_beside_hugging_face_kernels(self, tree, elsewhere, tmp_path, how):
        venv = Venv(tmp_path / "venv", WITH_CUDA="0")
        build = ["setuptools>=77", "pybind11", "ninja"]
        venv.run("-m", "pip", "install", "--quiet", "kernels", *build, cwd=tmp_path)
        # Without isolation the build runs the hook of `kernels`, which imports it from the tree.
        venv.install("--no-build-isolation", *how, cwd=tree)
        assert "site-packages" in venv.probe(elsewhere)["kernels"]
        assert "site-packages" in venv.run(
            "-c", "import kernels; print(kernels.__file__)", cwd=tree
        )
