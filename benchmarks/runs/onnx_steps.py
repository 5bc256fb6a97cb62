"""The time of a step of `from_onnx` beside the call of ONNX Runtime in it: what is spent outside the network.

    python -m benchmarks.runs.onnx_steps

The file has one operation, so that a call takes microseconds and its spread does not hide the rest. A row
is `Batch.step()`: the label and x are in place, the runtime is called, the step is done. The executor "eager"
calls the file as a module of torch's; "onnxruntime" reads and writes the batch's own memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch

from diffusion_engine import Sampler, from_onnx
from diffusion_engine.executors import Capacity, Job
from diffusion_engine.processes import VP

from .. import results, timing
from ..timing import Task

SHAPES = ((1, 1, 28, 28), (1, 4, 64, 64), (16, 1, 28, 28))
EXECUTORS = ("onnxruntime", "eager")
ROWS, ROUNDS = 100, 301


def main() -> None:
    torch.set_num_threads(1)
    made = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for shape in SHAPES:
            made += compared(shape, Path(folder) / "it.onnx")
    for row in made:
        print(" ".join(f"{key}={row[key]}" for key in results.ONNX_STEP_KEYS[:7]))
    results.replace(made, results.ONNX_STEPS)


def written(path: Path, shape: tuple[int, ...]) -> None:
    """A file that returns its x; the label is told, as to a network."""
    from onnx import TensorProto, helper

    x, out = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape[1:]])
        for name in ("sample", "out_sample")
    )
    label = helper.make_tensor_value_info("timestep", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["sample"], ["out_sample"])], "it", [x, label], [out]
    )
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    )


def rows(path: Path, samples: int, executor: str) -> Callable[[], None]:
    """A row of DDIM, of a batch that begins again where its samples end."""
    sampler = Sampler(from_onnx(path, VP()), "ddim", ROWS, executor=executor)
    plan = sampler.plan()
    room = Capacity.of(
        sampler.network, [plan], samples, device=torch.device("cpu"), dtype=torch.float32
    )
    batch = sampler.executor.open(sampler.network, room)

    def row() -> None:
        if not batch.live:
            batch.clear()
            for seed in range(samples):
                batch.admit(Job(plan, seed))
            batch.step()  # the row that draws has no call
        batch.step()

    return row


def calls(path: Path, shape: tuple[int, ...]) -> Callable[[], object]:
    """The runtime's call alone, as a user of it writes it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {"sample": torch.randn(shape).numpy(), "timestep": torch.zeros(shape[0]).numpy()}
    return lambda: session.run(["out_sample"], given)


def compared(shape: tuple[int, ...], path: Path) -> list[results.Row]:
    """All in turn, and of each the least, which others on the machine disturb least."""
    written(path, shape)
    tasks = [Task(name, [rows(path, shape[0], name)]) for name in EXECUTORS]
    tasks.append(Task("runtime", [calls(path, shape)]))
    others = timing.Others()
    spent = timing.interleave(tasks, ROUNDS, timing.cpu_clock, warm_up=ROWS)
    runtime, share = spent["runtime"], others.share()
    return [
        results.row(
            torch.device("cpu"),
            results.ONNX_STEP_KEYS,
            executor=name,
            shape=results.dims(shape),
            runtime_us=runtime.least,
            row_us=spent[name].least,
            outside_us=spent[name].least - runtime.least,
            runtime_median_us=runtime.median,
            row_median_us=spent[name].median,
            repeats=ROUNDS,
            others=share,
            onnxruntime=onnxruntime.__version__,
        )
        for name in EXECUTORS
    ]


if __name__ == "__main__":
    main()
