"""The tool that mutates the package, and that of its mutants nine in ten die."""

import subprocess
import sys

import pytest
from mutants import Mutant, mutants
from mutate import EQUIVALENT, PACKAGE, ROOT, files, first_failure, outcomes, sample
from mutate import tests_of as the_tests_of

# A line, and what the rules make of it.
RULES = {
    "a < b <= c": ["a <= b <= c", "a < b < c"],
    "(a) is not b": ["(a) is b"],
    "a and b or c": ["a or b or c", "a and b and c"],
    "not (a or b)": ["(a or b)", "not (a and b)"],
    "-a ** 2": ["a ** 2", "-a * 2", "-a ** 3", "-a ** 1"],
    "a + 1.0": ["a - 1.0", "a + 2.0", "a + 0.0"],
    "[a for a in b if a]": ["[a for a in b if True]"],
    "b if a else c": ["b if False else c", "b if True else c"],
    "f(a, b, *c)": ["f(b, a, *c)", "pass"],
    "f(a, k=b, l=c)": ["f(a, l=c)", "f(a, k=b)", "pass"],
    "f(k=max(a, b))": ["f()", "f(k=min(a, b))", "pass"],
    "x = a.clone()": ["x = a"],
    "def f(a=True): return a": ["def f(a=False): return a"],
    "def f(a): return a; b = 1": ["def f(a): return b; b = 1", "def f(a): return a; b = 2",
                                  "def f(a): return a; b = 0"],
    "def f(a): a = b; a += c": ["def f(a): pass; a += c", "def f(a): a = b; pass", "def f(a): a = b; a -= c"],
    "def f(a): a.b = c; d = a": ["def f(a): pass; d = a"],
    "if a: raise E(f'{b + 1}', 2)": ["if False: raise E(f'{b + 1}', 2)"],
    "if a: b": ["if False: b", "if True: b"],
    "assert a == 1, a + 1": [],
    "return zip(a, *b, strict=True)": [],
    "'A docstring of 1 < 2'": [],
    "@cached(2)\ndef f(a: int | None) -> 3: return a": [],
    "__all__ = f(a, b)": [],
    "Scale = float | tuple": [],
    "if TYPE_CHECKING: f(1)": [],
    "def __repr__(self): return 1": [],
}  # fmt: skip


@pytest.mark.parametrize("line", RULES)
def test_rules(line):
    made = [mutant.mutated for mutant in mutants("x.py", line) if mutant.sound]
    assert sorted(" ".join(text.split()) for text in made) == sorted(RULES[line])


def test_a_seed_draws_sound_mutants_of_lines_of_their_own():
    paths = files("executors/l")
    drawn = sample(paths, 3, 12)
    assert drawn == sample(paths, 3, 12) != sample(paths, 4, 12)
    assert all(mutant.sound for mutant in drawn)
    assert len({(mutant.path, mutant.line) for mutant in drawn}) == len(drawn) == 12
    assert {mutant.path for mutant in drawn} == set(paths)


def test_every_file_has_tests_that_exist():
    for path in files():
        assert (ROOT / PACKAGE / path).is_file()
        for test in the_tests_of(path):
            assert (ROOT / test).is_file()


def test_what_is_said_of_equivalent_mutants_is_said_of_mutants():
    made = {}
    for path, line in EQUIVALENT:
        text = (ROOT / PACKAGE / path).read_text()
        made.setdefault(path, {mutant.change[1] for mutant in mutants(path, text)})
        assert line in made[path], f"{path} has no mutant {line!r}"


TOY = "def larger(a, b):\n    return b if a < b else a\n"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setenv(
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"
    )  # they are imported longer than a toy runs
    package = tmp_path / PACKAGE
    package.mkdir()
    (package / "toy.py").write_text(TOY)
    (tmp_path / "test_toy.py").write_text(
        f"from {PACKAGE}.toy import larger\n\ndef test_larger():\n    assert larger(1, 2) == 2\n"
    )
    return tmp_path


def change(old, new):
    start = TOY.index(old)
    return Mutant("toy.py", TOY, (start, start + len(old), new))


def test_a_mutant_dies_of_a_test_or_lives(toy):
    made = [change("a < b", "False"), change("<", "<=")]
    found = outcomes(made, toy, lambda path: ["test_toy.py"])
    assert [killer for _, killer in found] == ["test_toy.py::test_larger", None]
    assert (toy / PACKAGE / "toy.py").read_text() == TOY


def test_a_hang_ends(toy):
    (toy / "test_toy.py").write_text("while True: pass\n")
    assert first_failure(toy, ["test_toy.py"], 1) == "more than 1 s"


def test_tests_that_fail_by_themselves_are_told(toy):
    (toy / "test_toy.py").write_text("def test_one():\n    assert 1 == 2\n")
    with pytest.raises(RuntimeError, match=r"test_toy.py::test_one fails without a mutant"):
        list(outcomes([change("<", "<=")], toy, lambda path: ["test_toy.py"]))


def test_list():
    said = subprocess.run(
        [sys.executable, ROOT / "tests/helpers/mutate.py", "--list", "--count", "3",
         "--module", "plan/plan.py"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said.count("\n") == 3 and all(
        line.startswith("plan/plan.py:") for line in said.splitlines()
    )


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_nine_in_ten_die():
    lives = [str(mutant) for mutant, killer in outcomes(sample(files(), 1, 60)) if killer is None]
    assert len(lives) <= 6, "\n".join(lives)
