"""Events in, units out; which of them are due, and in which order."""
