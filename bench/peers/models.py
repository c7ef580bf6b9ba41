"""Training of the reference models in PyTorch eager: the same layers, batches and optimizers as hotfire's configs.

    python models.py MODEL STEPS

Prints units a second: pictures for autoencoder, vae and unet, tokens for gpt. Used by run.py.
"""

import json
import math
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from text_models import Gpt


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [784, 512, 256, 32, 256, 512, 784]
        layers = []
        for i, (a, b) in enumerate(zip(widths, widths[1:])):
            layers += [nn.Linear(a, b), nn.Identity() if i == 2 else nn.Sigmoid() if i == 5 else nn.ReLU()]
        self.net = nn.Sequential(*layers)

    def loss(self, x):
        x = x.flatten(1)
        return F.mse_loss(self.net(x), x)


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(3136, 256), nn.ReLU(), nn.Linear(256, 40))
        self.decoder = nn.Sequential(
            nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 3136), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)),
            nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1))

    def loss(self, x):
        mean, log_var = self.encoder(x).chunk(2, 1)
        code = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        nll = F.binary_cross_entropy_with_logits(self.decoder(code), x, reduction="sum")
        kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum()
        return (nll + kl) / len(x)


class Residual(nn.Module):
    def __init__(self, inputs, outputs, time_width=128):
        super().__init__()
        self.norm_1, self.conv_1 = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.time = nn.Linear(time_width, outputs)
        self.norm_2, self.conv_2 = nn.GroupNorm(8, outputs), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, t):
        h = self.conv_1(F.silu(self.norm_1(x))) + self.time(t)[:, :, None, None]
        return self.skip(x) + self.conv_2(F.silu(self.norm_2(h)))


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, 3, c, h * w).transpose(2, 3).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(n, c, h, w))


class UNet(nn.Module):
    """Base 32, multipliers 1, 2, 2; attention at 7 x 7."""

    def __init__(self, base=32, multipliers=(1, 2, 2)):
        super().__init__()
        widths = [base * m for m in multipliers]
        last = len(widths) - 1
        self.base = base
        self.time = nn.Sequential(nn.Linear(base, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU())
        self.first = nn.Conv2d(1, base, 3, 1, 1)
        self.down, self.up, kept, width = nn.ModuleList(), nn.ModuleList(), [base], base
        for level, out in enumerate(widths):
            for _ in range(2):
                self.down.append(nn.ModuleList([Residual(width, out), *([Attention(out)] if level == last else [])]))
                kept.append(width := out)
            if level < last:
                self.down.append(nn.Conv2d(width, width, 3, 2, 1))
                kept.append(width)
        self.middle = nn.ModuleList([Residual(width, width), Attention(width), Residual(width, width)])
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(3):
                block = Residual(width + kept.pop(), out)
                self.up.append(nn.ModuleList([block, *([Attention(out)] if level == last else [])]))
                width = out
            if level > 0:
                self.up.append(nn.Conv2d(width, width, 3, 1, 1))
        self.norm, self.last = nn.GroupNorm(8, width), nn.Conv2d(width, 1, 3, 1, 1)

    def forward(self, x, t):
        frequencies = torch.exp(-math.log(10_000) * torch.arange(self.base // 2) / (self.base // 2))
        angles = t[:, None] * frequencies
        t = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        x = self.first(x)
        kept = [x]
        for block in self.down:
            if isinstance(block, nn.Conv2d):
                x = block(x)
            else:
                x = block[0](x, t)
                x = block[1](x) if len(block) > 1 else x
            kept.append(x)
        x = self.middle[2](self.middle[1](self.middle[0](x, t)), t)
        for block in self.up:
            if isinstance(block, nn.Conv2d):
                x = block(F.interpolate(x, scale_factor=2, mode="nearest"))
            else:
                x = block[0](torch.cat([x, kept.pop()], 1), t)
                x = block[1](x) if len(block) > 1 else x
        return self.last(F.silu(self.norm(x)))

    def loss(self, x):
        t = torch.randint(1000, (len(x),)).float()
        alpha = (torch.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2).view(-1, 1, 1, 1)
        noise = torch.randn_like(x)
        return F.mse_loss(self(alpha.sqrt() * x + (1 - alpha).sqrt() * noise, t), noise)


class GptLoss(Gpt):
    def loss(self, ids):
        return F.cross_entropy(self(ids[:, :-1]).reshape(-1, 65), ids[:, 1:].reshape(-1))


def pictures(batch):
    data = torch.rand(10_000, 1, 28, 28)
    return batch, lambda: data[torch.randint(len(data), (batch,))]


def tokens():
    data = torch.randint(65, (1_000_000,))
    return 12 * 64, lambda: torch.stack([data[i : i + 65] for i in torch.randint(len(data) - 65, (12,))])


def main():
    name, steps = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(0)
    net = {"autoencoder": Autoencoder, "vae": Vae, "unet": UNet, "gpt": GptLoss}[name]()
    parameters = sum(p.numel() for p in net.parameters())
    units, draw = tokens() if name == "gpt" else pictures(64 if name == "unet" else 128)
    if name == "gpt":
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    else:
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-4 if name == "unet" else 1e-3)
    for step in range(steps + 5):
        if step == 5:  # warm
            wall, cpu = time.perf_counter(), time.process_time()
        loss = net.loss(draw())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if name in ("gpt", "unet"):
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        loss.item()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall": steps * units / wall, "cpu": steps * units / cpu, "parameters": parameters}))


if __name__ == "__main__":
    main()
