"""Scenes drawn on the fly, so that you can try everything without any files."""
