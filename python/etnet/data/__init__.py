"""Reading, augmenting and batching pairs of image and mask; only `etnet.data.loader` needs torch."""
