"""Training one framework with all seeds.

May import `core`, `config`, `data`, `models`, `tracking`, `evaluation`. Offers `spec` (what is asked for), `context`
(what belongs together meanwhile), `loop` (the training, top to bottom), `results` and `result_files` (what it leaves).
Inside: `checkpoint` (where it stands, on disk), `run_logging` (what MLflow is sent), `console` (what a person is told).
"""
