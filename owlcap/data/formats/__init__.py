"""Data sets of other projects, one module a format: what its rows are called, and how they become ours.

A format that is rows in a file gives `fits` (why a row looks like it) and `convert`. Formats that are containers
(`hf_disk`, `webdataset`) give rows of their own. `owlcap.data.formats.detect` chooses.
"""
