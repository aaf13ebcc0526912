"""The configuration of a run: the schema by part, presets, and overrides."""

from u2pl.config.fields import AUTO
from u2pl.config.overrides import load_config, load_saved
from u2pl.config.reading import preset_about, preset_names, preset_text
from u2pl.config.schema import Config

__all__ = ["AUTO", "Config", "load_config", "load_saved", "preset_about", "preset_names", "preset_text"]
