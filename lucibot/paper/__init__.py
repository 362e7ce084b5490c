"""The paper's tables and figures with our methods, made again from runs. No number of the paper's is in
here: what was not run is an empty cell."""
