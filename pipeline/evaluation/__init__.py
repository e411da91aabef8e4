"""How good and how fast: NumPy, float64, one place for each number.

May import `core`, `config`, `data`, `models`. Offers `metrics` (outputs and labels to scores), `summary` (means,
intervals, ratios), `predictions` (trained networks on a split), `latency`, `speed` (frameworks in turn).
"""
