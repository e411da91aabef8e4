"""Many trainings: the Hydra application, its jobs in processes of their own, what is done already.

May import every room but `diagnosis`. Offers `app` (`python -m pipeline.train`). Inside: `plan` (the jobs, composed
once), `sweep` (from the first job to the ranking), `job` (one job), `processes`, `ranking`, `cache` (what is done),
`workers` (processes that have imported what a job needs, and are forked for each).
"""
