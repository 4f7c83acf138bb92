"""Training: the loop, its schedule, its checkpoints and its records (paper Sec. 2.3)."""
