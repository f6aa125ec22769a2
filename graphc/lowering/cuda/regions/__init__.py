"""Ops with bodies: scans and conds, as the launches of the kernels in them."""
