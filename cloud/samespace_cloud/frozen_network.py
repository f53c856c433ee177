"""Networks whose weights do not change, run without gradients: teachers, and features for heads.

On a GPU torch runs them, in bfloat16 where the GPU has it and nobody asks for float32. On a CPU
onnxruntime runs them, in float32: two to four times as fast as torch does. An export takes seconds,
so torch runs a few pictures, in float32 too.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from samespace_cloud.backbones import Backbone, ConvBn, cost
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.pretrained import MEAN, STD
from samespace_cloud.processor import LOG, is_bf16_fast, processor_class
from samespace_cloud.views import resized
from samespace_edge import ConfigError
from samespace_edge._runtimes import INPUT, OUTPUT
from samespace_edge._temporary import temporary_for
from samespace_export import TARGETS
from samespace_export._convert import Converter
from samespace_export._deployed import Unnormalised

WORTH_AN_EXPORT = 20e9
"""Multiply-accumulates from which on onnxruntime wins back the seconds of an export: torch does 4e9
to 5e9 a second on two cores, and 1e9 next to a busy process."""

# What a core's cache holds; on a CPU more pictures at a time are slower.
_BATCH, _GPU_BATCH = 16, 128
_REMEMBERED_BYTES = 256 << 20
_LARGEST_DEPARTURE = 1e-4


class FrozenNetwork:
    """A backbone with its preprocessing, run without gradients.

    Args:
        backbone: normalised pictures (N, 3, S, S) to features (N, F). It is copied.
        size: S, the side of the input, in pixels.
        device: where it runs.
        cache: a folder that keeps the exported file, named by all that decides over it.
        is_exact: float32 on a GPU too, for answers that are compared with one another.
    """

    def __init__(
        self,
        backbone: Backbone,
        size: int,
        device: torch.device,
        cache: Path | None = None,
        is_exact: bool = False,
    ) -> None:
        self.cache = cache
        self._is_bf16 = not is_exact and device.type == "cuda" and is_bf16_fast(device)
        self._size, self._device = size, device
        copied = _without_norms(copy.deepcopy(backbone).eval()).requires_grad_(False)
        copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._backbone = copied
        self._network = Unnormalised(copied, MEAN, STD).to(device)
        self._macs = cost(backbone.spec, size, dim=0).macs
        self._session: Any = None
        self._is_exportable = device.type == "cpu"
        self._remembered: dict[bytes, NDArray[np.float32]] = {}

    @torch.no_grad()
    def features(self, images: Tensor, of: int | None = None) -> Tensor:
        """Return pooled features float32 (N, F), on the CPU.

        Args:
            images: uint8 (N, 3, H, W). They are resized to the network's input.
            of: how many pictures the whole job has, which decides whether an export is worth its
                seconds. All batches of a job give the same number. By default N.
        """
        pixels = resized(images, self._size).permute(0, 2, 3, 1).contiguous()
        if (len(images) if of is None else of) * self._macs >= WORTH_AN_EXPORT:
            if self._is_exportable and self._session is None:
                self._open(pixels[:2])
            if self._session is not None:
                return self._by_onnxruntime(pixels.numpy())
        return self._by_torch(pixels)

    def _by_torch(self, pixels: Tensor) -> Tensor:
        step = _BATCH if self._device.type == "cpu" else _GPU_BATCH
        parts = [torch.empty(0, self._backbone.width)]
        for start in range(0, len(pixels), step):
            batch = pixels[start : start + step].to(self._device)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._is_bf16):
                parts.append(self._network(batch)[OUTPUT].float().cpu())
        return torch.cat(parts)

    def _by_onnxruntime(self, pixels: NDArray[np.uint8]) -> Tensor:
        # A head and a teacher ask for the same views: they are remembered by their bytes.
        keys = [hashlib.blake2b(row.data, digest_size=16).digest() for row in pixels]
        made = np.empty((len(pixels), self._backbone.width), np.float32)
        new = [i for i, key in enumerate(keys) if key not in self._remembered]
        for i in set(range(len(keys))).difference(new):
            made[i] = self._remembered[keys[i]]
        for start in range(0, len(new), _BATCH):
            rows = new[start : start + _BATCH]
            made[rows] = self._session.run([OUTPUT], {INPUT: pixels[rows]})[0]
        if (len(self._remembered) + len(new)) * made[:1].nbytes <= _REMEMBERED_BYTES:
            self._remembered.update((keys[i], made[i].copy()) for i in new)
        return torch.from_numpy(made)

    def _open(self, pixels: Tensor) -> None:
        """Export the network, or find it exported, and compare it with torch."""
        name = f"{self._backbone.spec.text} at {self._size} px"
        try:
            session = self._found() or _session(self._exported())
            found = torch.from_numpy(session.run([OUTPUT], {INPUT: pixels.numpy()})[0])
            expected = self._by_torch(pixels)
            apart = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-9))
            if not apart < _LARGEST_DEPARTURE:
                raise ConfigError(f"the exported file departs from torch by {apart:.2g}")
        except ConfigError as error:
            LOG.warning("%s: runs in torch, in float32: %s", name, error)
            self._is_exportable = False
            return
        LOG.info(
            "%s: onnxruntime, float32, %d threads, on %s",
            name,
            torch.get_num_threads(),
            processor_class(self._device),
        )
        self._session = session

    @property
    def _path(self) -> Path | None:
        return self.cache / f"{self._digest()[:24]}.onnx" if self.cache else None

    def _found(self) -> Any:
        """A session of the file in the cache; None where there is none that can be read."""
        path = self._path
        if path is None or not path.exists():
            return None
        try:
            return _session(path.read_bytes())
        except ConfigError:
            return None

    def _exported(self) -> bytes:
        """The exported file; raises `ConfigError` where the backbone cannot be exported."""
        converter = Converter(self._backbone, MEAN, STD, self._size, self._size)
        converter.deployed = self._network
        (content,) = converter.convert(TARGETS["onnx-fp32"]).values()
        if (path := self._path) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_for(path)
            temporary.write_bytes(content)
            temporary.replace(path)
        return content

    def _digest(self) -> str:
        digest = hashlib.sha256(f"{self._size} {MEAN} {STD} {self._backbone}".encode())
        for name, tensor in sorted(self._backbone.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def _without_norms(backbone: Backbone) -> Backbone:
    """The same function, with batch norms merged into the convolutions before them.

    torch then reads and writes every map once less, and an export has a third less to trace.
    """
    for part in backbone.modules():
        if isinstance(part, ConvBn) and isinstance(part.norm, nn.BatchNorm2d):
            part.conv = fuse_conv_bn_eval(part.conv, part.norm)
            part.norm = nn.Identity()
    return backbone


def _session(content: bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin on a core which another process uses would stop one another.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise ConfigError(f"onnxruntime cannot load the file: {error}") from None


def features(model: EmbeddingModel, images: Tensor, device: torch.device) -> Tensor:
    """Return pooled features (N, F), on the CPU, of uint8 (N, 3, H, W)."""
    return frozen(model, device).features(images)


def embed_pictures(
    model: EmbeddingModel, pictures: NDArray[np.uint8], device: torch.device
) -> Tensor:
    """Return unit vectors (N, D), on the CPU, of unchanged pictures, uint8 (N, H, W, 3)."""
    if not len(pictures):
        return torch.empty(0, model.config.dim)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    network = frozen(model, device)
    parts = [network.features(images[i : i + 128], len(images)) for i in range(0, len(images), 128)]
    return unit_vectors(model, torch.cat(parts))


def frozen(model: EmbeddingModel, device: torch.device, cache: Path | None = None) -> FrozenNetwork:
    """Return the backbone of an embedding model, frozen."""
    return FrozenNetwork(model.backbone, model.config.input_size, device, cache)


@torch.no_grad()
def unit_vectors(model: EmbeddingModel, features: Tensor) -> Tensor:
    """Return the unit vectors (N, D), on the CPU, that a model's head makes of features (N, F)."""
    head = model.embed
    bias = None if head.bias is None else head.bias.cpu()
    return F.normalize(F.linear(features, head.weight.cpu(), bias))
