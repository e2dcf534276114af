"""A comparison of methods under one budget: config, trainings, tests, report."""
