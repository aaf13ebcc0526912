"""Everything that draws: scenes made on the fly, so that all can be tried without a file."""
