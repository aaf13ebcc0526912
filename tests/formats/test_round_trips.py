"""Masks that are exported and imported again are the same, in every format."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from formats.conftest import KINDS, NAMES, annotated, exported, imported, masks, read_masks
from u2pl.commands.export_masks import DraftOptions, export
from u2pl.commands.import_masks import import_masks
