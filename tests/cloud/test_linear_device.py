"""Linear fine-tuning on a GPU: the same optimum as on the CPU. Needs one, so CI leaves it out."""

import pytest
import torch
from torch import nn

from samespace_cloud.linear import LinearConfig, finetune_linear

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("solver", ["cg", "exact", "kfac", "sgd"])
def test_the_optimum_is_the_same_on_a_gpu(solver):
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    pictures, labels = torch.randn(24, 3, 16, 16), torch.arange(24) % 3
    config = LinearConfig(solver=solver, tolerance=1e-6, iterations=300)
    here = finetune_linear(body, pictures, labels, config)
    there = finetune_linear(body.cuda(), pictures.cuda(), labels.cuda(), config)
    wanted, found = here.model(pictures), there.model(pictures.cuda())
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), wanted, rtol=2e-3, atol=2e-3)
