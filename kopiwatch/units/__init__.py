"""Pure values and decisions: labels, units, order, coverage. No clock, no I/O, no logging."""
