"""What benchmarks/watch is made of besides the watcher in its own process."""
