"""A search that is fair to all frameworks: `hydra/sweeper=search`.

Every trial trains all frameworks at one point of the space; the points that were best on validation are trained again
with fresh seeds, and judged on the test split. Inside: `driver` (from the first trial to the answer), `tasks` (what is
open, for any launcher), `trial` (one point), `chosen` (the best points, trained again), `answer` (the comparison and
its sentence), `outcome` (the table, the page and the MLflow run).
"""
