"""The study of a search: its space, its trials and what is reported of them. The only code that imports Optuna.

May import `config` and `core`. Offers `space` (what the command line searches over), `record` (`search.json`, from
which any process takes part), `study` (the trials, their points and results), `report` (the epochs of a trial, and
whether it goes on). The search itself is `sweeps.search`.
"""
