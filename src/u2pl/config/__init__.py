"""The configuration of a run: the schema by part, presets, and overrides."""
