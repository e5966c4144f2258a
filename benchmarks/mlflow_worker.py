"""Runs inside MLflow's own environment: records runs into its SQLite store and says how long that took.

Reads one number a line, the count of runs to record; writes the seconds. Each run has 5 parameters and 3 metrics, as in the fluent
API that people use.
"""

import os
import sys
import time

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"

import mlflow  # type: ignore[import-not-found,unused-ignore]  # it lives in an environment of its own

mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}")
mlflow.set_experiment("benchmark")
print("ready", mlflow.__version__, flush=True)
number = 0
for line in sys.stdin:
    started = time.perf_counter()
    for _ in range(int(line)):
        number += 1
        with mlflow.start_run():
            mlflow.log_params({"depth": number % 9, "rate": 0.1, "trees": 100, "seed": number, "split": "a"})
            mlflow.log_metrics({"accuracy": 0.9, "loss": 0.1, "f1": 0.8})
    print(time.perf_counter() - started, flush=True)
