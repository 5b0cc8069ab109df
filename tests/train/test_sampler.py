"""Sampling: hand-computed nuclei, frequencies against the distribution, streams of random numbers."""

import math

import numpy as np
import pytest
import torch

from webdancer.train.sampler import Sampled, mix, sample, turn_seed, uniforms

P = [0.05, 0.5, 0.3, 0.15]


def draw(
    p: list[float], numbers: list[float], *, temperature: float | list[float] = 1.0, top_p: float | list[float] = 1.0
) -> Sampled:
    """One token for each of `numbers`, all from logits whose softmax is `p`."""
    num = len(numbers)
    return sample(
        torch.tensor(p).log().expand(num, -1) + 3.0,  # logits are known up to a constant
        np.broadcast_to(np.array(temperature, dtype=np.float32), num).copy(),
        np.broadcast_to(np.array(top_p, dtype=np.float32), num).copy(),
        np.array(numbers, dtype=np.float32),
    )


def test_a_number_picks_by_cumulative_probability() -> None:
    """Cumulative: 0.05, 0.55, 0.85, 1."""
    sampled = draw(P, [0.0, 0.04, 0.06, 0.54, 0.56, 0.84, 0.86, 1 - 2.0**-23])
    assert sampled.ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sampled.logprobs.tolist() == pytest.approx([math.log(P[id_]) for id_ in sampled.ids.tolist()], abs=1e-5)


def test_temperature_sharpens() -> None:
    """At temperature 0.5 probabilities are squared: 0.0025, 0.25, 0.09, 0.0225 over 0.365."""
    sampled = draw(P, [0.001, 0.5, 0.9, 0.99], temperature=0.5)
    assert sampled.ids.tolist() == [0, 1, 2, 3]
    expected = [math.log(p / 0.365) for p in (0.0025, 0.25, 0.09, 0.0225)]
    assert sampled.logprobs.tolist() == pytest.approx(expected, abs=1e-5)


def test_the_nucleus_is_the_smallest_set_that_holds_top_p() -> None:
    """In falling order 0.5, 0.3, 0.15, 0.05. Of 0.7 the first two are needed: 0.5 and 0.3 over 0.8."""
    sampled = draw(P, [0.0, 0.62, 0.63, 0.999], top_p=0.7)
    assert sampled.ids.tolist() == [1, 1, 2, 2]
    assert sampled.logprobs.tolist() == pytest.approx([math.log(0.625)] * 2 + [math.log(0.375)] * 2, abs=1e-5)


def test_a_tiny_nucleus_holds_the_likeliest() -> None:
    sampled = draw(P, [0.0, 0.5, 0.99], top_p=0.01)
    assert sampled.ids.tolist() == [1, 1, 1]
    assert sampled.logprobs.tolist() == pytest.approx([0.0] * 3, abs=1e-6)


def test_settings_below_what_float32_can_tell_take_the_likeliest() -> None:
    """One client's 1e-50 must not end the turns of all; the log-probability is that at temperature 1, as for 0."""
    sampled = draw(P, [0.0, 0.99, 0.99], temperature=[1.0, 1e-40, 1e-6], top_p=[1e-50, 1.0, 0.5])
    assert sampled.ids.tolist() == [1, 1, 1]
    assert sampled.logprobs.tolist() == pytest.approx([0.0, math.log(0.5), math.log(0.5)], abs=1e-6)


def test_the_nucleus_is_taken_after_temperature() -> None:
    """Squared and normalised: 0.685, 0.247, 0.062, 0.007; 0.9 needs the first two: 0.25 and 0.09 over 0.34."""
    sampled = draw(P, [0.73, 0.74], temperature=0.5, top_p=0.9)
    assert sampled.ids.tolist() == [1, 2]
    assert sampled.logprobs.tolist() == pytest.approx([math.log(0.25 / 0.34), math.log(0.09 / 0.34)], abs=1e-5)


def test_a_nucleus_wider_than_the_first_guess() -> None:
    """500 equal tokens; 0.9 holds 450 of them, more than are looked at first."""
    sampled = draw([1 / 500] * 500, list(np.linspace(0, 0.999, 300)), top_p=0.9005)
    assert sampled.logprobs.tolist() == pytest.approx([-math.log(451)] * 300, abs=1e-3)
    assert len(set(sampled.ids.tolist())) > 250


def test_greedy_and_others_in_one_batch() -> None:
    """Greedy log-probabilities are those at temperature 1."""
    sampled = draw(P, [0.99, 0.99, 0.999], temperature=[0.0, 1.0, 1.0], top_p=[1.0, 1.0, 0.7])
    assert sampled.ids.tolist() == [1, 3, 2]
    assert sampled.logprobs.tolist() == pytest.approx([math.log(0.5), math.log(0.15), math.log(0.375)], abs=1e-5)


def test_a_token_without_probability_is_never_drawn() -> None:
    p = [0.0, 0.5, 0.0, 0.5, 0.0]
    sampled = draw(p, [0.0, 0.25, 0.4999999, 0.5, 0.75, 1 - 2.0**-23])
    assert sampled.ids.tolist() == [1, 1, 1, 3, 3, 3]


@pytest.mark.parametrize("num_tokens", [64, 1000, 4096])
def test_large_vocabularies_are_picked_from_as_by_one_sum(num_tokens: int) -> None:
    """The token is the one whose share of the cumulative sum holds the number, up to rounding at its borders."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(num_tokens, 0.05))
    p[rng.random(num_tokens) < 0.3] = 0
    p /= p.sum()
    numbers = [0.0, 1 - 2.0**-23, *rng.random(300)]
    ids = draw(p.tolist(), numbers).ids.numpy()
    ends = p.cumsum()
    assert (p[ids] > 0).all()
    assert (np.array(numbers) <= ends[ids] + 1e-5).all()
    assert (np.array(numbers) >= ends[ids] - p[ids] - 1e-5).all()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8), (1.3, 0.95)])
def test_frequencies_follow_the_distribution(temperature: float, top_p: float) -> None:
    """Chi-square of 40,000 draws of one stream; 99.9 % of correct samplers stay below the bound."""
    num, rng = 40_000, np.random.default_rng(0)
    p = rng.dirichlet(np.full(20, 0.7))
    numbers = uniforms(np.full(num, mix(7), dtype=np.uint64), np.arange(num, dtype=np.uint64))
    sampled = draw(p.tolist(), numbers.tolist(), temperature=temperature, top_p=top_p)
    expected = p ** (1 / temperature)
    expected /= expected.sum()
    order = np.argsort(-expected)
    before = np.cumsum(expected[order]) - expected[order]
    expected[order[before >= top_p]] = 0
    expected /= expected.sum()
    counts = np.bincount(sampled.ids.numpy(), minlength=20)
    assert not counts[expected == 0].any()
    wanted = expected[expected > 0] * num
    often = wanted >= 5  # the usual condition of the test
    statistic = float(((counts[expected > 0] - wanted)[often] ** 2 / wanted[often]).sum())
    freedom = int(often.sum()) - 1
    assert statistic < freedom + 3.1 * math.sqrt(2 * freedom) + 3
    logs = torch.tensor(expected).log()[sampled.ids]
    assert torch.allclose(sampled.logprobs.double(), logs, atol=1e-4)


def test_streams_are_uniform_and_differ() -> None:
    keys = np.array([mix(seed) for seed in range(50)], dtype=np.uint64)
    streams = np.stack([uniforms(keys, np.full(50, n, dtype=np.uint64)) for n in range(2000)])
    assert streams.dtype == np.float32
    assert streams.min() >= 0
    assert streams.max() < 1
    assert abs(streams.mean() - 0.5) < 0.004  # 100,000 numbers: 4 standard errors
    correlations = np.corrcoef(streams.T)[~np.eye(50, dtype=bool)]
    assert np.abs(correlations).max() < 0.11  # 5 standard errors of 2000 numbers


def test_seeds_of_turns_differ() -> None:
    assert len({turn_seed(seed, turn) for seed in range(100) for turn in range(50)}) == 5000
    assert turn_seed(3, 1) == turn_seed(3, 1)
