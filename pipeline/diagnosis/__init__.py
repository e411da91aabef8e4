"""The checks of `doctor`: each is a function that yields marks, each with a message that says how to fix a problem.

May import every room but `sweeps` and `reports`. Offers `checks.examine`.
"""
