"""What is left out within a model changes nothing that is asked for."""

from __future__ import annotations

import pytest
import torch

from icltool.components.models.shared.logits_subset import SharedImages, TokenSubset


def test_an_image_is_projected_once_for_all_rows() -> None:
    layer, seen = torch.nn.Linear(4, 6), []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    sharing = SharedImages([layer])
    images, rows = torch.randn(3, 5, 4), torch.tensor([[0, 1], [0, 2], [1, 0], [2, 2]])
    whole = images[rows].flatten(1, 2)  # [4, 10, 4]
    plain = layer(whole)
    with sharing.of(images, rows):
        shared, again = layer(whole), layer(whole)
    torch.testing.assert_close(shared, plain)
    torch.testing.assert_close(again, plain)
    assert seen == [(4, 10, 4), (3, 5, 4), (0, 5, 4)]
    torch.testing.assert_close(layer(whole + 1), torch.nn.functional.linear(whole + 1, layer.weight, layer.bias))


def test_wanted_tokens_come_out_the_same_and_others_are_zero() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.SiLU(), torch.nn.Linear(8, 4))
    subset = TokenSubset(layer)
    states = torch.randn(2, 5, 4)
    plain = layer(states)
    rows, columns = torch.tensor([0, 0, 1]), torch.tensor([1, 4, 2])
    with subset.of(rows, columns):
        actual = layer(states)
    torch.testing.assert_close(actual[rows, columns], plain[rows, columns])
    actual[rows, columns] = 0
    assert not actual.any()
    with subset.of(rows[:0], columns[:0]):
        assert not layer(states).any()


def test_an_error_inside_leaves_the_layers_as_they_were() -> None:
    layer = torch.nn.Linear(4, 4)
    sharing, subset = SharedImages([layer]), TokenSubset(layer)
    states = torch.randn(2, 3, 4)
    plain = layer(states)
    table, rows = torch.randn(1, 3, 4), torch.zeros(2, 1, dtype=torch.long)
    with pytest.raises(RuntimeError, match="memory"), sharing.of(table, rows), subset.of(rows[:, 0], rows[:, 0]):
        raise RuntimeError("out of memory")
    torch.testing.assert_close(layer(states), plain)
