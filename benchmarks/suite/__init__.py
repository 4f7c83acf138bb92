"""The parts of `gpu_suite.py`. What it imports itself needs only Python: the product is built by its first part."""
