"""A real photo as a task: camera, shapes and places fitted to it (paper, section 4.3)."""
