"""The same network in several frameworks: declared once, proven equal, trained, compared, tracked.

The tour. Modules beside this file are commands (`python -m pipeline` lists them), each a thin `main`. The DVC stage,
the configuration section, the results folder and the MLflow tag of a command have its name. Everything else lives in a
room. Rooms in import order; each may import those above it (`make lint` checks that):

core        errors, exit codes, paths, signals, progress, machine, fingerprints, the registry of frameworks
config      the schema, the composition of conf/, a command's arguments
data        upstream files to prepared arrays, and the plan of every epoch
models      the declared network, the seam between the frameworks, a folder for each framework
tracking    the only code that imports MLflow: journal, delivery, saved views
search      the study of a search, the only code that imports Optuna: space, trials, reports
evaluation  metrics, intervals, predictions, latency, speed
training    the specification of a run, the loop, checkpoints, logging
equality    the proof that two frameworks compute the same function
comparison  two arms, paired, and the verdict
reports     figures, pages, tables
sweeps      many trainings: the Hydra application, warm workers, finished jobs, the search
diagnosis   checks for what would make a run fail

Where to begin: `training.loop` is the training, top to bottom; `models.backend` the seam between the frameworks;
`comparison.verdict` the answer.
"""
