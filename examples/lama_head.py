# SPDX-License-Identifier: Apache-2.0
"""Train a LAMA head to name the class of a definition, beside other poolings of its tokens.

The tokens are hidden states of MiniLM for 900 definitions of ten WordNet classes, after the fourth
of its six layers. (After the last one, which was trained for it, mean pooling is hard to beat.)
Each pooling makes one vector of a definition, and the classifier behind it is the same: layer norm,
dropout, linear. All are trained on two thirds of the definitions, each at the learning rate that
suits it best, and asked about the others. Needs Torch; takes about half a minute on two cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from embedcore import attention, datasets
from embedcore.torch import AttentionPooling, LowRankAttention, MeanPooling
from torch import Tensor, nn

PATH = Path(__file__).resolve().parent / "data" / "token_states.npz"
HEADS = 8
TEMPERATURE = 0.25
BATCH = 60
DECAY, DROPOUT = 0.1, 0.3
SHOWN = 4  # definitions in the figure


class Data(NamedTuple):
    tokens: Tensor  # (texts, longest, columns)
    lengths: Tensor  # (texts,)
    labels: Tensor  # (texts,)

    def at(self, rows: Tensor) -> Data:
        return Data(*(part[rows] for part in self))


class Mean(nn.Module):
    def __init__(self, columns: int) -> None:
        super().__init__()
        self.pool = MeanPooling()

    def forward(self, data: Data) -> Tensor:
        return self.pool(data.tokens, lengths=data.lengths)


class Multihead(nn.Module):
    """One learned query that attends to the tokens, as in SigLIP."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, columns) * columns**-0.5)
        self.attend = nn.MultiheadAttention(columns, HEADS, batch_first=True)

    def forward(self, data: Data) -> Tensor:
        padding = torch.arange(data.tokens.shape[1]) >= data.lengths[:, None]
        probes = self.probe.expand(len(data.tokens), -1, -1)
        pooled, _ = self.attend(
            probes, data.tokens, data.tokens, key_padding_mask=padding, need_weights=False
        )
        return pooled[:, 0]


class Folded(nn.Module):
    """The same function of the same parameters, without keys and values of every token."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        other = Multihead(columns)
        self.pool = AttentionPooling.from_multihead_attention(other.attend, other.probe)

    def forward(self, data: Data) -> Tensor:
        return self.pool(data.tokens, lengths=data.lengths)[:, 0]


class Lama(nn.Module):
    """The mean of the heads, so that the classifier is no wider than that of the others."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.pool = LowRankAttention(columns, HEADS, temperature=TEMPERATURE)

    def forward(self, data: Data) -> Tensor:
        return self.pool(data.tokens, lengths=data.lengths).unflatten(1, (HEADS, -1)).mean(dim=1)


class Pooling(NamedTuple):
    make: Callable[[int], nn.Module]
    rate: float  # of 0.0005, 0.001, ..., 0.008 the best for held-out accuracy


POOLINGS = {
    "mean": Pooling(Mean, 0.004),
    "nn.MultiheadAttention": Pooling(Multihead, 0.002),
    "AttentionPooling (the same)": Pooling(Folded, 0.002),
    "LowRankAttention": Pooling(Lama, 0.008),
}


def train(pooling: Pooling, data: Data, seed: int, epochs: int) -> nn.Sequential:
    torch.manual_seed(seed)
    columns, classes = data.tokens.shape[2], int(data.labels.max()) + 1
    model = nn.Sequential(
        pooling.make(columns),
        nn.LayerNorm(columns, elementwise_affine=False),
        nn.Dropout(DROPOUT),
        nn.Linear(columns, classes),
    )
    batches = -(-len(data.labels) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, pooling.rate, total_steps=epochs * batches
    )
    for _ in range(epochs):
        for rows in torch.randperm(len(data.labels)).split(BATCH):
            part = data.at(rows)
            loss = nn.functional.cross_entropy(model(part), part.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def split(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to train with and rows to ask about, two to one."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[count // 3 :], order[: count // 3]


def accuracy(model: nn.Module, data: Data) -> float:
    with torch.inference_mode():
        return float((model(data).argmax(dim=1) == data.labels).float().mean())


def compare(data: Data, seeds: int, epochs: int) -> nn.Sequential:
    """Print the table; return the model of the last pooling, trained with the last seed."""
    print(f"{'pooling':<28} {'accuracy':<16} {'parameters':>10} {'training':>9}")
    for name, pooling in POOLINGS.items():
        found, seconds = [], []
        for seed in range(seeds):
            known, asked = split(len(data.labels), seed)
            started = time.perf_counter()
            model = train(pooling, data.at(known), seed, epochs)
            seconds.append(time.perf_counter() - started)
            found.append(accuracy(model, data.at(asked)))
        parameters = sum(p.numel() for p in model[0].parameters())
        spread = f"{np.mean(found):.3f} +- {np.std(found):.3f}"
        print(f"{name:<28} {spread:<16} {parameters:10,} {np.median(seconds):7.2f} s", flush=True)
    return model


def examples_of(model: nn.Sequential, data: Data, asked: Tensor) -> list[int]:
    """Some rows of different classes that the model gets right."""
    with torch.inference_mode():
        right = asked[model(data.at(asked)).argmax(dim=1) == data.labels[asked]]
    first: dict[int, int] = {}
    for row in right.tolist():
        first.setdefault(int(data.labels[row]), row)
    return list(first.values())[:SHOWN]


def weights_of(model: nn.Sequential, data: Data) -> np.ndarray:
    """(texts, heads, longest)"""
    with torch.inference_mode():
        return model[0].pool(data.tokens, lengths=data.lengths, return_weights=True)[1].numpy()


def show(weights: np.ndarray, states: datasets.TokenStates, rows: list[int]) -> None:
    """Print the token that each head weighs most, and how many tokens it attends to."""
    effective = attention.effective_tokens(weights)
    for row, heads, counts in zip(rows, weights, effective, strict=True):
        top = [states.tokens[row][t] for t in heads.argmax(axis=1)]
        print(f"\n{states.texts[row]}  ({states.class_names[states.labels[row]]})")
        print(f"  heads weigh most: {', '.join(top)}")
        print(f"  effective tokens: {counts.mean():.1f} of {states.lengths[row]} on average")


def draw(weights: np.ndarray, states: datasets.TokenStates, rows: list[int], path: str) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("\nNo figure: it needs Matplotlib, pip install 'embedcore[plot]'.")
        return
    from embedcore import plot

    figure = Figure(figsize=(9, 2.9 * len(rows)), layout="constrained")
    for axes, row, heads in zip(figure.subplots(len(rows)), rows, weights, strict=True):
        plot.attention(heads, states.tokens[row], ax=axes)
        axes.set_title(states.class_names[states.labels[row]])
    figure.savefig(path, dpi=90)
    print(f"\nWhat each head attends to: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="runs (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--plot", default="lama-head.png", metavar="FILE", help="the figure")
    options = parser.parse_args()

    states = datasets.load_token_states(PATH)
    data = Data(*map(torch.from_numpy, (states.hidden, states.lengths, states.labels)))
    print(f"{len(states.texts)} definitions, {len(states.class_names)} classes")
    model = compare(data, options.seeds, options.epochs)
    _, asked = split(len(data.labels), options.seeds - 1)
    rows = examples_of(model, data, asked)
    weights = weights_of(model, data.at(torch.tensor(rows)))
    show(weights, states, rows)
    draw(weights, states, rows, options.plot)


if __name__ == "__main__":
    main()
