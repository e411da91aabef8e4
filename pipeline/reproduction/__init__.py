"""Repeat a run of MLflow from what it logged, and compare the two bit for bit.

May import `core`, `config`, `data`, `models`, `tracking`, `sweeps`. Offers `rerun` (one training again), `evidence`
(what two runs are compared by), `origin` (what a run was made from), `card` (what is known of a run) and `revision`
(the runs of a revision of git). Inside: `workspace` (code as it was, in a folder of its own), `environment`
(packages, processor, variables), `restored_data` (the data by their fingerprint), `dvc_cache`.
"""
