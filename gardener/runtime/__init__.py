"""What every process of Gardener has: a clock, a trace, a worker thread, whole files."""
