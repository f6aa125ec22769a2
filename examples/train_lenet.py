"""Trains LeNet-5 on the digits with PyTorch and writes `lenet.safetensors`, the weights `make demo` starts from.

Run once: `python examples/train_lenet.py` (needs the `dev` extra; about a minute). The module below has PyTorch's own
parameter names, which are the names of `lenet.nn`: the checkpoint loads without renaming.
"""

from __future__ import annotations

from pathlib import Path

import torch
from digits import digits
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812


class LeNet(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d(torch.tanh(self.conv1(image)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        x = torch.tanh(self.fc1(x.flatten(1)))
        return self.fc3(torch.tanh(self.fc2(x)))


def jitter(images: torch.Tensor) -> torch.Tensor:
    """Rotates by up to 11 degrees, scales by up to 10 % and shifts by up to 1.5 pixels, each image differently.

    The changes stand in for writers who are not among the 1,438 training digits.
    """
    n = len(images)
    angle = (torch.rand(n) - 0.5) * 0.4
    scale = 1 + (torch.rand(n) - 0.5) * 0.2
    shift = (torch.rand(n, 2) - 0.5) * 3 / 14
    top = torch.stack([angle.cos() * scale, -angle.sin() * scale, shift[:, 0]], 1)
    bottom = torch.stack([angle.sin() * scale, angle.cos() * scale, shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([top, bottom], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def main(epochs: int = 40) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # one thread: the same weights on every machine of a kind
    x, y, x_test, y_test = (torch.from_numpy(a) for a in digits())
    model = LeNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(x) // 64 + 1))
    for epoch in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            loss = F.cross_entropy(model(jitter(x[batch])), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            accuracy = (model(x_test).argmax(1) == y_test).float().mean().item()
        print(f"epoch {epoch + 1:2}: loss {loss.item():.4f}, held-out accuracy {accuracy:.2%}")
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, Path(__file__).with_name("lenet.safetensors"))


if __name__ == "__main__":
    main()
