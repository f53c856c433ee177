"""Two ONNX graphs of one picture, side by side: what a model makes of it, and side information."""

from __future__ import annotations

from samespace_edge import ConfigError
from samespace_edge._runtimes import INPUT, OUTPUT

_FIRST, _SECOND = f"{OUTPUT}.beside.0", f"{OUTPUT}.beside.1"


def put_beside(onnx_file: bytes, other_file: bytes) -> bytes:
    """The graph whose output is that of both files, one behind the other.

    Args:
        onnx_file, other_file: bundles' ONNX files, from one kind of pictures to unit vectors (N, D)
            and (N, S).

    Returns a file with (N, D + S) as its output. Raises `ConfigError` for files of different
    opsets.
    """
    import onnx
    from onnx import compose, helper

    model, other = (onnx.load_from_string(f) for f in (onnx_file, other_file))
    opsets = {o.domain: o.version for o in model.opset_import}
    for opset in other.opset_import:
        if opsets.setdefault(opset.domain, opset.version) != opset.version:
            raise ConfigError(
                f"the graphs are of ONNX opsets {opsets[opset.domain]} and {opset.version}; export "
                "both bundles with one version of samespace"
            )
        if opset.domain not in {o.domain for o in model.opset_import}:
            model.opset_import.append(opset)
    # Every name of its own, but for the picture.
    other = compose.add_prefix(other, "side.", rename_inputs=False, rename_outputs=False)
    for graph, output in ((model.graph, _FIRST), (other.graph, _SECOND)):
        for node in graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == OUTPUT:
                        names[place] = output
    graph = model.graph
    graph.node.extend(other.graph.node)
    graph.initializer.extend(other.graph.initializer)
    graph.value_info.extend(v for v in other.graph.value_info if v.name not in (INPUT, OUTPUT))
    model.functions.extend(other.functions)
    graph.node.append(helper.make_node("Concat", [_FIRST, _SECOND], [OUTPUT], axis=1))
    (output,), (beside,) = graph.output, other.graph.output
    dim = output.type.tensor_type.shape.dim[1]
    dim.dim_value += beside.type.tensor_type.shape.dim[1].dim_value
    return bytes(model.SerializeToString())
