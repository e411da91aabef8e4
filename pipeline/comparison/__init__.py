"""Two arms, paired by seed and example, and what is concluded.

May import every room above `comparison` in the tour of `pipeline`. Offers `arm` (what one framework predicted, and how it
was trained), `from_mlflow` (arms of what is in MLflow), `result` (everything that is said of two arms). Inside:
`paired_tests` (the difference and its interval), `verdict` (what the difference comes to).
"""
