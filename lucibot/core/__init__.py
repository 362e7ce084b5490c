"""Array conventions, geometry, cameras, videos and errors shared by every layer."""
