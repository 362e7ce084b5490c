"""The report page: plain data in, one self-contained file out."""
