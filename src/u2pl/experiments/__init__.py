"""Many trainings for one answer: comparisons of methods and ablations of settings."""
