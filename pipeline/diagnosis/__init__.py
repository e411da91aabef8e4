"""What `doctor` looks at: each check is a function that yields marks with what was found and the way out.

May import every room but `sweeps` and `reports`. Offers `checks.examine`.
"""
