"""A training as a folder: settings files -> checked settings; metrics and checkpoints that it goes on from.

Needs PyYAML, of the extra "train".
"""
