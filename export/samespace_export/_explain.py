"""From what a converter says when it fails to what its user can do about it."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import torch
from torch import Tensor, fx

from samespace_export._deployed import Deployed
from samespace_export._quiet import quiet

_NAMED = re.compile(r"(?:aten|prims)[.:]+(\w+)|fx node (\w+)|op(?:eration)? '?(?:\w+::)?(\w+)'?")


def unsupported(deployed: Deployed, example: Tensor, error: Exception) -> str:
    """What could not be converted, where it is, and what to do.

    Args:
        deployed: the model that was converted.
        example: what it was converted with.
        error: what the converter raised.
    """
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(deployed, (example,)).run_decompositions({})
    except Exception as cause:
        return (
            f"torch.export cannot follow the module{_place(cause)}: {_first_line(cause)}. Control "
            "flow may depend on shapes and settings, not on the picture's values."
        )
    named = {word for match in _NAMED.finditer(str(error)) for word in match.groups() if word}
    for node in program.graph.nodes:
        if node.op == "call_function" and _is_named(node, named):
            path, kind = _owner(node)
            return (
                f"the format has no counterpart of {node.target}, which is used in "
                f"{path or 'the model'} ({kind}). Write that module with other operations, or "
                "leave this format out."
            )
    return f"the converter failed: {_first_line(error)}"


def _is_named(node: fx.Node, named: set[str]) -> bool:
    schema = getattr(node.target, "_schema", None)
    operation = schema.name.split("::")[-1] if schema else ""
    # A converter may know aten.special_bessel_j0 as prims.bessel_j0.
    return bool(operation) and any(
        word in (operation, node.name) or operation.endswith(f"_{word}") for word in named
    )


def _owner(node: fx.Node) -> tuple[str, str]:
    """Path and class of the innermost module that a node belongs to."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path, kind = stack[-1] if stack else ("", Deployed)
    path = re.sub(r"^(L\['self'\]\.)?module\.?", "", path)
    return path, kind.__name__ if isinstance(kind, type) else str(kind).rsplit(".", 1)[-1]


def _place(error: Exception) -> str:
    """The innermost line of the user's own that the error came through."""
    torch_folder = Path(torch.__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        ours = file.parent == Path(__file__).parent
        if file.is_file() and torch_folder not in file.parents and not ours:
            return f" (at {file.name}:{frame.lineno}, {frame.line})"
    return ""


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
