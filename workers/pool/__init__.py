"""Joins the parts of one worker process and runs them until it is told to stop. A composition root."""

from workers.pool.parts import Parts
from workers.pool.process import WorkerProcess
from workers.pool.run import run_worker

__all__ = ["Parts", "WorkerProcess", "run_worker"]
