"""Two arms, paired by seed and example, and the verdict on their difference.

May import every room above `comparison` in the tour of `pipeline`. Offers `arm` (the predictions and the training
history of one arm), `from_mlflow` (arms read from MLflow), `result` (every number that a page or table shows). Inside:
`paired_tests` (the difference, its interval and its tests), `verdict` (better, equivalent or inconclusive).
"""
