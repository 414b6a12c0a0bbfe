"""What updates, env steps and stored episodes cost: `make bench`, or `python -m benchmarks --help`.

Not a part of the library: nothing of `marl_sale` imports it, and the wheel leaves it out.
"""
