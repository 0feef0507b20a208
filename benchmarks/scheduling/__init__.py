"""What benchmarks/scheduler.py is made of."""
