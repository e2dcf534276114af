"""The command line: every verb checks its options and calls one workflow."""
