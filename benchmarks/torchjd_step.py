"""The step of a plain PyTorch loop with TorchJD, on the networks of `balancing_step.py`; needs torch and torchjd."""

import itertools
from collections.abc import Callable

import torch
from torch import nn
from torchjd.aggregation import MGDA, Aggregator, UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward

CLASSES = 10


class Block(nn.Module):
    """A transformer block of width 128, as flax's: attention and MLP, each after a LayerNorm."""

    def __init__(self):
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(128), nn.LayerNorm(128)
        self.attention = nn.MultiheadAttention(128, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(128, 512), nn.GELU(), nn.Linear(512, 128))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `[B, 32, 128]`."""
        y = self.before_attention(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.before_mlp(x))


class Mean(nn.Module):
    """The mean over some axes."""

    def __init__(self, *axes: int):
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the mean."""
        return x.mean(dim=self.axes)


def make_trunk(name: str) -> tuple[nn.Module, torch.Tensor, int]:
    """Returns the network, an input and the width of the features."""
    if name == 'mlp':
        sizes = (784, 512, 512, 128)
        layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers), torch.randn(256, 784), 128
    if name == 'cnn':
        layers, channels = [], 3
        for width, stride in ((32, 1), (64, 2), (64, 2), (64, 2)):
            layers += [nn.Conv2d(channels, width, 3, stride, padding=1), nn.ReLU()]
            channels = width
        return nn.Sequential(*layers, Mean(2, 3)), torch.randn(64, 3, 32, 32), 64
    return nn.Sequential(Block(), Block(), Mean(1)), torch.randn(32, 32, 128), 128


def torchjd_programs(trunk_name: str, num_tasks: int) -> dict[str, Callable[[], None]]:
    """Returns name -> a step: with the sum of the losses, and with the aggregators that have no parameters."""
    torch.manual_seed(0)
    trunk, x, width = make_trunk(trunk_name)
    heads = [nn.Linear(width, CLASSES) for _ in range(num_tasks)]
    targets = [torch.randint(0, CLASSES, (len(x),)) for _ in range(num_tasks)]
    parameters = [*trunk.parameters(), *(parameter for head in heads for parameter in head.parameters())]
    optimizer = torch.optim.Adam(parameters)

    def losses() -> tuple[torch.Tensor, list[torch.Tensor]]:
        features = trunk(x)
        found = [
            nn.functional.cross_entropy(head(features), target) for head, target in zip(heads, targets, strict=True)
        ]
        return features, found

    def equal() -> None:
        optimizer.zero_grad()
        sum(losses()[1]).backward()
        optimizer.step()

    def with_aggregator(aggregator: Aggregator) -> Callable[[], None]:
        def step() -> None:
            optimizer.zero_grad()
            features, found = losses()
            mtl_backward(found, features=features)
            jac_to_grad(trunk.parameters(), aggregator)
            optimizer.step()

        return step

    steps = {'equal': equal, 'UPGrad': with_aggregator(UPGrad()), 'MGDA': with_aggregator(MGDA())}
    for step in steps.values():
        step()
    return steps
