"""Tables, shards and what an actor does with one, without a cluster."""

import json
import subprocess
import sys

import numpy as np
import pytest
import ray_cases
from optional import needs

from diffusion_engine.backends import machine
from diffusion_engine.ray import cluster, generate, shards, table
from diffusion_engine.sampler.spec import Spec

needs("ray.data")
pa, parquet = needs("pyarrow"), needs("pyarrow.parquet")
TOP = 2**64 - 1
JOB = {
    "model": "ray_cases:tiny", "weights": generate.weights_sum(ray_cases.tiny()), "capacity": 4,
    "spec": Spec.model_validate({"solver": "ddim", "steps": 2}).model_dump(mode="json"),
    "executor": "eager", "threads": 1, "device": "cpu", "dtype": None,
}  # fmt: skip


def rows_of(*index, condition=0):
    column = np.asarray(index, np.int64)
    return table.Table(column, column.astype(np.uint64), np.full_like(column, condition))


def made(tmp_path, rows, **job):
    said = generate.Maker(JOB | job, str(tmp_path))({"name": "it"} | rows.signed())
    return said, tmp_path / "it.safetensors"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_is_read_and_put_in_order(form, tmp_path):
    path = tmp_path / f"t.{form}"
    columns = {"condition": [3, 1, 2], "index": [7, 0, 4], "seed": [TOP, 5, 5]}
    if form == "csv":
        lines = zip(*columns.values(), strict=True)
        path.write_text("\n".join(",".join(map(str, line)) for line in (list(columns), *lines)))
    else:
        kinds = {"condition": pa.int32(), "index": pa.int64(), "seed": pa.uint64()}
        parquet.write_table(pa.table({n: pa.array(c, kinds[n]) for n, c in columns.items()}), path)
    found = table.read(path)
    assert found.index.tolist() == [0, 4, 7] and found.seed.tolist() == [5, 5, TOP]
    assert found.condition.tolist() == [1, 2, 3]
    cut = dict(found.shards(4))
    assert list(cut) == ["000000000000-000000000003", "000000000004-000000000007"]
    back = table.Table.of_signed(cut["000000000004-000000000007"].signed())
    assert back.seed.tolist() == [5, TOP] and back.digest() != found.digest()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("index\n1", "no column 'seed'"),
        ("index,seed,x\n1,2,3", "a column 'x' means nothing"),
        ("index,seed\n", "it has no rows"),
        ("index,seed\n-1,2", "index=-1"),
        ("index,seed\n1,2\n1,3", "index=1 stands in two rows"),
        ("index,seed\n1,-2", "-2"),
        ("index,seed\n1,18446744073709551616", "18446744073709551616"),
        ("index,seed\n1,", "seed is empty"),
        ("index,seed\n1.5,2", "1.5"),
        ("index,seed\n1,2,3", "columns"),
    ],
)
def test_a_table_that_is_wrong_is_refused(text, said, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        table.read(path)
    assert str(path) in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ending in \.csv or \.parquet"):
        table.read(tmp_path / "t.json")


def test_a_shard_says_whether_it_is_whole(tmp_path):
    rows = rows_of(4, 5, 7)
    said, path = made(tmp_path, rows)
    whole = path.read_bytes()
    assert said["error"] == "" and not said["kept"] and shards.objection(path, rows) is None
    assert made(tmp_path, rows)[0]["kept"] and path.read_bytes() == whole
    assert shards.objection(path, rows_of(4, 5, 6)) == "it has other rows"
    assert shards.objection(path, rows_of(4, 5, 7, condition=1)) == "it has other rows"
    for at in (3, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert shards.objection(path, rows) is not None, at
        path.write_bytes(whole[:at])
        assert shards.objection(path, rows) is not None, at
        assert not made(tmp_path, rows)[0]["kept"] and path.read_bytes() == whole
    assert shards.objection(tmp_path / "none", rows) == "it is not there"


def test_a_sample_does_not_depend_on_its_shard(tmp_path):
    """The network has other bits in calls of other sizes."""
    (tmp_path / "b").mkdir()
    _, one = made(tmp_path, rows_of(0, 1, 2, 3, 4))
    _, other = made(tmp_path / "b", rows_of(4))
    a, b = (shards.load(path.read_bytes()) for path in (one, other))
    assert np.array_equal(a["samples"][4], b["samples"][0])


def test_a_sample_that_is_not_finite_is_told_and_not_written(tmp_path):
    broken = {
        "model": "ray_cases:broken",
        "weights": generate.weights_sum(ray_cases.broken()),
    }
    said, path = made(tmp_path, rows_of(1, condition=3), **broken)
    assert "not finite" in said["error"] and not said["stop"] and not path.exists()
    assert made(tmp_path, rows_of(1, condition=2), **broken)[0]["error"] == ""


def test_other_weights_on_a_node_are_told(tmp_path):
    said, path = made(tmp_path, rows_of(1), weights="0" * 64)
    assert "the weights of 'ray_cases:tiny'" in said["error"] and said["stop"]
    assert not path.exists()


FULL = """\
import resource, signal, sys
from pathlib import Path
from diffusion_engine.ray import shards
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    shards.write(Path(sys.argv[1]), bytes(2000))
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "it.safetensors"
    path.write_bytes(b"before")
    words = [sys.executable, "-c", FULL, path]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "File too large\n"
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_disk_that_takes_nothing_is_told(tmp_path):
    said, _ = made(tmp_path / "none", rows_of(1))
    assert said["stop"] and said["error"].startswith("No such file or directory on ")


def test_a_folder_is_one_jobs_and_one_runs(tmp_path):
    out, job = tmp_path / "out", {"model": "a", "steps": 3}
    with shards.opened(out, job):
        with pytest.raises(ValueError, match="another run writes to"), shards.opened(out, job):
            pass
        assert json.loads((out / shards.MANIFEST).read_text())["shards"] is None
    with shards.opened(out, job):
        pass
    with (
        pytest.raises(ValueError, match=r'of another recipe: its model is "a", and here it is "b"'),
        shards.opened(out, job | {"model": "b"}),
    ):
        pass
    (out / shards.MANIFEST).write_text("[]")
    with pytest.raises(ValueError, match=r"is no manifest\.json"), shards.opened(out, job):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds mine\.txt"), shards.opened(tmp_path / "other", {}):
        pass


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "no_such"}, "no_such"),
        ({"model": "ray_cases:STORE"}, "is a int; name a ScoreNetwork, or a function"),
        ({"model": "ray_cases:processes"}, "TypeError"),
        ({"spec": {"solver": "eular"}}, "eular"),
        ({"spec": {"solver": "ddim", "start": 0.5}}, "begins with noise"),
        ({"table": rows_of(1, condition=5)}, "condition=5: the network knows the classes 0 to 4"),
        ({"samples_per_shard": 0}, "at least 1 sample a shard"),
    ],
)
def test_what_is_wrong_is_refused_before_a_folder_is_made(changed, said, tmp_path):
    given = {"model": "ray_cases:tiny", "table": rows_of(1), "spec": {"solver": "ddim"}}
    with pytest.raises(ValueError, match=said):
        generate.generate(**given | {"out": tmp_path / "out"} | changed)
    assert not (tmp_path / "out").exists()


def test_an_old_ray_is_refused(monkeypatch):
    cluster.check_version()
    monkeypatch.setattr(cluster.metadata, "version", lambda name: "2.53.1")
    with pytest.raises(ValueError, match=r"Ray 2\.53\.1 has a known hole .* install 2\.54"):
        cluster.check_version()


def test_all_nodes_compute_in_one_dtype(tmp_path, monkeypatch):
    """What "auto" comes to is settled once, for every node, and a shard's recipe says it."""
    network = ray_cases.tiny()
    for kind, found in {"amx": "bfloat16", "": "float32"}.items():
        monkeypatch.setattr(machine, "bf16", lambda kind=kind: machine.Bf16(kind, 1.0, "a test's"))
        assert generate._dtype(network, "auto", gpus=0.0) == found
        assert generate._dtype(network, "auto", gpus=1.0) is None
    assert generate._dtype(network, None, 0.0) is None
    assert generate._dtype(network, "bfloat16", 0.0) == "bfloat16"
    with pytest.raises(ValueError, match="dtype='half'"):
        generate._dtype(network, "half", 0.0)
    monkeypatch.setattr(machine, "bf16", lambda: machine.Bf16("amx", 1.0, "a test's"))
    for dtype, other in (("bfloat16", "float32"), ("float32", "bfloat16")):
        folder = tmp_path / dtype
        folder.mkdir()
        shard = made(folder, rows_of(0), dtype=dtype)[1].read_bytes()
        assert dtype.encode() in shard and other.encode() not in shard
