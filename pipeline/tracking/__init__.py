"""What is kept of every run, in MLflow. The only package that imports mlflow."""

from .runs import Run, Tracker
from .store import store_uri

__all__ = ["Run", "Tracker", "store_uri"]
