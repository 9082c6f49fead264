# SPDX-License-Identifier: Apache-2.0
"""TempScale on an encoder: the formula, every layer, and what becomes of the attention."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from support.examples import load_example  # noqa: E402

LENGTH = 48


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_example("tempscale_transformers")


@pytest.fixture(params=["tiny", "transformers"])
def model(example: ModuleType, request: pytest.FixtureRequest) -> Any:
    if request.param == "transformers":
        pytest.importorskip("transformers")
        return example.random_model()
    torch.manual_seed(0)
    return example.TinyEncoder().eval()


@pytest.fixture
def tokens(example: ModuleType) -> Any:
    return example.random_texts(LENGTH)


def run(model: Any, tokens: Any, mask: Any = None) -> Any:
    mask = torch.ones_like(tokens) if mask is None else mask
    with torch.inference_mode():
        return model(input_ids=tokens, attention_mask=mask, output_attentions=True)


def query_projections(model: Any) -> list[Any]:
    """Weights and biases, of which softmax sees the product with the keys."""
    if hasattr(model, "layers"):
        columns = model.words.embedding_dim
        parts = [(layer.projections.weight, layer.projections.bias) for layer in model.layers]
        return [part[:columns] for pair in parts for part in pair]
    layers = [layer.attention.self.query for layer in model.encoder.layer]
    return [part for query in layers for part in (query.weight, query.bias)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_scores_and_mask_are_divided(example: ModuleType, dtype: str) -> None:
    generator = torch.Generator().manual_seed(1)
    query, key, value = torch.randn(3, 2, 4, 7, 8, generator=generator).to(getattr(torch, dtype))
    mask = torch.randn(2, 1, 7, 7, generator=generator).to(query.dtype)
    mask[1, :, :, 5:] = torch.finfo(mask.dtype).min
    module = torch.nn.Identity()
    module.config = SimpleNamespace(tempscale=0.5)
    pooled, weights = example.tempscale_attention(module, query, key, value, mask)
    q, k, v, m = (part.double() for part in (query, key, value, mask))
    expected = ((q @ k.transpose(2, 3) / 8**0.5 + m) / 0.5).softmax(-1)
    tolerance = 1e-6 if dtype == "float32" else 2e-2
    torch.testing.assert_close(weights.double(), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(
        pooled.double(), (expected @ v).transpose(1, 2), rtol=0, atol=4 * tolerance
    )
    assert not weights[1, ..., 5:].any()


def test_temperature_1_changes_nothing(example: ModuleType, tokens: Any) -> None:
    pytest.importorskip("transformers")
    model = example.random_model()
    mask = (torch.arange(LENGTH) < torch.arange(8, 48, 5)[:, None]).long()
    before = run(model, tokens, mask).last_hidden_state
    example.apply_tempscale(model, 1)
    after = run(model, tokens, mask).last_hidden_state
    valid = mask.bool()
    torch.testing.assert_close(after[valid], before[valid], rtol=1e-4, atol=1e-4)


def test_every_layer_has_it(example: ModuleType, model: Any, tokens: Any) -> None:
    # Without a mask a smaller query is the same thing.
    example.apply_tempscale(model, 0.5)
    scaled = run(model, tokens).last_hidden_state
    example.apply_tempscale(model, 1.0)
    with torch.no_grad():
        for part in query_projections(model):
            part /= 0.5
    torch.testing.assert_close(run(model, tokens).last_hidden_state, scaled, rtol=1e-4, atol=1e-4)


def test_padding_gets_no_weight(example: ModuleType, model: Any, tokens: Any) -> None:
    mask = torch.ones_like(tokens)
    mask[:, 30:] = 0
    example.apply_tempscale(model, 0.1)
    output = run(model, tokens, mask)
    for weights in output.attentions:
        assert not weights[..., 30:].any()
    short = run(model, tokens[:, :30]).last_hidden_state
    torch.testing.assert_close(output.last_hidden_state[:, :30], short, rtol=1e-4, atol=1e-4)


def test_a_lower_temperature_undoes_the_flattening(example: ModuleType, model: Any) -> None:
    measured = {}
    for length in (16, 256):
        for tau in (1.0, 0.5):
            example.apply_tempscale(model, tau)
            measured[length, tau] = example.measure(model, example.random_texts(length))
    share, gain, cosine = ({key: m[i] for key, m in measured.items()} for i in range(3))
    for length in (16, 256):
        assert share[length, 0.5] < share[length, 1.0]
        assert gain[length, 0.5] > gain[length, 1.0]
        assert cosine[length, 0.5] < cosine[length, 1.0]
    assert gain[256, 1.0] < gain[16, 1.0]
    assert cosine[256, 1.0] > cosine[16, 1.0]
