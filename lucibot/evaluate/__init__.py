"""Judges of what finished runs left: by the simulator's state, by pixels, by models; and how far they
agree. A judge is no loss: nothing here is seen by a search."""
