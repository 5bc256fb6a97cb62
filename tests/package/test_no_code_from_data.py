"""Nothing that serves makes code or objects of data: no pickle, no eval, nothing that does it for them."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "diffusion_engine"
FOLDERS = ("workers", "server", "client")
MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "code",
    "multiprocessing",
}  # fmt: skip
CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.save", "numpy.load", "np.load",
    "os.system", "os.popen", "subprocess.getoutput", "jsonpickle.decode", "msgspec.yaml.decode",
}  # fmt: skip


def found(text):
    """What a source uses of them."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if node.module.partition(".")[0] in MODULES:
                yield node.module
            yield from (
                f"{node.module}.{a.name}" for a in node.names if f"{node.module}.{a.name}" in CALLS
            )
        elif isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in CALLS and not safe(name, node):
                yield name
            yield from (
                "shell=True"
                for k in node.keywords
                if k.arg == "shell" and ast.unparse(k.value) != "False"
            )


def safe(name, call):
    """np.load without pickle."""
    said = {k.arg: ast.unparse(k.value) for k in call.keywords}
    return name.endswith(".load") and name != "torch.load" and said.get("allow_pickle") == "False"


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_serves_makes_no_code_of_data(folder):
    files = sorted((PACKAGE / folder).rglob("*.py"))
    assert files
    used = {str(file): sorted(set(found(file.read_text()))) for file in files}
    assert not {file: names for file, names in used.items() if names}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "import torch; torch.load('x')", "eval(text)",
        "from torch import load", "exec(text)", "import yaml", "import marshal", "np.load('x')",
        "np.load('x', allow_pickle=True)", "__import__(name)", "subprocess.run('x', shell=True)",
        "import multiprocessing.connection",
    ],
)  # fmt: skip
def test_each_kind_is_found(line):
    assert list(found(line))


def test_what_is_safe_is_not():
    assert not list(found("np.load(x, allow_pickle=False); json.loads(y); re.compile(z)"))
