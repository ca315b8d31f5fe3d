"""The run: phases, journal, worker, recipe, verdict."""
