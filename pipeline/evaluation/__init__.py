"""How good a network is and how fast: the one place that computes each reported number, in NumPy and float64.

May import `core`, `config`, `data`, `models`. Offers `metrics` (outputs and labels to scores), `summary` (means,
intervals, ratios), `predictions` (the networks of all seeds on a split), `latency` (how long one network takes to
predict), `speed` (the frameworks in turn).
"""
