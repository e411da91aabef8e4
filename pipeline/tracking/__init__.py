"""What is kept of every run, in MLflow. The only package that imports mlflow."""

from . import views
from .delivery import EXPERIMENT_ID, RUN_ID
from .journal import is_local
from .runs import Run
from .store import ensure_store
from .tracker import Tracker

__all__ = ["EXPERIMENT_ID", "RUN_ID", "Run", "Tracker", "ensure_store", "is_local", "views"]
