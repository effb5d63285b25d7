from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from icltool.components.learners.lever_lm.model import LeverLMModel, feature_tensors
from icltool.components.learners.lever_lm.options import VARIANTS, LeverLMOptions
from icltool.components.learners.lever_lm.rows import build_rows
from icltool.contracts.options import options_from
from icltool.errors import ConfigError, DataError
from tests.components.learners.synthetic import make_index

N, DIM = 12, 6
NETWORKS = ("gpt2", "lstm")


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def small_model(**options: object) -> LeverLMModel:
    torch.manual_seed(0)
    chosen = {"n_embd": 16, "n_head": 2, "n_positions": 16, **options}
    return LeverLMModel(N, DIM, options_from("lever-lm", LeverLMOptions, chosen)).double().eval()


def some_features(rows: int, shots: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    query = {m: torch.randn(rows, DIM, generator=generator, dtype=torch.float64) for m in ("image", "text")}
    icds = {m: torch.randn(rows, shots, DIM, generator=generator, dtype=torch.float64) for m in ("image", "text")}
    return query, icds


def adapted(model: LeverLMModel, modality: str, values: torch.Tensor) -> torch.Tensor:
    first, _, second = model.adapters[modality]
    return functional.linear(
        functional.relu(functional.linear(values, first.weight, first.bias)), second.weight, second.bias
    )


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_loss_equals_a_forward_pass_written_by_hand(variant: str) -> None:
    """Against GPT2LMHeadModel with the same weights, position by position."""
    model = small_model(variant=variant)
    rows = build_rows(np.array([0, 1]), np.array([[3, 5], [8, 2]]), model.vocabulary, reverse=False)
    query, icds = some_features(2, 2)
    reference = GPT2LMHeadModel(
        GPT2Config(vocab_size=N + 3, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=N + 1, eos_token_id=N)
    ).double()
    reference.transformer.load_state_dict(model.network.transformer.state_dict())
    reference.eval()
    table = reference.transformer.wte.weight
    embeddings = table[rows.tokens].clone()
    asks, shows = {
        "query_img_icd_idx": (["image"], []),
        "query_img_icd_img": (["image"], ["image"]),
        "query_img_icd_text": (["image"], ["text"]),
        "query_img_icd_img_text": (["image"], ["image", "text"]),
        "query_img_text_icd_img_text": (["image", "text"], ["image", "text"]),
        "query_text_icd_text": (["text"], ["text"]),
    }[variant]
    for modality in asks:
        embeddings[:, 1] += adapted(model, modality, query[modality])
    for modality in shows:
        embeddings[:, 2:4] += adapted(model, modality, icds[modality])
    logits = reference(inputs_embeds=embeddings).logits
    expected = 0.0
    for row in range(2):
        for position in range(4):
            expected -= float(logits[row, position].log_softmax(-1)[rows.tokens[row, position + 1]])
    total, count = model.loss(rows.tokens, rows.labels, query, icds)
    assert int(count) == 8
    assert float(total) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("network", NETWORKS)
def test_rows_of_several_lengths_cost_what_they_cost_alone(network: str) -> None:
    model = small_model(network=network)
    query, icds = some_features(2, 3)
    both = build_rows(np.array([0, 1]), np.array([[3, 5, 1], [8, -1, -1]]), model.vocabulary, reverse=False)
    total, count = model.loss(both.tokens, both.labels, query, icds)
    alone = [
        model.loss(
            rows.tokens,
            rows.labels,
            {m: values[r : r + 1] for m, values in query.items()},
            {m: values[r : r + 1, :k] for m, values in icds.items()},
        )
        for r, k in ((0, 3), (1, 1))
        for rows in [
            build_rows(np.array([r]), both.tokens[r : r + 1, 2 : 2 + k].numpy(), model.vocabulary, reverse=False)
        ]
    ]
    assert float(total) == pytest.approx(sum(float(t) for t, _ in alone), rel=1e-9)
    assert int(count) == sum(int(c) for _, c in alone) == 5 + 3


@pytest.mark.parametrize("network", NETWORKS)
def test_a_later_token_cannot_change_an_earlier_prediction(network: str) -> None:
    model = small_model(network=network)
    query, icds = some_features(1, 3)
    tokens = torch.tensor([[N + 1, N + 2, 3, 5, 1, N]])
    before = model(tokens, query, icds)
    changed = {m: torch.cat([values[:, :2], values[:, 2:] + 1], 1) for m, values in icds.items()}
    after = model(torch.tensor([[N + 1, N + 2, 3, 5, 9, N]]), query, changed)
    assert torch.allclose(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


@pytest.mark.parametrize("network", NETWORKS)
def test_advancing_step_by_step_equals_one_pass(network: str) -> None:
    model = small_model(network=network)
    query, icds = some_features(2, 3)
    tokens = torch.tensor([[N + 1, N + 2, 3, 5, 1, N], [N + 1, N + 2, 8, 0, 4, N]])
    whole = model(tokens, query, icds)
    hidden, state = model.network.advance(model.start_embedding(query), keep=True)
    steps = [model.network.logits(hidden)]
    for k in range(3):
        one = {m: values[:, k : k + 1] for m, values in icds.items()}
        hidden, state = model.network.advance(model.icd_embedding(tokens[:, 2 + k : 3 + k], one), state, keep=True)
        steps.append(model.network.logits(hidden))
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-12)


def test_norm_makes_length_irrelevant() -> None:
    query, icds = some_features(1, 2)
    tokens = torch.tensor([[N + 1, N + 2, 3, 5, N]])
    longer = {m: 7 * values for m, values in query.items()}
    normed, plain = small_model(norm=True), small_model(norm=False)
    assert torch.allclose(normed(tokens, query, icds), normed(tokens, longer, icds))
    assert not torch.allclose(plain(tokens, query, icds), plain(tokens, longer, icds))


def test_without_adapter_features_are_added_as_they_are() -> None:
    model = small_model(adapter=False, n_embd=DIM)
    query, _ = some_features(1, 2)
    start = model.start_embedding(query)
    assert torch.allclose(start[:, 1], model.network.embed(torch.tensor([N + 2])) + query["image"])
    with pytest.raises(ConfigError, match="do not fit n_embd"):
        small_model(adapter=False, n_embd=16)


def test_adapters_have_the_published_widths() -> None:
    assert [layer.out_features for layer in small_model().adapters["image"][::2]] == [64, 16]
    assert [layer.out_features for layer in small_model(network="lstm").adapters["image"][::2]] == [16, 16]


def test_features_are_checked() -> None:
    index = make_index(10)
    with pytest.raises(ValueError, match="text embeddings are missing"):
        feature_tensors(type(index)(index.ids, index.image_ids, index.groups, image=index.image), frozenset({"text"}))
    assert index.image is not None
    index.image[3, 2] = np.nan
    with pytest.raises(DataError, match="not finite"):
        feature_tensors(index, frozenset({"image"}))
