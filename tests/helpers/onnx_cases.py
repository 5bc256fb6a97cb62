"""ONNX files made by hand: out = x / 2 + label, plus the sums of each entry of all other inputs."""

import numpy as np
from optional import needs

FLOAT, INT32, INT64, HALF, DOUBLE = 1, 6, 7, 10, 11


def port(name, shape, dtype=FLOAT):
    return needs("onnx").helper.make_tensor_value_info(name, dtype, shape)


def model(ports, x="sample", label="timestep", outputs=("out",), constants=()):
    """All outputs are the same but for their names and a factor, 1, 2, ...

    ports  of the inputs
    """
    helper = needs("onnx").helper
    one = next(p for p in ports if p.name == x)
    dtype = one.type.tensor_type.elem_type
    rank = len(one.type.tensor_type.shape.dim)
    kept = [
        helper.make_tensor("half", dtype, [], [0.5]),
        helper.make_tensor("wide", INT64, [rank], [-1] + [1] * (rank - 1)),
        helper.make_tensor("flat", INT64, [2], [-1, 0]),
        *(helper.make_tensor(f"f{i}", dtype, [], [i + 1.0]) for i in range(len(outputs))),
        *constants,
    ]
    nodes, total = [helper.make_node("Mul", [x, "half"], ["sum0"])], 0

    def add(node, given, extra=(), **said):
        made = f"{given}.{node}"
        nodes.append(helper.make_node(node, [given, *extra], [made], **said))
        return made

    for p in ports:
        if p.name == x:
            continue
        held = add("Cast", p.name, to=dtype)
        if p.name != label and p.type.tensor_type.shape.dim:
            held = add("ReduceSum", add("Flatten", held), ["axis"], keepdims=1)
        held = add("Reshape", held, ["wide"])
        nodes.append(helper.make_node("Add", [f"sum{total}", held], [f"sum{total + 1}"]))
        total += 1
    kept.append(helper.make_tensor("axis", INT64, [1], [1]))
    nodes += [
        helper.make_node("Mul", [f"sum{total}", f"f{i}"], [name]) for i, name in enumerate(outputs)
    ]
    shape = [dim.dim_value or dim.dim_param for dim in one.type.tensor_type.shape.dim]
    graph = helper.make_graph(
        nodes, "made", list(ports), [port(name, shape, dtype) for name in outputs], kept
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(path, ports=None, **said):
    """The file of a model; of x [N, 3, 4, 4] and a label [N] where no inputs are said."""
    if ports is None:
        ports = [port("sample", ["N", 3, 4, 4]), port("timestep", ["N"])]
    path.write_bytes(model(ports, **said).SerializeToString())
    return path


def wanted(x, label, *others):
    out = 0.5 * x + label.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
    for other in others:
        out = out + other.reshape(len(x), -1).sum(1).view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
    return out


def outside(path, place, length=48, size=48, **said):
    """A file with a weight of 12 floats at `place`; `said` further entries."""
    onnx = needs("onnx")
    made = model([port("sample", ["N", 3, 4, 4]), port("timestep", ["N"])])
    weight = onnx.TensorProto(name="beside", data_type=FLOAT, dims=[12])
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": place, "offset": "0", "length": str(length), **said}.items():
        weight.external_data.add(key=key, value=str(value))
    made.graph.initializer.append(weight)
    made.graph.node.insert(0, onnx.helper.make_node("ReduceSum", ["beside"], ["total"], keepdims=0))
    mul = next(node for node in made.graph.node if node.input[0] == "sample")
    mul.output[0] = "scaled"
    made.graph.node.insert(2, onnx.helper.make_node("Add", ["scaled", "total"], ["sum0"]))
    path.write_bytes(made.SerializeToString())
    return path


def weights(path, values=None):
    held = np.ones(12, np.float32) if values is None else values
    path.write_bytes(held.tobytes())
