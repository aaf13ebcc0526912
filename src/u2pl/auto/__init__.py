"""Facts of a run -> values in place of `auto`, with the reason."""
