"""The same network in several frameworks: declared once, proven equal, trained, compared, tracked.

The tour. Modules beside this file are commands (`python -m pipeline` lists them), each a thin `main`; a command is a
stage of DVC, a section of the configuration, a folder of results and an MLflow tag of the same name. Everything else
lives in a room. Rooms in import order, each may import those above it (`make lint` holds that):

core        errors, exit codes, paths, signals, progress, machine, fingerprints, the registry of frameworks
config      the schema, the composition of conf/, a command's arguments
data        upstream files to prepared arrays, and the plan of every epoch
models      the declared network, the seam between the frameworks, a folder for each framework
tracking    the only code that knows MLflow: journal, delivery, saved views
evaluation  metrics, intervals, predictions, latency, speed
training    what is asked for, the loop, checkpoints, what is logged
equality    the proof that two frameworks compute the same function
comparison  two arms, paired, and the verdict
reports     figures, pages, tables: what people look at
sweeps      many trainings: the Hydra application, warm workers, what is done already
diagnosis   what would fail later

Where to begin: `training.loop` is the training, top to bottom; `models.backend` the seam between the frameworks;
`comparison.verdict` the answer.
"""
