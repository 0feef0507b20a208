"""What benchmarks/store.py is made of."""
