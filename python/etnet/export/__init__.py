"""From trained weights to a file that runs without PyTorch, and the check that it says the same."""
