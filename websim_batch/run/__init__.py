"""A job from end to end: run it, check it, look at it, export it. `execute` has the order of things drawn."""
