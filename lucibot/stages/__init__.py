"""The stages: thin, each `run(context)` reads upstream folders and writes its own."""
