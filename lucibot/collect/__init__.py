"""Many demonstrations from one solution: `lucibot collect`."""
