"""Distances between distributions, against values written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from icltool.components.learners.interventions.losses import cross_entropy, cut, divergence, whole


def logits_of(*rows: list[float]) -> torch.Tensor:
    """Logits of distributions that are written as probabilities."""
    return torch.tensor(rows).log()


TEACHER = logits_of([0.5, 0.25, 0.25], [0.1, 0.8, 0.1])
STUDENT = logits_of([0.25, 0.5, 0.25], [0.2, 0.4, 0.4])


def test_the_divergence_of_an_answer_of_two_tokens_is_the_value_written_out() -> None:
    """The first answer token counts like the second (the published mask left it out)."""
    first = 0.5 * math.log(0.5 / 0.25) + 0.25 * math.log(0.25 / 0.5)
    second = 0.1 * math.log(0.1 / 0.2) + 0.8 * math.log(0.8 / 0.4) + 0.1 * math.log(0.1 / 0.4)
    assert first == pytest.approx(0.25 * math.log(2))
    assert float(divergence(whole(TEACHER), STUDENT)) == pytest.approx((first + second) / 2, rel=1e-6)


def test_it_is_teacher_to_student_and_not_the_other_way_round() -> None:
    there, back = divergence(whole(TEACHER), STUDENT), divergence(whole(STUDENT), TEACHER)
    assert abs(float(there) - float(back)) > 0.01


def test_a_temperature_flattens_both_sides_and_scales_by_its_square() -> None:
    def flat(row: list[float]) -> list[float]:
        powers = [p ** (1 / 2) for p in row]
        return [p / sum(powers) for p in powers]

    expected = np.mean(
        [
            sum(p * math.log(p / q) for p, q in zip(flat(a), flat(b), strict=True))
            for a, b in zip(TEACHER.exp().tolist(), STUDENT.exp().tolist(), strict=True)
        ]
    )
    assert float(divergence(whole(TEACHER, 2.0), STUDENT, 2.0)) == pytest.approx(4 * expected, rel=1e-5)


def test_cut_distributions_count_the_other_tokens_as_one_outcome() -> None:
    teacher, student = logits_of([0.5, 0.3, 0.15, 0.05]), logits_of([0.25, 0.25, 0.3, 0.2])
    actual = cut(teacher, 2)
    assert actual.tokens is not None
    assert actual.rest is not None
    assert actual.tokens.tolist() == [[0, 1]]
    assert float(actual.rest) == pytest.approx(math.log(0.2), rel=1e-5)
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.3 * math.log(0.3 / 0.25) + 0.2 * math.log(0.2 / 0.5)
    assert float(divergence(actual, student)) == pytest.approx(by_hand, rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.5, 1.0, 3.0]))
def test_a_cut_divergence_is_never_larger_than_the_whole_one(seed: int, k: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = (3 * torch.randn(4, 10, generator=generator) for _ in range(2))
    exact = float(divergence(whole(teacher, temperature), student, temperature))
    actual = float(divergence(cut(teacher, k, temperature), student, temperature))
    assert -1e-5 <= actual <= exact + 1e-5
    if k >= 9:  # one token is left, alone in its outcome; or none
        assert actual == pytest.approx(exact, rel=1e-3, abs=1e-5)


def test_no_divergence_between_equal_distributions_and_finite_where_the_teacher_is_certain() -> None:
    assert float(divergence(whole(TEACHER), TEACHER)) == pytest.approx(0, abs=1e-7)
    certain = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    student = logits_of([0.25, 0.5, 0.25]).requires_grad_()
    for teacher in (whole(certain), cut(certain, 1)):
        value = divergence(teacher, student)
        assert float(value.detach()) == pytest.approx(math.log(4), rel=1e-5)
        (gradient,) = torch.autograd.grad(value, student)
        assert torch.isfinite(gradient).all()


def test_cross_entropy_is_the_mean_over_tokens() -> None:
    value = float(cross_entropy(STUDENT, torch.tensor([1, 2])))
    assert value == pytest.approx((-math.log(0.5) - math.log(0.4)) / 2, rel=1e-6)
