# SPDX-License-Identifier: Apache-2.0
"""TempScale for an encoder of Transformers: a temperature in every layer, and what it changes.

Embeddings of long texts collapse: softmax over n tokens flattens as n grows, each layer averages
more tokens, and texts become alike. TempScale divides scores and mask by tau < 1 in all layers
(Zhou et al., Length-Induced Embedding Collapse in PLM-based Models, ACL 2025). Which tau suits a
model is for its evaluation to say; this script shows what becomes of the attention:

    share   effective tokens / tokens: how much of a text each token attends to, on average
    gain    the high-frequency gain of a head: below 1, it brings tokens closer together
    cosine  mean cosine of the embeddings (mean pooling) of different texts: 1 is full collapse

Needs Torch. With `transformers` installed the model is a BERT of random weights, without it one of
a few lines of Torch; --model takes a folder with a model of your own and its tokenizer:

    python examples/tempscale_transformers.py --model path/to/all-MiniLM-L6-v2 --temperature 0.8
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from embedcore import attention, datasets
from torch import Tensor, nn

HIDDEN, HEADS, LAYERS, VOCABULARY = 128, 4, 4, 1000
LENGTHS = (16, 64, 256)
TEXTS = 8


def tempscale_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attend as the interface of Transformers wants it, with ``softmax((scores + mask) / tau)``.

    query, key and value are (texts, heads, tokens, columns), the mask is additive; the output is
    (texts, tokens, heads, columns), and the weights (texts, heads, tokens, tokens).
    """
    tau = module.config.tempscale
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(2, 3) * (scale / tau)
    if attention_mask is not None:
        # The smallest finite number stays finite.
        scores = scores + (attention_mask / tau).clamp(min=torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    kept = nn.functional.dropout(weights, dropout, module.training)
    return (kept @ value).transpose(1, 2).contiguous(), weights


def apply_tempscale(model: Any, tau: float) -> None:
    """Make every layer of a model attend at the temperature tau; 1 is what it was trained with.

    Works for encoders that attend by the interface of Transformers (4.53 or later; BERT, RoBERTa,
    ModernBERT, ...). T5 adds its position bias in its own code: divide there, by the same tau.
    """
    model.config.tempscale = float(tau)
    if isinstance(model, TinyEncoder):
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register("tempscale", tempscale_attention)
    AttentionMaskInterface.register("tempscale", eager_mask)
    model.set_attn_implementation("tempscale")


def measure(model: Any, tokens: Tensor) -> tuple[float, float, float]:
    """Return share, gain and cosine (see above) of texts of equal length (texts, tokens)."""
    mask = torch.ones_like(tokens)
    with torch.inference_mode():
        output = model(input_ids=tokens, attention_mask=mask, output_attentions=True)
        weights = torch.stack(output.attentions).float()  # (layers, texts, heads, n, n)
        share = attention.effective_tokens(weights).mean() / tokens.shape[1]
        gain = attention.high_frequency_gain(weights).mean()
        embeddings = nn.functional.normalize(
            attention.mean_pool(output.last_hidden_state.float()), dim=1
        )
        cosines = embeddings @ embeddings.T
        others = cosines[~torch.eye(len(cosines), dtype=torch.bool)]
    return float(share), float(gain), float(others.mean())


class TinyEncoder(nn.Module):
    """BERT in small, for where Transformers is not installed: called and configured alike."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(tempscale=1.0)
        self.words = nn.Embedding(VOCABULARY, HIDDEN)
        self.places = nn.Embedding(max(LENGTHS), HIDDEN)
        self.first_norm = nn.LayerNorm(HIDDEN)
        self.layers = nn.ModuleList(TinyLayer(self.config) for _ in range(LAYERS))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, output_attentions: bool = True
    ) -> SimpleNamespace:
        x = self.words(input_ids) + self.places.weight[: input_ids.shape[1]]
        x = self.first_norm(x)
        hidden = torch.finfo(x.dtype).min * (attention_mask == 0)[:, None, None]
        attentions = []
        for layer in self.layers:
            x, weights = layer(x, hidden)
            attentions.append(weights)
        return SimpleNamespace(last_hidden_state=x, attentions=attentions)


class TinyLayer(nn.Module):
    """One layer: attention and two linear maps, each added to what comes in and normalised."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        self.projections = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.out = nn.Linear(HIDDEN, HIDDEN)
        self.feed_forward = nn.Sequential(
            nn.Linear(HIDDEN, 4 * HIDDEN), nn.GELU(), nn.Linear(4 * HIDDEN, HIDDEN)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        parts = self.projections(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        pooled, weights = tempscale_attention(self, *parts, mask)
        x = self.norms[0](x + self.out(pooled.flatten(2)))
        return self.norms[1](x + self.feed_forward(x)), weights


def random_model() -> Any:
    """Return an encoder of random weights whose scores spread like those of a trained one.

    Weights of variance 1 / columns give scores of variance 1. BERT's own start, 0.02, would give
    equal weights to all tokens, at any temperature.
    """
    torch.manual_seed(0)
    try:
        from transformers import BertConfig, BertModel
    except ImportError:
        model: Any = TinyEncoder()
    else:
        config = BertConfig(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, intermediate_size=4 * HIDDEN,
            max_position_embeddings=max(LENGTHS),
        )  # fmt: skip
        model = BertModel(config, add_pooling_layer=False)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
    return model.eval()


def random_texts(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(VOCABULARY, (TEXTS, length), generator=generator)


def gloss_texts(tokenizer: Any, length: int) -> Tensor:
    """Texts of `length` tokens, made of definitions behind one another, all different."""
    glosses = datasets.load_glosses()
    order = np.random.default_rng(length).permutation(len(glosses.texts))
    rows = []
    for part in np.array_split(order, TEXTS):
        text = ". ".join(glosses.texts[row] for row in part)
        rows.append(tokenizer(text, truncation=True, max_length=length)["input_ids"])
    return torch.tensor(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", metavar="FOLDER", help="default: a small one, random weights")
    parser.add_argument("--temperature", type=float, default=0.5, help="tau (default: %(default)s)")
    options = parser.parse_args()

    if options.model is None:
        model = random_model()
    else:
        from transformers import AutoModel, AutoTokenizer

        model = AutoModel.from_pretrained(options.model).eval()
        tokenizer = AutoTokenizer.from_pretrained(options.model)
    print(f"{type(model).__name__} from {options.model or 'random weights'}")
    print("tokens    tau   share    gain  cosine")
    for length in LENGTHS:
        tokens = random_texts(length) if options.model is None else gloss_texts(tokenizer, length)
        for tau in (1.0, options.temperature):
            apply_tempscale(model, tau)
            share, gain, cosine = measure(model, tokens)
            print(f"{length:6d} {tau:6.2f} {share:7.2f} {gain:7.3f} {cosine:7.3f}")


if __name__ == "__main__":
    main()
