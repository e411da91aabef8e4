"""The hash that dropout draws by."""

import numpy as np
import pytest

from pipeline.models.dropout import keep


def kept(count: int, key: int, number: int = 0, rate: float = 0.5) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(keep(np.arange(count), np.int64(key), number, rate, np.right_shift))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_the_rate_is_kept(rate: float) -> None:
    shares = [1 - kept(100_000, key, rate=rate).mean() for key in (0, 1, 2, 123456789, 2**32 - 1)]
    assert np.abs(np.array(shares) - rate).max() < 5 * np.sqrt(0.25 / 100_000)


def test_keys_and_layers_draw_independently() -> None:
    draws = np.array([kept(50_000, key, number) for key in (0, 1, 2, 3, 2**31) for number in (0, 1, 2)])
    correlation = np.corrcoef(draws.astype(float)) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5 / np.sqrt(50_000)


def test_neighbouring_positions_are_independent() -> None:
    draw = kept(200_000, 77).astype(float)
    for lag in (1, 2, 3, 28, 32, 784):
        assert abs(np.corrcoef(draw[:-lag], draw[lag:])[0, 1]) < 5 / np.sqrt(200_000), lag
