# SPDX-License-Identifier: Apache-2.0
"""The depth rank-sum test: what it computes, what it refuses, how often it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from embedcore import depth
from embedcore.depth._pairs import kernel_width
from oracle import rank_sum as oracle
from oracle.depths import score

ALTERNATIVES = ("less", "greater", "two-sided")
PAIR_METRICS = ("cosine", "chord", "arc", "l2")


def _samples(
    n: int = 40, m: int = 30, d: int = 12, wider: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n * 1000 + m)
    f, g = rng.standard_normal((n, d)) + 0.5, rng.standard_normal((m, d)) * wider + 0.5
    return f, g


@pytest.mark.parametrize("metric", [*PAIR_METRICS, "spatial"])
@pytest.mark.parametrize("reference", ["f", "g"])
def test_asymptotic_matches_the_oracle(metric: str, reference: str) -> None:
    f, g = _samples()
    result = depth.rank_sum_test(f, g, metric=metric, method="asymptotic", reference=reference)
    x = score(f, metric=metric) if reference == "f" else score(f, g, metric=metric)
    y = score(g, f, metric=metric) if reference == "f" else score(g, metric=metric)
    assert np.allclose(result.depths_f, x, atol=1e-6) and np.allclose(result.depths_g, y, atol=1e-6)
    q = oracle.quality_index(x, y)
    assert result.q == pytest.approx(q, abs=1e-12)
    assert result.statistic == pytest.approx(q * 40 * 30, rel=1e-12)
    share, shift = _pair_terms(f if reference == "f" else g, metric)
    n = 40 if reference == "f" else 30
    error = math.sqrt((71 / (40 * 30) + share / n) / 12)
    expected = 0.5 + shift if reference == "f" else 0.5 - shift
    assert result.zscore == pytest.approx((q - expected) / error, rel=1e-4)
    assert result.pvalue == pytest.approx(math.erfc(abs(result.zscore) / math.sqrt(2)))
    assert result.method == "asymptotic"


def _pair_terms(rows: np.ndarray, metric: str) -> tuple[float, float]:
    if metric == "spatial":
        return 0.0, 0.0
    table = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        one = score(rows, row[None], metric=metric)  # depth in a single row: its distance to it
        distance = {"cosine": 2 - one, "chord": 2 - one, "arc": math.pi - one, "l2": 1 / one - 1}
        table[i] = distance[metric]
    np.fill_diagonal(table, 0)
    width = kernel_width(table.sum(axis=1) / (len(rows) - 1))
    return min(1.0, oracle.pair_share(table)), oracle.pair_shift(table, width)


def test_statistic_and_alternatives_are_those_of_scipy_on_the_depths() -> None:
    stats = pytest.importorskip("scipy.stats")
    f, g = _samples()
    for alternative in ALTERNATIVES:
        result = depth.rank_sum_test(f, g, method="split", alternative=alternative)
        expected = stats.mannwhitneyu(
            result.depths_g, result.depths_f, alternative=alternative, method="exact"
        )
        assert (result.statistic, result.pvalue) == pytest.approx(tuple(expected), rel=1e-9)


@pytest.mark.parametrize("method", ["asymptotic", "split", "permutation"])
@pytest.mark.parametrize("reference", ["f", "g"])
def test_less_means_that_g_is_the_more_outlying_sample(method: str, reference: str) -> None:
    f, g = _samples(60, 60, wider=3.0)
    p = {
        alternative: depth.rank_sum_test(
            f,
            g,
            metric="l2",
            method=method,
            reference=reference,
            alternative=alternative,
            n_resamples=199,
        )
        for alternative in ALTERNATIVES
    }
    assert p["less"].q < 0.2 and p["less"].zscore < -4
    assert p["less"].pvalue <= 0.005 and p["greater"].pvalue > 0.99
    assert p["two-sided"].pvalue == pytest.approx(2 * p["less"].pvalue)


def test_result_unpacks_as_in_scipy_and_hides_the_depths_when_printed() -> None:
    result = depth.rank_sum_test(*_samples())
    statistic, pvalue = result
    assert (statistic, pvalue) == (result.statistic, result.pvalue)
    assert "depths" not in repr(result)
    with pytest.raises(AttributeError):
        result.pvalue = 0.0  # type: ignore[misc]


def test_split_holds_half_of_the_reference_out_and_depends_on_the_seed() -> None:
    f, g = _samples(41, 30)
    one, again, other = (depth.rank_sum_test(f, g, method="split", seed=s) for s in (1, 1, 2))
    assert len(one.depths_f) == 21 and len(one.depths_g) == 30
    assert np.array_equal(one.depths_f, again.depths_f) and one.pvalue == again.pvalue
    assert not np.array_equal(one.depths_f, other.depths_f)


@pytest.mark.parametrize("metric", PAIR_METRICS)
def test_permutation_of_small_samples_approaches_the_exact_pvalue(metric: str) -> None:
    f, g = _samples(5, 4, d=3, wider=1.5)
    got = depth.rank_sum_test(
        f, g, metric=metric, method="permutation", alternative="less", n_resamples=4999
    )
    pooled = np.concatenate([f, g])
    values = []
    for code in range(1 << 9):
        flags = (code >> np.arange(9)) & 1 == 1
        if flags.sum() == 5:
            x, y = pooled[flags], pooled[~flags]
            values.append(oracle.quality_index(score(x, metric=metric), score(y, x, metric=metric)))
    expected = float(np.mean(np.array(values) <= got.q + 1e-9))
    assert got.pvalue == pytest.approx(expected, abs=5 * 0.5 / math.sqrt(5000))


def test_permutation_of_other_metrics_scores_each_labelling() -> None:
    f, g = _samples(12, 9, d=3, wider=1.5)
    one, again = (
        depth.rank_sum_test(f, g, metric="mahalanobis", method="permutation", n_resamples=99)
        for _ in range(2)
    )
    assert one.pvalue == again.pvalue
    assert one.pvalue * 100 == pytest.approx(round(one.pvalue * 100))


@pytest.mark.parametrize(
    ("metric", "n", "m", "method"),
    [
        ("cosine", 10, 10, "asymptotic"),
        ("l2", 120, 100, "asymptotic"),
        ("l2", 120, 99, "permutation"),
        ("arc", 9, 40, "permutation"),
        ("cosine", 5, 1996, "split"),
        ("chord", 3, 1998, "permutation"),
        ("spatial", 40, 30, "split"),
    ],
)
def test_auto_picks_a_calibrated_method(metric: str, n: int, m: int, method: str) -> None:
    f, g = _samples(n, m, d=3)
    assert depth.rank_sum_test(f, g, metric=metric, n_resamples=19).method == method


@pytest.mark.parametrize("method", ["asymptotic", "permutation"])
@pytest.mark.parametrize("metric", ["cosine", "chord", "arc", "l2"])
def test_the_unit_and_place_of_the_rows_do_not_matter(metric: str, method: str) -> None:
    f, g = np.random.default_rng(3).standard_normal((2, 25, 6)) + 0.5
    g *= 1.2

    def test(scale: float, shift: float) -> list[float]:
        moved = ((rows + shift) * scale for rows in (f, g))
        result = depth.rank_sum_test(*moved, metric=metric, method=method, n_resamples=199)
        return [result.pvalue, result.zscore]

    wanted = test(1.0, 0.0)
    for scale in (2.0**600, 2.0**40) if metric == "l2" else (2.0**600, 2.0**-600):
        assert test(scale, 0.0) == pytest.approx(wanted, rel=1e-3)
    if metric == "l2":
        assert test(1.0, 2.0**30) == pytest.approx(wanted, rel=1e-3)


def test_equal_rows_give_q_one_half_and_pvalue_one() -> None:
    rows = np.ones((20, 3))
    for method in ("asymptotic", "split", "permutation"):
        result = depth.rank_sum_test(rows, rows, metric="l2", method=method, n_resamples=19)
        assert (result.q, result.zscore, result.pvalue) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_dtypes_give_float32_depths(dtype: type) -> None:
    f, g = (rows.astype(dtype) for rows in _samples())
    result = depth.rank_sum_test(f, g)
    assert result.depths_f.dtype == np.float32 and 0 <= result.pvalue <= 1


@pytest.mark.parametrize("method", ["asymptotic", "split", "permutation"])
def test_samples_may_differ_in_dtype(method: str) -> None:
    f, g = _samples(d=4)
    f, g = np.round(f * 8) / 8, np.round(g * 8) / 8  # exact in float16
    mixed = depth.rank_sum_test(f.astype(np.float16), g, method=method, n_resamples=99)
    same = depth.rank_sum_test(f, g, method=method, n_resamples=99)
    assert mixed.q == pytest.approx(same.q, abs=2e-3)
    assert mixed.pvalue == pytest.approx(same.pvalue, abs=0.02)


def test_torch_tensors_come_back_as_tensors() -> None:
    torch = pytest.importorskip("torch")
    f, g = (torch.from_numpy(rows) for rows in _samples())
    for method in ("asymptotic", "split", "permutation"):
        result = depth.rank_sum_test(f, g, method=method, n_resamples=19)
        expected = depth.rank_sum_test(f.numpy(), g.numpy(), method=method, n_resamples=19)
        assert isinstance(result.depths_f, torch.Tensor)
        assert tuple(result) == tuple(expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "cosin"}, r"'metric' must be one of .*; got 'cosin'; did you mean 'cosine'\?"),
        ({"alternative": "les"}, r"'alternative' must be one of .*; did you mean 'less'\?"),
        ({"method": "spilt"}, r"'method' must be one of .*; did you mean 'split'\?"),
        ({"reference": "h"}, "'reference' must be one of 'f', 'g'; got 'h'"),
        ({"n_resamples": 0}, "'n_resamples' must be at least 1; got 0"),
        ({"seed": -1}, "'seed' must be at least 0; got -1"),
    ],
)
def test_unknown_options_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=r"depth\.rank_sum_test: " + words):
        depth.rank_sum_test(*_samples(), **options)


@pytest.mark.parametrize(
    ("n", "m", "options", "words"),
    [
        (1, 5, {}, r"sample 'f' must have at least 2 rows for method='permutation'; got 1"),
        (0, 5, {"method": "asymptotic"}, r"sample 'f' must have at least 2 rows"),
        (3, 5, {"method": "split"}, r"'f' must have at least 4 rows for method='split'; got 3"),
        (5, 1, {"reference": "g"}, r"sample 'g' must have at least 2 rows"),
        (5, 0, {}, r"'g' must have at least 1 row; got 0"),
    ],
)
def test_too_few_rows(n: int, m: int, options: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        depth.rank_sum_test(*_samples(n, m), **options)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"equal numbers of columns; got shapes .4, 3. and .4, 2."):
        depth.rank_sum_test(np.ones((4, 3)), np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"two-dimensional .* got shapes \(4,\) and \(4, 2\)"):
        depth.rank_sum_test(np.ones(4), np.ones((4, 2)))


@pytest.mark.parametrize("method", ["asymptotic", "split", "permutation"])
@pytest.mark.parametrize("reference", ["f", "g"])
def test_a_bad_row_is_named_in_its_own_sample(reference: str, method: str) -> None:
    good, bad = _samples()
    bad[3, 0] = np.nan
    words = r"depth\.rank_sum_test: '{}' must be finite; row 3"
    with pytest.raises(ValueError, match=words.format("g")):
        depth.rank_sum_test(good, bad, method=method, reference=reference)
    with pytest.raises(ValueError, match=words.format("f")):
        depth.rank_sum_test(bad, good, method=method, reference=reference)
    with pytest.raises(TypeError, match=r"depth\.rank_sum_test: 'f' must be float16, .*int64"):
        depth.rank_sum_test(good.astype(int), good, method=method, reference=reference)


def test_tensors_that_require_grad_are_named() -> None:
    torch = pytest.importorskip("torch")
    f, g = (torch.from_numpy(rows) for rows in _samples())
    with pytest.raises(TypeError, match=r"rank_sum_test: 'g' must not .* Use g\.detach\(\)"):
        depth.rank_sum_test(f, g.requires_grad_())


def _rejections(method: str, n: int, m: int, draws: int) -> dict[str, float]:
    """Share of p-values of at most 0.05 for isotropic rows, the hardest case, of one population."""
    counts = dict.fromkeys(ALTERNATIVES, 0)
    for step in range(draws):
        rows = np.random.default_rng([n, m, step]).standard_normal((n + m, 32))
        less, greater = (
            depth.rank_sum_test(
                rows[:n],
                rows[n:],
                method=method,
                alternative=alternative,
                n_resamples=79,
                seed=step,
            ).pvalue
            for alternative in ("less", "greater")
        )
        counts["less"] += less <= 0.05
        counts["greater"] += greater <= 0.05
        counts["two-sided"] += 2 * min(less, greater) <= 0.05
    return {name: count / draws for name, count in counts.items()}


@pytest.mark.parametrize(
    ("method", "n", "m"),
    [("auto", 50, 50), ("auto", 30, 150), ("split", 24, 20), ("permutation", 8, 12)],
)
def test_size_at_the_five_percent_level(method: str, n: int, m: int) -> None:
    """Four standard errors about 0.05: a textbook standard error gives 0.09 to 0.15 here."""
    draws = 1000
    margin = 4 * math.sqrt(0.05 * 0.95 / draws)  # 0.028
    for alternative, size in _rejections(method, n, m, draws).items():
        assert abs(size - 0.05) < margin, (alternative, size)


def test_permutation_reports_progress() -> None:
    seen: list[float] = []
    f, g = np.random.default_rng(0).standard_normal((2, 12, 5))
    options = {"method": "permutation", "n_resamples": 2000}
    told = depth.rank_sum_test(f, g, progress=seen.append, **options)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert told.pvalue == depth.rank_sum_test(f, g, **options).pvalue
