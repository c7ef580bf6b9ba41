"""Training of the autoencoder, the convolutional VAE and the U-Net in PyTorch eager, beside hotfire, in alternation.

    python bench/peers/image_models.py --hotfire target/release/hotfire [--rounds 3] [--models ae,vae,unet,unet16]

Needs torch. Each round runs one side after the other on two threads, so that both meet the same noise; medians are printed.

The models: a dense autoencoder 784-512-256-32 and back (batch 128); a convolutional VAE with 32 and 64 channels, 256 hidden
units and 20 latent ones (batch 128); a U-Net of 32 channels with multipliers 1, 2, 2 and attention at 7x7 (batch 64),
trained on noise and run forward; the same with 16 channels, the size of the configs.
"""

import argparse
import json
import math
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [784, 512, 256, 32]
        layers = []
        for path in (widths, widths[::-1]):
            for i, (a, b) in enumerate(zip(path, path[1:])):
                layers += [nn.Linear(a, b)] + ([nn.ReLU()] if i < 2 else [])
        self.net = nn.Sequential(*layers, nn.Sigmoid())

    def loss(self, x):
        x = x.flatten(1)
        return F.mse_loss(self.net(x), x)


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(3136, 256), nn.ReLU(), nn.Linear(256, 40),
        )
        self.dense = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 3136), nn.ReLU())
        self.convolutions = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1)
        )

    def loss(self, x):
        x = (x > 0.5).float()
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        logits = self.convolutions(self.dense(z).view(-1, 64, 7, 7))
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
        return (nll + kl) / len(x)


class Residual(nn.Module):
    def __init__(self, inputs, outputs, time_width):
        super().__init__()
        self.norm_1, self.conv_1 = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_width, outputs)
        self.norm_2, self.conv_2 = nn.GroupNorm(8, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, t):
        h = self.conv_1(F.silu(self.norm_1(x))) + self.time(F.silu(t))[:, :, None, None]
        return self.skip(x) + self.conv_2(F.silu(self.norm_2(h)))


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(8, channels), nn.Conv2d(channels, 3 * channels, 1)
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        q, k, v = (p.flatten(2).transpose(1, 2)[:, None] for p in self.qkv(self.norm(x)).chunk(3, 1))
        y = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(n, c, h, w)
        return x + self.output(y)


class UNet(nn.Module):
    def __init__(self, base=32, multipliers=(1, 2, 2)):
        super().__init__()
        width = 4 * base
        self.base = base
        self.time = nn.Sequential(nn.Linear(base, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Conv2d(1, base, 3, padding=1)
        channels = [base * m for m in multipliers]
        self.down, kept, at = nn.ModuleList(), [base], base
        for level, c in enumerate(channels):
            last = level + 1 == len(channels)
            for _ in range(2):
                self.down.append(nn.ModuleList([Residual(at, c, width), Attention(c) if last else nn.Identity()]))
                at = c
                kept.append(c)
            if not last:
                self.down.append(nn.Conv2d(c, c, 3, 2, 1))
                kept.append(c)
        self.middle = nn.ModuleList([Residual(at, at, width), Attention(at), Residual(at, at, width)])
        self.up = nn.ModuleList()
        for level, c in reversed(list(enumerate(channels))):
            last = level + 1 == len(channels)
            for _ in range(3):
                block = Residual(at + kept.pop(), c, width)
                self.up.append(nn.ModuleList([block, Attention(c) if last else nn.Identity()]))
                at = c
            if level:
                self.up.append(nn.Conv2d(c, c, 3, padding=1))
        self.norm, self.out = nn.GroupNorm(8, base), nn.Conv2d(base, 1, 3, padding=1)
        angles = torch.exp(-math.log(10_000) * torch.arange(base // 2) / (base // 2))
        self.register_buffer("angles", angles)

    def forward(self, x, t):
        t = t[:, None] * self.angles
        t = self.time(torch.cat([t.sin(), t.cos()], 1))
        x = self.first(x)
        kept = [x]
        for stage in self.down:
            x = stage(x) if isinstance(stage, nn.Conv2d) else stage[1](stage[0](x, t))
            kept.append(x)
        x = self.middle[2](self.middle[1](self.middle[0](x, t)), t)
        for stage in self.up:
            if isinstance(stage, nn.Conv2d):
                x = stage(F.interpolate(x, scale_factor=2, mode="nearest"))
            else:
                x = stage[1](stage[0](torch.cat([x, kept.pop()], 1), t))
        return self.out(F.silu(self.norm(x)))


class Denoiser(nn.Module):
    """A U-Net that learns the noise of the cosine schedule."""

    def __init__(self, base):
        super().__init__()
        self.net = UNet(base)

    def loss(self, x):
        t = torch.rand(len(x))
        signal = (0.5 * math.pi * t).cos()[:, None, None, None]
        noise = torch.randn_like(x)
        noisy = signal * (2 * x - 1) + (1 - signal.square()).sqrt() * noise
        return F.mse_loss(self.net(noisy, 1000 * t), noise)


def torch_training(model, batch, steps):
    """Pictures a second."""
    data = torch.rand(2048, 1, 28, 28)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    start = None
    warm = max(2, steps // 10)
    for step in range(warm + steps):
        if step == warm:
            start = time.perf_counter()
        x = data[torch.randint(len(data), (batch,))]
        loss = model.loss(x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()
    return steps * batch / (time.perf_counter() - start)


@torch.no_grad()
def torch_forward(net, batch, passes):
    x, t = torch.randn(batch, 1, 28, 28), torch.full((batch,), 500.0)
    net(x, t)
    start = time.perf_counter()
    for _ in range(passes):
        net(x, t)
    return passes * batch / (time.perf_counter() - start)


def hotfire_training(args, dir, config, batch, steps, options=()):
    """Pictures a second between the first and the last logged step: start and evaluation don't count."""
    every = max(1, steps // 10)
    command = [args.hotfire, "train", f"configs/{config}.toml", "--quiet", f"run.dir={dir}", "run.name=run"]
    command += [f"train.batch_size={batch}", "train.epochs=0", f"train.steps={steps + every}", f"train.log_interval={every}"]
    # Batches of one size: the data are as many as fill them.
    command += ["run.threads=2", "train.eval_interval=0", "train.checkpoint_interval=0"]
    command += [f"data.train_limit={10_000 // batch * batch}", "data.test_limit=100", *options]
    subprocess.run(command, check=True)
    records = [json.loads(line) for line in (Path(dir) / "run" / "metrics.jsonl").read_text().splitlines()]
    records = [r for r in records if "grad_norm" in r]
    first, last = records[0], records[-1]
    return batch * (last["step"] - first["step"]) / (last["time"] - first["time"])


def hotfire_forward(args, dir, passes):
    """Pictures a second of the sampler, which runs the network once a picture and step: two lengths, subtracted."""
    def seconds(steps):
        start = time.perf_counter()
        command = [args.hotfire, "sample", f"{dir}/run", "--count", "64", "--out", f"{dir}/grid.png", f"steps={steps}"]
        subprocess.run([*command, "sampler=ddim"], check=True, capture_output=True)
        return time.perf_counter() - start

    short = seconds(2)
    return 64 * passes / (seconds(2 + passes) - short)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hotfire", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default="ae,vae,unet,unet16")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(1)
    found = {}

    def note(key, value):
        found.setdefault(key, []).append(value)
        print(f"{key}: {value:,.0f}", flush=True)

    for _ in range(args.rounds):
        for model in args.models.split(","):
            with tempfile.TemporaryDirectory() as dir:
                if model == "ae":
                    note("AE training, hotfire (img/s)", hotfire_training(args, dir, "ae-mnist", 128, 1000))
                    note("AE training, torch (img/s)", torch_training(Autoencoder(), 128, 500))
                elif model == "vae":
                    note("VAE training, hotfire (img/s)", hotfire_training(args, dir, "vae-mnist", 128, 200))
                    note("VAE training, torch (img/s)", torch_training(Vae(), 128, 100))
                else:
                    base = 32 if model == "unet" else 16
                    steps = 20 if model == "unet" else 50
                    options = [f"model.base_channels={base}", "model.eval_samples=1", "model.sample_steps=2"]
                    speed = hotfire_training(args, dir, "diffusion-mnist", 64, steps, options)
                    note(f"U-Net {base} training, hotfire (img/s)", speed)
                    denoiser = Denoiser(base)
                    note(f"U-Net {base} training, torch (img/s)", torch_training(denoiser, 64, steps // 2))
                    note(f"U-Net {base} forward, hotfire (img/s)", hotfire_forward(args, dir, 20))
                    note(f"U-Net {base} forward, torch (img/s)", torch_forward(denoiser.net, 64, 10))
    for base in (16, 32):
        print(f"parameters of torch's U-Net {base}: {sum(p.numel() for p in UNet(base).parameters()):,}")
    print("\nmedians")
    for key, values in found.items():
        print(f"{key}: {statistics.median(values):,.0f}")


if __name__ == "__main__":
    main()
