"""GPT sampling and MiniLM inference in PyTorch eager, beside hotfire, in alternation; run.py times GPT training.

    python bench/peers/text_models.py --hotfire target/release/hotfire [--minilm FOLDER] [--rounds 3]

Needs torch. Each round runs one side after the other, so that both meet the same noise; medians are printed.
The GPT is nanoGPT's CPU setting: 4 layers, 4 heads, 128 wide, block 64, no biases, tied head.
"""

import argparse
import json
import math
import statistics
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.norm_2 = nn.LayerNorm(width, bias=False)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (p.view(b, t, self.heads, c // self.heads).transpose(1, 2) for p in self.qkv(self.norm_1(x)).split(c, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.contract(F.gelu(self.expand(self.norm_2(x))))


class Gpt(nn.Module):
    def __init__(self, vocab=65, block=64, layers=4, heads=4, width=128):
        super().__init__()
        self.block = block
        self.tokens = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(block, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.apply(lambda m: nn.init.normal_(m.weight, std=0.02) if isinstance(m, (nn.Linear, nn.Embedding)) else None)
        for block_ in self.blocks:
            for layer in (block_.proj, block_.contract):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * layers))

    def forward(self, ids):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.tokens.weight.T


@torch.no_grad()
def sample_uncached(net, tokens):
    ids = torch.zeros((1, 1), dtype=torch.long)
    start = time.perf_counter()
    for _ in range(tokens):
        logits = net(ids[:, -net.block :])[:, -1] / 0.8
        ids = torch.cat([ids, torch.multinomial(F.softmax(logits, -1), 1)], 1)
    return tokens / (time.perf_counter() - start)


class MiniLm:
    """The encoder from its safetensors file, with scaled_dot_product_attention."""

    def __init__(self, folder):
        raw = (Path(folder) / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        self.w = {}
        for name, entry in json.loads(raw[8 : 8 + length]).items():
            if name != "__metadata__" and entry["dtype"] == "F32":
                a, b = entry["data_offsets"]
                values = torch.frombuffer(bytearray(raw[8 + length + a : 8 + length + b]), dtype=torch.float32)
                self.w[name] = values.view(entry["shape"])

    def linear(self, x, name):
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def norm(self, x, name):
        return F.layer_norm(x, (x.shape[-1],), self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-12)

    @torch.no_grad()
    def embed(self, ids):
        w = self.w
        b, t = ids.shape
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:t]
        x = self.norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for i in range(6):
            layer = f"encoder.layer.{i}"
            heads = (
                self.linear(x, f"{layer}.attention.self.{p}").view(b, t, 12, 32).transpose(1, 2)
                for p in ("query", "key", "value")
            )
            y = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(b, t, 384)
            x = self.norm(x + self.linear(y, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
            y = self.linear(F.gelu(self.linear(x, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
            x = self.norm(x + y, f"{layer}.output.LayerNorm")
        return F.normalize(x.mean(1), dim=1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hotfire", required=True)
    parser.add_argument("--minilm")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(1)
    net = Gpt()
    found = {}

    def note(key, value):
        found.setdefault(key, []).append(value)
        print(f"{key}: {value:,.0f}", flush=True)

    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as dir:
            options = [f"run.dir={dir}", "run.name=gpt", "train.steps=20", "train.eval_interval=0", "run.threads=2"]
            subprocess.run([args.hotfire, "train", "configs/gpt-shakespeare.toml", "--quiet", *options], check=True)
            out = subprocess.run([args.hotfire, "sample", f"{dir}/gpt", "tokens=1000"], check=True, capture_output=True, text=True)
            note("GPT sampling, hotfire with cache (tokens/s)", float(out.stdout.split("tokens_per_second=")[1].split()[0]))
            note("GPT sampling, torch without cache (tokens/s)", sample_uncached(net, 200))
            if args.minilm:
                # 30 words of one piece each: 32 tokens with [CLS] and [SEP].
                file = Path(dir) / "sentences.txt"
                file.write_text("\n".join([" ".join(["time"] * 30)] * 32 * 20))
                bench = [args.hotfire, "embed", "--model", args.minilm, "--input", str(file), "--time"]
                out = subprocess.run(bench, check=True, capture_output=True, text=True)
                note("MiniLM, hotfire (sentences/s)", float(out.stdout.split("sentences_per_second=")[1].split()[0]))
                model, ids = MiniLm(args.minilm), torch.full((32, 32), 2051)
                model.embed(ids)
                start = time.perf_counter()
                for _ in range(10):
                    model.embed(ids)
                note("MiniLM, torch (sentences/s)", 320 / (time.perf_counter() - start))
    print("\nmedians")
    for key, values in found.items():
        print(f"{key}: {statistics.median(values):,.0f}")


if __name__ == "__main__":
    main()
