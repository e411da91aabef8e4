"""What is kept of every run, in MLflow. The only room that imports mlflow.

May import `core`, `config`. Offers `tracker` (a process's way to MLflow), `runs` (one run), `references` (`runs.json`),
`reader` (what MLflow holds), `views` (saved views and links of its UI), `outbox` (what waits), `health` (a store seen
from outside). Inside: `journal` (every event on disk first), `sender` and `delivery` (from there to the store),
`store`, `mlflow_compat` (all that MLflow does not document).
"""
