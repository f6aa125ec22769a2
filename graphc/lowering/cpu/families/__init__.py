"""Hand-shaped kernels for contractions and windows: a spec, a tile, a page of loops each."""
