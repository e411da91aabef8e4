"""What is kept of every run, in MLflow. The only package that imports mlflow."""

from . import views
from .runs import Run
from .store import ensure_store
from .tracker import Tracker

__all__ = ["Run", "Tracker", "ensure_store", "views"]
