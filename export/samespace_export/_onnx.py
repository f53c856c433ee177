"""torch module -> one ONNX file, uint8 pictures in and unit vectors out."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

INPUT, OUTPUT = "image", "embedding"
OPSET = 20

# 0 in fp16 would be a division by zero for a picture without any feature, so not smaller.
_EPSILON = 1e-4


class Deployed(nn.Module):
    """A model as it is shipped: preprocessing before it, L2 normalisation behind it.

    uint8 RGB (N, H, W, 3) to float32 unit vectors (N, D).
    """

    def __init__(self, module: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.module = module
        self.scale: Tensor
        self.shift: Tensor
        scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float32))
        self.register_buffer("scale", scale.view(1, 3, 1, 1))
        self.register_buffer(
            "shift", (-torch.tensor(mean, dtype=torch.float32) / torch.tensor(std)).view(1, 3, 1, 1)
        )
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift
        y: Tensor = self.module(x)
        norm = y.square().sum(dim=1, keepdim=True).sqrt().clamp_min(_EPSILON)
        return y / norm


def to_onnx(deployed: Deployed, height: int, width: int) -> bytes:
    """The ONNX file (opset 20, dynamic batch) of a deployed model."""
    import onnx

    # A batch of 1 would be taken for a constant.
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), _silence():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter notes the Python source line of every node: a fifth of a small file, and
    # paths of the machine that exported it.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter prints progress to stdout and logs what it tried; neither is for users."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
