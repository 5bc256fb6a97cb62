"""The ops: each has one file, or a folder, with its cases and everyone who is timed at them.

measure(device, repeats, only)  yields comparisons: each times one case and gives its rows; `only` are words
                                that a case's label has to hold
errors(workload)                of an op of networks: yields the sums at the layers of a workload
"""

from pkgutil import iter_modules

NAMES = tuple(found.name for found in iter_modules(__path__))
