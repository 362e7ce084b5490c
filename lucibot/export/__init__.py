"""Finished runs as datasets and trajectories that others can load. Knows run directories, no stages' work."""
