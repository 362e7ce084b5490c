"""LuciBot: robot trajectories learned from generated videos.

Importing this package starts nothing and imports nothing heavy.
"""

__version__ = "0.1.0"
