"""What happened, told: the history, the metrics, the exporter, the log."""
