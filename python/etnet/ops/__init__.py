"""Operators on torch tensors: each one a native kernel registered with `torch.library`, and its plain torch twin."""
