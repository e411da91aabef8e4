"""Training one framework with all seeds.

May import `core`, `config`, `data`, `models`, `tracking`, `evaluation`. Offers `spec` (what is asked for), `context`
(what belongs together meanwhile), `loop` (the training, top to bottom), `results` and `result_files` (what it leaves).
Inside: `checkpoint` (where it stands, on disk), `recorder` (what the loop tells), `run_logging` (to MLflow), `console`
(to the terminal).
"""
