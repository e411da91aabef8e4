"""Training of one framework with all seeds.

May import `core`, `config`, `data`, `models`, `tracking`, `evaluation`. Offers `spec` (what to train), `context` (the
objects that the loop shares), `loop` (the training, top to bottom), `results` and `result_files` (what it returns and
writes). Inside: `checkpoint` (its state on disk), `handover` (a result, left for processes that waited for it),
`recorder` (the protocol that the loop reports to), `run_logging` (reports to MLflow), `console` (to the terminal).
"""
