"""Several tasks in one scene, each begun where the last one ended (the paper's open problem, section 5:
training supervision for long horizons)."""
