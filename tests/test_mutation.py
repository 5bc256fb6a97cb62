"""The tests notice what a careless change would break (mutate.py), and the changes are what they say."""

import ast

import mutate
import pytest


@pytest.mark.parametrize("area", mutate.AREAS)
def test_mutants_are_valid_and_differ(area):
    made = mutate.sampled([area], 40, seed=3)
    assert len(made) == 40 and made == mutate.sampled([area], 40, seed=3)
    assert made != mutate.sampled([area], 40, seed=4)
    for mutant in made:
        source = (mutate.ROOT / mutant.file).read_bytes()
        assert ast.dump(ast.parse(mutant.of(source))) != ast.dump(ast.parse(source))


def changed(text):
    source = text.encode()
    places = mutate.Places(source).found
    return {mutate.Mutant("", "", *place).of(source).decode() for place in places}


SAYS = "def f(é: int = 3):\n    'Says.'\n    return f'{é + 1}'"


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("a < b", {"a <= b"}),
        ("a and not b", {"a or not b", "a and b"}),
        ("f(a, b, key=1)", {"f(b, a, key=1)", "f(a, b, key=2)", "pass"}),
        ("self.x = 3", {"pass", "self.x = 4"}),
        ("x = y if z else 0", {"x = y if not (z) else 0", "x = y if z else 1"}),
        ("if a:\n    raise E(1)", {"if not (a):\n    raise E(1)", "if False:\n    raise E(1)"}),
        ("def f(é: int = 2):\n    'Says.'\n    return f'{é + 1}'", {SAYS}),
    ],
)  # fmt: skip
def test_what_is_changed(text, wanted):
    assert changed(text) == wanted


def test_a_mutant_is_killed_where_a_test_fails(tmp_path, monkeypatch):
    (tmp_path / "diffusion_engine").mkdir()
    (tmp_path / "tests").mkdir()
    code, test = tmp_path / "diffusion_engine/toy.py", tmp_path / "tests/test_toy.py"
    code.write_text("def least(a, b):\n    return a if a < b else b\n")
    test.write_text(
        "from diffusion_engine.toy import least\n\ndef test():\n    assert least(1, 2) == 1\n"
    )
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    monkeypatch.setattr(mutate, "AREAS", {"toy": ("toy.py", "toy")})
    found = list(mutate.mutants("toy"))
    by = dict(zip([m.new for m in found], mutate.killers(found, 2), strict=True))
    assert by == {"not (a < b)": "tests/test_toy.py::test", "<=": None}
    assert "a < b" in code.read_text()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_nine_in_ten_are_noticed(capsys):
    with capsys.disabled():
        alive = mutate.main(["--count", "60"])
    assert len(alive) <= 6, "\n".join(map(mutate.said, alive))
