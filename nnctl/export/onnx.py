"""Conversion of a network to an ONNX graph.

The graph uses only standard operators of opset 13 (2020), so that old runtimes support it. A new
activation needs an entry in `_OPERATORS`, or an implementation of `_write`.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnctl.errors import UsageError, requiring
from nnctl.export.metadata import ModelMetadata, describe_images, describe_outputs
from nnctl.nn import activations as nn
from nnctl.nn.activations import Activation
from nnctl.nn.network import Network

OPSET = 13
IR_VERSION = 7  # also of 2020
MAX_BYTES = 2**31 - 2**20  # protobuf's limit, less 1 MB for everything except the weights


class _Graph:
    """Collects the nodes and constants of a graph; `units` is the size of the current layer."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.units = 0

    def constant(self, value: ArrayLike, name: str | None = None, dtype: Any = np.float32) -> str:
        """Add a constant array and return its name."""
        name = name or f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        self.constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        node = self._onnx.helper.make_node(
            operator, inputs, [output], name=f"node_{len(self.nodes)}", **attributes
        )
        self.nodes.append(node)
        return output


def to_onnx(network: Network, metadata: ModelMetadata, target: Path) -> tuple[bytes, str]:
    """Return the content of an ONNX file, and a description of its inputs and outputs.

    Batch normalization is made a part of the weights and biases.

    Parameters
    ----------
    network : Network
        A trained network.
    metadata : ModelMetadata
        Metadata to store in the file.
    target : Path
        Not used; the exporters of all formats have the same signature.

    Raises
    ------
    UsageError
        The library is not installed, or the network exceeds the size limit of ONNX files.
    """
    with requiring("the onnx package", "--format onnx", extra="export"):
        import onnx
    if network.parameters.vector.nbytes > MAX_BYTES:
        raise UsageError(
            "an ONNX file can hold at most 2 GB, but this network has "
            f"{network.parameters.vector.nbytes / 1e9:.1f} GB",
            hint="Use --format safetensors.",
        )
    network = network.folded()
    images, outputs = describe_images(network), describe_outputs(network)
    graph = _Graph(onnx)
    a = "images"
    last = len(network.layers) - 1
    for i, function in enumerate(network.functions):
        graph.units = network.sizes[i + 1]
        weights = graph.constant(network.parameters.weights[i], f"weights_{i}")
        biases = graph.constant(network.parameters.biases[i], f"biases_{i}")
        z = graph.add("Gemm", a, weights, biases, output="logits" if i == last else None)
        a = _write(function, graph, z)
    graph.add("Identity", a, output="probabilities")

    def tensor(name: str, columns: int, description: str) -> Any:
        return onnx.helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, ["N", columns], doc_string=description
        )

    units = network.sizes[-1]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "nnctl",
            [tensor("images", network.sizes[0], images)],
            [
                tensor("logits", units, "weighted inputs z of the last layer"),
                tensor("probabilities", units, outputs),
            ],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="nnctl",
        producer_version=metadata.nnctl_version,
        doc_string=f"A classifier of {metadata.dataset}, "
        f"trained with nnctl {metadata.nnctl_version}.\n"
        f"Input images: {images}.\nOutput logits: weighted inputs z of the last layer.\n"
        f"Output probabilities: {outputs}.",
    )
    onnx.helper.set_model_props(model, metadata.to_strings(network))
    onnx.checker.check_model(model, full_check=True)
    usage = (
        f"input  images         {images}\n"
        f"output logits         float32 (N, {units}), weighted inputs z of the last layer\n"
        f"output probabilities  float32 (N, {units}), {outputs}"
    )
    return model.SerializeToString(deterministic=True), usage


_OPERATORS: dict[type[Activation], tuple[str, dict[str, Any]]] = {
    nn.HardSigmoid: ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    nn.Tanh: ("Tanh", {}),
    nn.Softsign: ("Softsign", {}),
    nn.ReLU: ("Relu", {}),
    nn.SELU: ("Selu", {"alpha": nn.SELU_ALPHA, "gamma": nn.SELU_LAMBDA}),
    nn.Softmax: ("Softmax", {"axis": 1}),
}
"""Activations without parameters that are an operator of ONNX, and its attributes."""


@functools.singledispatch
def _write(function: Activation, graph: _Graph, z: str) -> str:
    """Add the nodes of an activation and return the name of its output f(z)."""
    operator, attributes = _OPERATORS[type(function)]
    return graph.add(operator, z, **attributes)


@_write.register
def _(function: nn.Step, graph: _Graph, z: str) -> str:
    compare = "GreaterOrEqual" if function.at_zero else "Greater"
    return graph.add("Cast", graph.add(compare, z, graph.constant(0.0)), to=1)  # 1 is float32


@_write.register
def _(function: nn.Sigmoid, graph: _Graph, z: str) -> str:
    if function.gain != 1:
        z = graph.add("Mul", z, graph.constant(function.gain))
    return graph.add("Sigmoid", z)


@_write.register
def _(function: nn.LeakyReLU, graph: _Graph, z: str) -> str:
    return graph.add("LeakyRelu", z, alpha=float(function.negative_slope))


@_write.register
def _(function: nn.PReLU, graph: _Graph, z: str) -> str:
    assert isinstance(function, nn.BoundPReLU)
    return graph.add("PRelu", z, graph.constant(function.slopes))


@_write.register
def _(function: nn.ELU, graph: _Graph, z: str) -> str:
    return graph.add("Elu", z, alpha=float(function.alpha))


@_write.register
def _(function: nn.GELU, graph: _Graph, z: str) -> str:
    # The Gelu operator needs opset 20; these operators are supported by all runtimes.
    if function.approximate is None:
        inner = graph.add("Erf", graph.add("Mul", z, graph.constant(math.sqrt(0.5))))
    else:
        clipped = graph.add("Clip", z, graph.constant(-20.0), graph.constant(20.0))
        scaled = graph.add(
            "Mul",
            graph.add("Mul", clipped, clipped),
            graph.constant(0.044715 * math.sqrt(2 / math.pi)),
        )
        factor = graph.add("Add", scaled, graph.constant(math.sqrt(2 / math.pi)))
        inner = graph.add("Tanh", graph.add("Mul", clipped, factor))
    doubled = graph.add("Add", inner, graph.constant(1.0))
    return graph.add("Mul", z, graph.add("Mul", doubled, graph.constant(0.5)))


@_write.register
def _(function: nn.Swish, graph: _Graph, z: str) -> str:
    return graph.add("Mul", z, _write(nn.Sigmoid(function.beta), graph, z))


@_write.register
def _(function: nn.Softplus, graph: _Graph, z: str) -> str:
    # max(z, 0) + log(1 + exp(-|z|)): the Softplus operator of some runtimes overflows.
    small = graph.add("Exp", graph.add("Neg", graph.add("Abs", z)))
    rest = graph.add("Log", graph.add("Add", small, graph.constant(1.0)))
    return graph.add("Add", graph.add("Relu", z), rest)


@_write.register
def _(function: nn.Exponential, graph: _Graph, z: str) -> str:
    end = math.log(np.finfo(np.float32).max) - 1
    return graph.add("Exp", graph.add("Min", z, graph.constant(end)))


@_write.register
def _(function: nn.Linear, graph: _Graph, z: str) -> str:
    return z


@_write.register
def _(function: nn.Maxout, graph: _Graph, z: str) -> str:
    shape = graph.constant([0, function.pieces, graph.units], dtype=np.int64)  # 0: the batch size
    pieces = graph.add("Reshape", z, shape)
    return graph.add("ReduceMax", pieces, axes=[1], keepdims=0)
