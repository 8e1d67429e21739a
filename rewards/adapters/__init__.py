"""The project's rewards as reward functions of other training systems: verl, TRL, ms-swift.

Each module imports without the system that it is for.
"""
