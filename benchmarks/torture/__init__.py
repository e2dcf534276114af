"""Attacks on the product through its front doors, counted: ``python -m benchmarks.torture``, or ``make torture``.

One module for each kind of attack; ``kinds`` lists them, ``results`` keeps what was seen, ``page`` writes it into
``docs/reliability.md``. Every try has a number, from which all that is random in it follows.
"""
