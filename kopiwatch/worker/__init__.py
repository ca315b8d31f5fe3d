"""The small program inside a worker: standard library only, quick to start."""
