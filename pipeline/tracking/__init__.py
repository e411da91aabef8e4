"""Log every run to MLflow. The only room that imports mlflow.

May import `core`, `config`. Offers `tracker` (a process's connection to MLflow), `runs` (one run), `references`
(`runs.json`), `reader` (queries), `lookup` (runs by whatever names them), `registry` (versions and aliases), `views`
(saved views and links of the UI), `outbox` (journals that wait to be sent), `health` (checks of a store). Inside:
`journal` (writes every event to disk first, by `lines`), `sender` and `delivery` (send journals to the store, in
`batches`), `lifecycle` (whether a run is still there), `experiments`, `flavours`, `store`, `address` (credentials),
`reachable` (whether a store answers), `relocation` (after a move), `mlflow_compat` (all that MLflow does not
document).
"""
