"""Tables, plots and pictures of runs."""
