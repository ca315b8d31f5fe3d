"""What the benchmarks of time share: figures, tables, and a count of Kopia's launches."""
