"""The image encoder: sizes, BatchNorm and stochastic depth."""

from __future__ import annotations

import pytest
import torch
from icltool_ofa.resnet import CHANNELS, ResNet, feature_size
from tiny_ofa import build


@pytest.mark.parametrize("pixels", [(64, 64), (33, 80)])
def test_one_position_for_sixteen_pixels(pixels: tuple[int, int]) -> None:
    features = ResNet("resnet18").eval()(torch.zeros(1, 3, *pixels))
    assert features.shape == (1, CHANNELS, *feature_size(*pixels))


def test_statistics_move_in_training_and_not_when_frozen() -> None:
    network = build()
    resnet = network.encoder.embed_images
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = resnet.bn1.running_mean.clone()
    resnet(images)
    assert torch.equal(resnet.bn1.running_mean, before)

    network.train()
    resnet(images)
    assert not torch.equal(resnet.bn1.running_mean, before)

    network.freeze_resnet()
    network.train()
    before = resnet.bn1.running_mean.clone()
    resnet(images)
    assert torch.equal(resnet.bn1.running_mean, before)
    assert not any(parameter.requires_grad for parameter in resnet.parameters())
    assert network.encoder.image_proj.weight.requires_grad


def test_stochastic_depth_grows_with_the_block_and_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    resnet = ResNet("resnet50", drop_path=0.4)
    assert [block.drop_path.p for block in resnet.layer1] == pytest.approx([0.0, 0.2, 0.4])
    plain = ResNet("resnet50")
    plain.load_state_dict(resnet.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(resnet.eval()(images), plain.eval()(images))
    assert not torch.equal(resnet.train()(images), plain.train()(images))
