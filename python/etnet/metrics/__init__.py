"""Scores of label maps against ground truth; NumPy only."""
