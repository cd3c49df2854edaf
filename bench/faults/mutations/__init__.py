"""Ways to spoil a good history, each named for the invariant that has to notice: the test of the checker.

A mutation is given the history as a ``Copy`` it may change, and says nothing about how it is found out.
"""

from bench.faults.mutations import groups, log, whole
from bench.faults.mutations.copy import MUTATIONS, Copy, Mutation

__all__ = ["MUTATIONS", "Copy", "Mutation", "groups", "log", "whole"]
