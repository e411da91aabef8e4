"""Many trainings: the Hydra application, its jobs in separate processes, and the cache of finished jobs.

May import every room but `diagnosis`. Offers `app` (`python -m pipeline.train`). Inside: `command_line`
(Hydra's options), `folders` (whom a folder belongs to), `plan` (the jobs, composed once), `sweep` (from the first job
to the ranking), `job` (one job), `processes` (starts a job), `points` and `ranking`, `cache` (finished jobs), `resend`
(sends them to a store that lacks them), `workers` (processes that import a framework once and are forked for each job).
"""
