"""CPU, memory, disk, network and GPU use beside a run: MLflow's own monitors, written to the run's journal."""

import threading
from collections.abc import Callable, Mapping

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor


class SystemMetrics(SystemMetricsMonitor):  # type: ignore[misc]  # MLflow has no types
    """Samples every so many seconds, under `system/`."""

    def __init__(
        self, log_metrics: Callable[[Mapping[str, float], int], None], seconds: float, *, first_step: int
    ) -> None:
        # it makes a client, of which we have no use: that of a server opens nothing, one of SQLite builds a database
        super().__init__(run_id="", sampling_interval=seconds, tracking_uri="http://127.0.0.1")
        self._log_metrics, self._logging_step = log_metrics, first_step

    def monitor(self) -> None:
        """MLflow's loop asks its server at every sample whether the run is still there."""
        self.collect_metrics()
        while not self._shutdown_event.wait(self.sampling_interval):
            self.publish_metrics(self.aggregate_metrics())
            self.collect_metrics()

    def publish_metrics(self, metrics: dict[str, float]) -> None:
        """Into the journal, as one point each."""
        self._log_metrics({f"system/{name}": value for name, value in metrics.items()}, self._logging_step)
        self._logging_step += 1
        for monitor in self.monitors:
            monitor.clear_metrics()

    def finish(self) -> None:
        """Stop sampling."""
        self._shutdown_event.set()
        if isinstance(self._process, threading.Thread):
            self._process.join()
