"""What the search can minimise beside LuciBot's own objective: the systems that the paper compares with
(section 4.1), as members of the family `optimize.objective`.

`config` has the family; `judge` is how a member scores what rollouts bring home. A member is a module
of its own. None of them can reach a task's success predicates.
"""
