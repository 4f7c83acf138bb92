"""What this machine offers to etnet: packages, native module, GPU, disk; found without importing anything unsafe here.

`probe` runs in a second process, so that a package that crashes on import ends that process and not this one.
"""
