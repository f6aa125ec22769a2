"""Evaluating the bodies of kernels, whatever the target: index arithmetic, ops at an index, watching what they do."""
