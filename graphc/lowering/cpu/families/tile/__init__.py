"""Products and convolutions on AMX tiles."""
