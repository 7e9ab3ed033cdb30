"""Branches when there is slack: which of them run in a step, and which are held (SEMANTICS section 9).

Knows requests and branches by their numbers only, and the time by what it is told; a host holds and releases.
"""
