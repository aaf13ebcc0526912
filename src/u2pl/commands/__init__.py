"""One module per command, and the folder of a run."""
