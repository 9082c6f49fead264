# SPDX-License-Identifier: Apache-2.0
"""The tour of `embedcore.attention`: what heads attend to, and how that drowns in long texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import attention
from .output import heading, item, paragraph, table, timed
from .pictures import Pictures
from .sample import Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.floating[Any]]

SHOWN = ("sheep", "cheese", "donor", "harbor", "advance")
FIRST = "cheese"  # the definition that others follow
SIZES = (1, 3, 6, 12, 24)
TEMPERATURES = (1.0, 0.25)
NAMED_SHARE = 0.05  # words below it are not printed


def show(sample: Sample) -> Pictures:
    """Print all steps; return what there is to draw."""
    heads = _heads(sample)
    attention.low_rank_attention(sample.states.hidden[:1], heads)  # starts the threads
    _tokens_of_heads(sample, heads)
    _longer_texts(sample, heads)
    return {"attention.png": lambda: _figure(sample, heads)}


def _heads(sample: Sample) -> NDArray[np.float32]:
    """(d, classes): the mean vector of each class less that of all."""
    vectors = sample.glosses.vectors
    means = np.stack([sample.vectors_of(name).mean(axis=0) for name in sample.class_names])
    return np.ascontiguousarray((means - vectors.mean(axis=0)).T)


def _tokens_of_heads(sample: Sample, heads: NDArray[np.float32]) -> None:
    heading("Low-rank attention: which tokens of a definition does a head attend to?")
    states = sample.states
    count, _, columns = states.hidden.shape
    paragraph(
        f"{heads.shape[1]} heads, one for each class: its mean vector less that of all. Their "
        f"scores are dot products with the hidden states of the tokens of {count} definitions, "
        "punctuation and marks left out; softmax turns them into weights, which pool the tokens."
    )
    weights = {}
    for temperature in TEMPERATURES:
        shape = f"{heads.shape[1]} heads, d = {columns}"
        with timed(f"low_rank_attention(hidden, heads, temperature={temperature}), {shape}"):
            _, weights[temperature] = attention.low_rank_attention(
                states.hidden,
                heads,
                mask=_word_mask(sample),
                temperature=temperature,
                return_weights=True,
            )
    effective = {t: attention.effective_tokens(weights[t]) for t in TEMPERATURES}
    for lemma in SHOWN:
        row = _row(sample, lemma)
        head = int(states.labels[row])
        item("-", f"{sample.entry(states.rows[row])} (head {sample.class_names[head]})")
        pieces = int(_word_mask(sample)[row].sum())
        for t in TEMPERATURES:
            count_text = f"{effective[t][row, head]:.1f} of {pieces} tokens"
            words = _heaviest_words(states.tokens[row], weights[t][row, head])
            print(f"       T = {t:<5g} {count_text:<18} {words}")


def _longer_texts(sample: Sample, heads: NDArray[np.float32]) -> None:
    heading("Length collapse: the same head in longer texts")
    hidden, bounds = _growing_texts(sample)
    head = int(sample.states.labels[_row(sample, FIRST)])
    words = sample.states.tokens[_row(sample, FIRST)]
    place = [w for w in words if _is_word(w)].index("food")
    paragraph(
        f"The definition of {FIRST}, and behind it 2 to {SIZES[-1] - 1} others, as one text. "
        f"Of the head {sample.class_names[head]}: the weight of its word 'food', and the effective "
        "number of tokens, which is the exponential of the entropy of the weights."
    )
    columns = []
    for t in TEMPERATURES:
        with timed(f"low_rank_attention(hidden, heads, cu_seqlens=bounds, temperature={t})"):
            _, weights = attention.low_rank_attention(
                hidden, heads, cu_seqlens=bounds, temperature=t, return_weights=True
            )
        effective = attention.effective_tokens(weights, bounds)[:, head]
        columns.append([weights[head, bounds[:-1] + place], effective])
    cells = [cell for t in TEMPERATURES for cell in (f"T = {t:g}: 'food'", "effective")]
    table(
        ["definitions", "tokens", *cells],
        [
            [str(size), str(tokens), *_cells(columns, i)]
            for i, (size, tokens) in enumerate(zip(SIZES, np.diff(bounds), strict=True))
        ],
    )
    (wide, _), (narrow, _) = columns
    paragraph(
        f"At temperature {TEMPERATURES[0]:g} the word that matters drowns: from {wide[0]:.0%} to "
        f"{wide[-1]:.0%} of the weight. At {TEMPERATURES[1]:g} it keeps {narrow[-1]:.0%}."
    )


def _cells(columns: Sequence[Sequence[Floats]], i: int) -> list[str]:
    return [text for own, effective in columns for text in (f"{own[i]:.2f}", f"{effective[i]:.1f}")]


def _growing_texts(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Tokens of texts of 1, 3, ... definitions behind one another, and the borders of the texts."""
    states = sample.states
    first = _row(sample, FIRST)
    others = np.argsort(states.rows % 7, kind="stable")  # of mixed classes, in a fixed order
    order = [first, *(row for row in others if row != first)]
    tokens = [states.hidden[row][_word_mask(sample)[row]] for row in order]
    texts = [np.concatenate(tokens[:size]) for size in SIZES]
    return np.concatenate(texts), np.cumsum([0, *map(len, texts)])


def _row(sample: Sample, lemma: str) -> int:
    """Row of `lemma` in the states."""
    lemmas = [sample.glosses.lemmas[row][0] for row in sample.states.rows]
    return lemmas.index(lemma)


def _is_word(piece: str) -> bool:
    return piece.removeprefix("##").isalnum()


def _word_mask(sample: Sample) -> NDArray[np.bool_]:
    """(r, L): neither padding, punctuation nor a mark as [CLS]."""
    mask = np.zeros(sample.states.hidden.shape[:2], dtype=bool)
    for row, pieces in enumerate(sample.states.tokens):
        mask[row, : len(pieces)] = [_is_word(piece) for piece in pieces]
    return mask


def _heaviest_words(pieces: Sequence[str], weights: Floats) -> str:
    """Words, put together from their pieces, with their shares of the weight."""
    words: list[str] = []
    shares: list[float] = []
    for piece, weight in zip(pieces, weights[: len(pieces)].tolist(), strict=True):
        if piece.startswith("##"):
            words[-1] += piece.removeprefix("##")
            shares[-1] += weight
        else:
            words.append(piece)
            shares.append(weight)
    order = np.argsort(-np.array(shares), kind="stable")[:3]
    named = [i for i in order if shares[i] >= NAMED_SHARE]
    return ", ".join(f"{words[i]} {shares[i]:.2f}" for i in named)


def _figure(sample: Sample, heads: NDArray[np.float32]) -> Figure:
    from matplotlib.figure import Figure

    from .. import plot

    states, row = sample.states, _row(sample, FIRST)
    kept = _word_mask(sample)[row]
    pieces = [piece for piece in states.tokens[row] if _is_word(piece)]
    figure = Figure(figsize=(7.2, 7.4), layout="constrained")
    for axes, t in zip(figure.subplots(2), TEMPERATURES, strict=True):
        _, weights = attention.low_rank_attention(
            states.hidden[row][kept][None], heads, temperature=t, return_weights=True
        )
        plot.attention(weights[0], pieces, heads=sample.class_names, largest=1.0, ax=axes)
        axes.set_title(f"Attention at temperature {t:g}")
    return figure
