"""Many trainings for one result: comparisons of methods and ablations of settings."""
