"""What benchmarks/downtime is made of: disks, stacks, the bare stop and start, the rounds."""
