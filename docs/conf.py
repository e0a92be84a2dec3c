"""Sphinx configuration: ``make docs``."""

project = 'kd_det'
author = 'the kd_det authors'
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.autosummary', 'sphinx.ext.napoleon']
autosummary_generate = True
autodoc_typehints = 'description'
myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3
html_theme = 'furo'
exclude_patterns = ['_build']
