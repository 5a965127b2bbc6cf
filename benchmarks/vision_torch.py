"""The network of `vision.py` in PyTorch; needs torch."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
WIDTH = 64


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution, and a shortcut."""

    def __init__(self, inside: int, channels: int, stride: int):
        super().__init__()
        self.branch = nn.Sequential(
            *(nn.Conv2d(inside, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()),
            *(nn.Conv2d(channels, 4 * channels, 1, bias=False), nn.BatchNorm2d(4 * channels)),
        )
        self.shortcut = nn.Identity()
        if inside != 4 * channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, 4 * channels, 1, stride, bias=False), nn.BatchNorm2d(4 * channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `[B, 4 * channels, H / stride, W / stride]`."""
        return functional.relu(self.branch(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """Gives a map after each stage."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.stages, inside = nn.ModuleList(), 64
        for number, (channels, blocks) in enumerate(STAGES):
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(inside, channels, 2 if number and not block else 1))
                inside = 4 * channels
            self.stages.append(nn.Sequential(*stage))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns the maps, finest first."""
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def conv_block() -> nn.Module:
    """Returns a 3x3 convolution, GroupNorm and ReLU."""
    return nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.GroupNorm(8, WIDTH), nn.ReLU())


class Pyramid(nn.Module):
    """The maps from `level` on, joined at the size of the finest."""

    def __init__(self, level: int):
        super().__init__()
        self.level = level
        self.laterals = nn.ModuleList(nn.Conv2d(4 * channels, WIDTH, 1) for channels, _ in STAGES[level:])
        self.joint = conv_block()

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Returns `[B, WIDTH, h, w]`."""
        top = None
        for lateral, level in reversed(list(zip(self.laterals, maps[self.level :], strict=True))):
            values = lateral(level)
            top = values if top is None else values + functional.interpolate(top, values.shape[2:], mode='bilinear')
        return self.joint(top)


class Detection(nn.Module):
    """A pyramid and three branches."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.pyramid = Pyramid(level=1)
        self.branches = nn.ModuleList(
            nn.Sequential(conv_block(), nn.Conv2d(WIDTH, channels, 1)) for channels in (1, num_classes, 4)
        )

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Returns centres, classes and distances."""
        joint = self.pyramid(maps)
        return [branch(joint) for branch in self.branches]


def detection_loss(predictions: list[torch.Tensor], cells: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns the loss of `losses.detection`, for cells that are assigned already."""
    centres, classes, distances = predictions
    yes, no = functional.logsigmoid(centres[:, 0]), functional.logsigmoid(-centres[:, 0])
    elsewhere = (1 - cells['heat']) ** 4 * torch.exp(2 * yes) * no
    focal = torch.where(cells['centre'], torch.exp(2 * no) * yes, elsewhere)
    loss = -(focal.sum((1, 2)) / cells['centre'].sum((1, 2)).clamp(min=1)).mean()
    reach = torch.sigmoid(distances).permute(0, 2, 3, 1)
    low, high = cells['middles'] - reach[..., :2], cells['middles'] + reach[..., 2:]
    low_wanted, high_wanted = cells['boxes'][..., :2], cells['boxes'][..., 2:]

    def area(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        return (high - low).clamp(min=0).prod(-1)

    both = area(torch.maximum(low, low_wanted), torch.minimum(high, high_wanted))
    union = area(low, high) + area(low_wanted, high_wanted) - both
    around = area(torch.minimum(low, low_wanted), torch.maximum(high, high_wanted))
    misfit = 1 - both / union + (around - union) / around
    surprise = functional.cross_entropy(classes, cells['labels'], reduction='none')
    number = cells['positive'].sum((1, 2)).clamp(min=1)
    return loss + (((2 * misfit + surprise) * cells['positive']).sum((1, 2)) / number).mean()


def assigned(values: Mapping[str, np.ndarray], height: int) -> dict[str, torch.Tensor]:
    """Returns cells with the last of the boxes that holds their middle; any assignment costs the same."""
    middles = (np.arange(height) + 0.5) / height
    grid = np.stack(np.meshgrid(middles, middles, indexing='ij'), axis=-1).astype(np.float32)
    boxes = values['boxes'][:, :, None, None]
    inside = ((grid > boxes[..., :2]) & (grid < boxes[..., 2:])).all(axis=-1)
    owner = inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
    rows = np.arange(len(owner))[:, None, None]
    centre = np.zeros(owner.shape, bool)
    centre[:, height // 2, ::4] = True
    cells = {
        'heat': np.random.default_rng(0).uniform(size=owner.shape).astype(np.float32),
        'centre': centre,
        'middles': grid,
        'boxes': values['boxes'][rows, owner],
        'labels': values['labels'][rows, owner].astype(np.int64),
        'positive': inside.any(axis=1),
    }
    return {name: torch.from_numpy(array) for name, array in cells.items()}


def programs(
    values: Mapping[str, np.ndarray], num_classes: int, box_classes: int, mask_classes: int
) -> dict[str, Callable[[], None]]:
    """Returns name -> a step, with all tasks and with the classification alone."""
    images = torch.from_numpy(values['images']).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    classes, mask = (torch.from_numpy(values[name]).long() for name in ('classes', 'mask'))

    def program(dense: bool) -> Callable[[], None]:
        torch.manual_seed(0)
        network = nn.ModuleDict({'encoder': ResNet50(), 'category': nn.Linear(2048, num_classes)})
        if dense:
            network['objects'] = Detection(box_classes)
            network['mask'] = nn.Sequential(Pyramid(level=0), nn.Conv2d(WIDTH, mask_classes, 1))
        network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters())
        cells = assigned(values, -(-images.shape[2] // 8))

        def step() -> None:
            optimizer.zero_grad()
            maps = network['encoder'](images)
            loss = functional.cross_entropy(network['category'](maps[-1].mean((2, 3))), classes)
            if dense:
                logits = functional.interpolate(network['mask'](maps), mask.shape[1:], mode='bilinear')
                loss = loss + functional.cross_entropy(logits, mask) + detection_loss(network['objects'](maps), cells)
            loss.backward()
            optimizer.step()

        return step

    return {'all': program(dense=True), 'classification': program(dense=False)}
