"""The code of the pages runs as it stands, and what they name is there."""

import ast
import importlib
import importlib.util
from functools import cache
from pathlib import Path

import pytest
import torch
from optional import needs
from pages import given, names
from pages.blocks import Page, PageError, pages_of
from pages.runs import Run, run

import diffusion_engine
from diffusion_engine import Sampler

ROOT = Path(__file__).parents[2]
PAGES = {page.name: page for page in pages_of(ROOT)}
OPTIONAL = ("diffusers", "transformers")


@cache
def ran(name: str) -> Run:
    """A page after its run."""
    if 'executor="onnxruntime"' in PAGES[name].code:
        needs("onnxruntime"), needs("openvino"), needs("onnxscript")
    for package in OPTIONAL:
        if f"import {package}" in PAGES[name].code or f"from {package}" in PAGES[name].code:
            needs(package)
    if "from_onnx(" in PAGES[name].code:
        needs("onnxruntime"), needs("onnxscript")
    return run(PAGES[name])


def page_of(marker: str) -> str:
    """The one page that has a block after <!-- MARKER -->."""
    found = [name for name, page in PAGES.items() for b in page.blocks if b.marker == marker]
    assert len(found) == 1, f"<!-- {marker} --> has one place, and is on {found or 'no page'}"
    return found[0]


def after(marker: str) -> dict:
    """What the Python of a page knows after its block of that marker."""
    name = page_of(marker)
    return ran(name).after[marker]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_runs_from_top_to_bottom(name):
    ran(name)


@pytest.mark.parametrize("name", PAGES)
def test_what_the_page_names_is_there(name):
    faults = names.faults(PAGES[name])
    assert not faults, "\n".join(faults)


def test_the_front_is_short():
    assert len(PAGES["README.md"].lines) <= 120


# --- a page that is wrong is found, at its line

WRONG = {
    "python\nx = 1\nx.y": ":4: AttributeError",
    "python\ndef f(:": ":3: ",
    "\ntext": "a block of no language",
    "ruby\n1": "a block of ruby",
    "text\n1": "output of no block",
    "python\nprint(1)\n```\n```text\n2": ":6: the block before it prints something else:",
    "bash\nrm -r x": "no test knows the command 'rm'",
    "bash\ncd x\ndiffusion-engine plan | less": ":4: a page's commands have no |",
    "bash\ndiffusion-engine plan --n 3": "diffusion-engine plan has no option --n",
    "bash\ndiffusion-engine plan --solver eular": ":3: exit status 2",
    "bash\ndiffusion-engine plan --steps 2  # fails": ":3: exit status 0",
    "bash\npip install '.[tests]'": "no extra tests",
    "bash\npip install 'torch==2.10.*'": "is outside of torch",
    "bash\npip install numby": "does not depend on numby",
    "bash\npytest tests/test_it.py": "there is no tests/test_it.py",
    "bash\npytest -k unfindable": "finds no test of unfindable",
    "bash\npython -m benchmarks.run --workload W3": "invalid choice: 'W3'",
    "bash\npython -m benchmarks.no": "there is no module",
    "bash\nnsys profile --tracing cuda diffusion-engine plan": "--tracing is not in",
    "bash\nncu --section Sped diffusion-engine plan": "does not take 'Sped'",
    "bash\ntorchrun --nproc 2 -m something sample": "torchrun",
    "bash\nNO_SUCH=1 diffusion-engine plan": "the variable NO_SUCH",
    "bash\nruff format": "'ruff format' is not in .ci/",
    "json\n{": "no json",
    "toml\n[": "no toml",
}


@pytest.fixture
def written(tmp_path):
    """Writes a README of a checkout that has nothing else."""

    def write(text):
        (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
        (tmp_path / "README.md").write_text(text)
        return Page.at(tmp_path / "README.md")

    return write


@pytest.mark.parametrize("block", WRONG)
def test_a_wrong_block_is_found(block, written, monkeypatch):
    for table in ("GIVEN", "SUBSTITUTIONS"):
        monkeypatch.setattr(given, table, {})
    with pytest.raises(PageError, match=r"^README.md:\d+: ") as error:
        run(written(f"A page\n```{block}\n```\n"))
    assert WRONG[block] in str(error.value)


@pytest.mark.parametrize("text", [
    # codespell:ignore-next-line
    "`diffusion_engine/ops/tabel.py`", "`diffusion_engine.testing.Mixtur`", "`diffusion-engine smaple`",
    "`--no-such`", "`Sampler(network, step=3)`", "`sampler.encode(x, refined=3)`", "`DIFFUSION_ENGINE_NVTXS`",
    "`\"dpmpp_4m\"`", "[there](docs/no.md)", "[there](#no-heading)", "x" * 111,
])  # fmt: skip
def test_a_wrong_name_is_found(text, written):
    assert len(names.faults(written(f"# A page\n\n{text}\n"))) == 1


def test_blocks_of_lists_and_notes_and_tabs_are_read(written):
    item = "1. A\n\n   <!-- it -->\n   ```python\n   x = 1\n   ```\n\n"
    note = "!!! note\n    Text.\n\n    ```bash\n    cd x\n    ```\n\n"
    page = written(f'{item}{note}=== "A tab"\n\n    ```json\n    {{}}\n    ```\n')
    found = [(b.language, b.code, b.line, b.marker) for b in page.blocks]
    assert found == [
        ("python", "x = 1\n", 5, "it"), ("bash", "cd x\n", 12, ""), ("json", "{}\n", 18, "")
    ]  # fmt: skip


# --- what the tables of the helpers say is so


def test_what_is_given_belongs_to_a_page():
    tables = (given.GIVEN, given.FILES, given.SUBSTITUTIONS, given.EXAMPLES)
    assert {name for table in tables for name in table} <= PAGES.keys()
    for name, examples in given.EXAMPLES.items():
        assert {code for code in examples if f"`{code}`" not in PAGES[name].text} == set()


def test_names_of_others_are_on_a_page():
    told = " ".join(code for page in PAGES.values() for _, code in names.spans(page))
    assert {word for word in given.OF_OTHERS if word not in told} == set()


@pytest.mark.parametrize("marker", given.ELSEWHERE)
def test_what_runs_elsewhere_has_its_test(marker):
    page_of(marker)
    path, _, test = given.ELSEWHERE[marker].partition("::")
    text = (ROOT / path).read_text()
    assert f"def {test}(" in text and f'"{marker}"' in text


def test_the_project_is_installed_alike_everywhere():
    """The release that is named is the one that is tested: .ci/run takes its command from README."""
    asked = {
        word
        for page in PAGES.values()
        for block in page.blocks
        if block.language == "bash"
        for word in block.code.replace("'", " ").split()
        if word.startswith("torch==")
    }
    assert len(asked) == 1


# --- what the pages claim


def test_the_own_solver_of_the_pages_is_short_and_replays():
    page = PAGES[page_of("own solver")]
    (code,) = (block.code for block in page.blocks if block.marker == "own solver")
    assert len(code.strip().splitlines()) <= 14
    made = after("own solver")
    assert torch.equal(made["again"].samples, made["result"].samples)
    assert made["result"].finite == [True] * 4


def test_the_batch_of_the_pages_keeps_the_bits_of_running_alone():
    """Who joined late and whose outputs were made outside, too."""
    made = after("batch")
    solvers = zip(("dpmpp_2m_sde", "unipc"), (3, 4), strict=True)
    network = made["network"]
    alone = [Sampler(network, name, 8).sample(seeds=[seed]).samples for name, seed in solvers]
    assert torch.equal(made["samples"], torch.cat(alone))
    assert torch.equal(made["own"].read([0]), made["samples"][:1])
    assert made["ended"] == [made["seats"][1]]


@pytest.mark.parametrize("name", PAGES)
def test_what_the_page_imports_is_there(name):
    """Also in blocks that do not run on the page, but for files that import each other."""
    for block in PAGES[name].blocks:
        if block.language != "python" or block.marker in given.LERP:
            continue
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                root = str(node.module).partition(".")[0]
                if root in OPTIONAL:
                    needs(root)
                found = importlib.import_module(str(node.module))
                assert [a.name for a in node.names if not there(found, a.name)] == []


def there(module, name):
    """Whether a module has it, or a file of that name."""
    package = hasattr(module, "__path__")
    return hasattr(module, name) or (
        package and importlib.util.find_spec(f"{module.__name__}.{name}") is not None
    )


def test_what_the_package_exports_is_there():
    listed = diffusion_engine.__all__
    assert len(set(listed)) == len(listed)
    assert [name for name in listed if not hasattr(diffusion_engine, name)] == []
