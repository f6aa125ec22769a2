"""Products on sm_90a: tiles copied by the TMA unit, multiplied by whole warp groups (wgmma)."""
