"""A recipe for one's own images, made from what they and their masks are like: `etnet plan`."""
