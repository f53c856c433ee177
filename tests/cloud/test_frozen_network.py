"""Frozen networks: onnxruntime and torch agree, exports are kept, bfloat16 is never assumed."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace import Dataset
from samespace_cloud.augment import Augmentation
from samespace_cloud.config import TrainConfig
from samespace_cloud.frozen_network import embed_pictures, frozen, unit_vectors
from samespace_cloud.model import EmbeddingModel, ModelConfig
from samespace_cloud.teacher import CheckpointTeacher
from samespace_cloud.training import train_cloud
from samespace_cloud.views import Views, normalised, resized

CPU = torch.device("cpu")
MANY = 10**9


def network(backbone: str = "edge-xs", size: int = 32, seed: int = 0) -> EmbeddingModel:
    torch.manual_seed(seed)
    model = EmbeddingModel(ModelConfig(backbone, size, dim=16))
    for part in model.modules():  # as a trained network has them
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return model.eval()


def pictures(count: int = 20, side: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def plain(model: EmbeddingModel, images: Tensor) -> Tensor:
    seen = normalised(resized(images, model.config.input_size), model, CPU)
    return F.normalize(model(seen))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the export of `network()`, after the first test."""
    return tmp_path_factory.mktemp("views")


@pytest.mark.parametrize("backbone", ["edge-xs", "mobilenetv3-small", "shufflenetv2"])
def test_onnxruntime_and_torch_agree(backbone: str, cache: Path) -> None:
    model, images = network(backbone), pictures()
    quick, slow = (frozen(model, CPU, cache).features(images, of) for of in (MANY, 1))
    assert not torch.equal(quick, slow)  # or the same runtime made both
    for found in (quick, slow):
        apart = unit_vectors(model, found) - plain(model, images)
        assert apart.abs().max() < 1e-5


def test_a_picture_has_one_vector_whatever_is_asked_with_it(cache: Path) -> None:
    model, images = network(), pictures()
    together = frozen(model, CPU, cache).features(images, MANY)
    some = frozen(model, CPU, cache)
    assert torch.equal(some.features(images[5:8], MANY), together[5:8])
    assert torch.equal(some.features(images, MANY), together)  # three of them are remembered
    assert torch.equal(some.features(images.flip(0), MANY), together.flip(0))


def test_a_network_is_exported_once(tmp_path: Path) -> None:
    model, images = network(), pictures()
    first = frozen(model, CPU, tmp_path).features(images, MANY)
    (file,) = tmp_path.iterdir()
    os.utime(file, (1, 1))
    # Another head is no other network.
    other = network(seed=1)
    other.backbone.load_state_dict(model.backbone.state_dict())
    assert torch.equal(frozen(other, CPU, tmp_path).features(images, MANY), first)
    assert file.stat().st_mtime == 1
    file.write_bytes(file.read_bytes()[:1000])  # a damaged file is made again
    assert torch.equal(frozen(model, CPU, tmp_path).features(images, MANY), first)
    assert file.stat().st_size > 1000
    frozen(network(seed=1), CPU, tmp_path).features(images, MANY)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_few_pictures_are_not_worth_an_export(tmp_path: Path) -> None:
    frozen(network(), CPU, tmp_path).features(pictures())
    assert not list(tmp_path.iterdir())


def test_a_network_stays_what_it_was_when_it_was_frozen() -> None:
    model, images = network(), pictures()
    kept = frozen(model, CPU)
    before = kept.features(images)
    nn.init.zeros_(model.backbone.stem.conv.weight)
    assert torch.equal(kept.features(images), before)
    assert model.embed.weight.requires_grad


class Choosy(nn.Module):
    """Its operations depend on the values, so no graph can hold them."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > -1e9 else -x


def test_what_cannot_be_exported_runs_in_torch(caplog: pytest.LogCaptureFixture) -> None:
    model, images = network(), pictures()
    expected = plain(model, images)
    model.backbone.head = nn.Sequential(model.backbone.head, Choosy())
    with caplog.at_level(logging.WARNING, "samespace.cloud"):
        found = frozen(model, CPU).features(images, MANY)
    assert (unit_vectors(model, found) - expected).abs().max() < 1e-5
    assert "runs in torch, in float32" in caplog.text


def test_the_choice_is_logged(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "samespace.cloud"):
        frozen(network(), CPU, cache).features(pictures(), MANY)
    assert "onnxruntime, float32, 1 threads, on" in caplog.text
    assert "bf16" in caplog.text


def test_pictures_are_embedded_as_the_model_embeds_them() -> None:
    model, images = network(), pictures(300, 32)
    found = embed_pictures(model, images.permute(0, 2, 3, 1).contiguous().numpy(), CPU)
    assert (found - plain(model, images)).abs().max() < 1e-5
    assert embed_pictures(model, images[:0].permute(0, 2, 3, 1).numpy(), CPU).shape == (0, 16)


CONFIG = TrainConfig(
    model=ModelConfig("edge-xs", 24, dim=16),
    losses=(("cosface", 1.0),),
    epochs=1,
    batch_size=8,
    views=2,
    canvas=32,
    val_share=0.0,
    augmentation=Augmentation(degrees=5, blur=0, saturation=0.1),
)


def test_a_head_and_a_teacher_see_with_one_network(shop: Dataset, tmp_path: Path) -> None:
    checkpoint = train_cloud(
        shop, CONFIG, tmp_path / "runs" / "cloud", deploy_size=32, lda_head=True
    )
    network, model = checkpoint.frozen, checkpoint.model
    assert network is not None
    images = pictures(9, 32)
    teacher = CheckpointTeacher(checkpoint)
    teacher.about_to_teach(shop.train[:9])
    assert torch.equal(
        teacher.vectors(images, slice(0, 9)), unit_vectors(model, network.features(images))
    )
    # Its classifier is of the unchanged pictures, which are the head's first view.
    assert (checkpoint.classifier.norm(dim=1) - 1).abs().max() < 1e-5
    assert replace(checkpoint, role="edge").frozen is None


_IN_A_PROCESS = """
import logging, sys, tempfile
from pathlib import Path
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from tests.cloud.test_frozen_network import CPU, CONFIG, network, pictures
from samespace import Dataset
from dataclasses import replace
from samespace_cloud.frozen_network import frozen
from samespace_cloud.processor import is_bf16_fast, processor_class
from samespace_cloud.training import train_cloud

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
seen = set()

class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.numel():
            seen.add(made.dtype)
        return made

print("fast", is_bf16_fast(CPU), processor_class(CPU))
with Watch():
    frozen(network(), CPU).features(pictures())
    data = Dataset.open(sys.argv[1])
    train_cloud(data, CONFIG, Path(tempfile.mkdtemp()) / "runs" / "a", lda_head=True)
print("bf16 was used", torch.bfloat16 in seen)
train_cloud(data, replace(CONFIG, precision="bf16"), Path(tempfile.mkdtemp()) / "runs" / "b")
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the switches are of x86")
def test_a_processor_without_bf16_computes_in_float32(shop_csv: Path) -> None:
    switches = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    said = subprocess.run(
        [sys.executable, "-c", _IN_A_PROCESS, str(shop_csv)],
        env=os.environ | switches,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    assert "fast False AVX2 without bf16" in said
    assert "bf16 was used False" in said
    # Who asks for it gets it, and a warning.
    (warning,) = (line for line in said.splitlines() if line.startswith("WARNING"))
    assert "without instructions for it (AVX2 without bf16)" in warning


def test_views_are_taught_by_the_frozen_network(shop: Dataset, tmp_path: Path) -> None:
    checkpoint = train_cloud(shop, CONFIG, tmp_path / "runs" / "cloud")
    images = pictures(6, 32)
    views = Views(
        images.permute(0, 2, 3, 1).contiguous().numpy(), CONFIG.augmentation, [24], 2, seed=0
    )
    views.prepare(teacher=CheckpointTeacher(checkpoint))
    assert views.taught is not None
    assert (views.taught[0] - plain(checkpoint.model, images)).abs().max() < 1e-5
