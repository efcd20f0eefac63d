"""Many conversions from one plan: `plan_file.py -> jobs.py -> run.py`, each job in a process of `worker.py`."""
