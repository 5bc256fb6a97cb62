"""Nothing in the package makes code or objects of data: no pickle, no eval, nothing that does it for them."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "diffusion_engine"
# The one file that calls torch.load, with weights_only and in a process that can do little else.
LOADS = {"adapters/convert/loaded.py": ["torch.load"]}
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
            if (name := dotted(node.func)) in CALLS and not safe(name, node):
                yield name
            yield from (
                "shell=True"
                for k in node.keywords
                if k.arg == "shell" and ast.unparse(k.value) != "False"
            )


def dotted(node):
    """torch.load of its node; nothing of other nodes."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def safe(name, call):
    """np.load without pickle."""
    said = {k.arg: ast.unparse(k.value) for k in call.keywords}
    return name.endswith(".load") and name != "torch.load" and said.get("allow_pickle") == "False"


def test_the_package_makes_no_code_of_data():
    used = {
        file.relative_to(PACKAGE).as_posix(): sorted(set(found(file.read_text())))
        for file in sorted(PACKAGE.rglob("*.py"))
    }
    assert len(used) > 300
    assert {file: names for file, names in used.items() if names} == LOADS


def test_the_one_load_takes_weights_only():
    """Said in the call itself, as a constant, so that no setting of torch's changes it."""
    calls = [
        node
        for file in LOADS
        for node in ast.walk(ast.parse((PACKAGE / file).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    said = [{k.arg: ast.unparse(k.value) for k in call.keywords} for call in calls]
    assert [each["weights_only"] for each in said] == ["True"]


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
